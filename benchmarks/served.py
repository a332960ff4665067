"""A server as a process of its own, and clients that ask it side by side."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

REPOSITORY = Path(__file__).resolve().parents[1]
# Seconds within which a server answers its first question.
_PATIENCE = 300


@dataclass(frozen=True)
class Server:
    """A server that listens.

    Attributes:
        url: Its address, `/v1` included.
        process: It.
    """

    url: str
    process: "subprocess.Popen[bytes]"

    @property
    def peak_memory_mib(self) -> float:
        """The most memory that it has had so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


@dataclass(frozen=True)
class Answer:
    """A streamed answer.

    Attributes:
        text: The whole of it.
        first: Seconds from the request to the first piece of text.
        whole: Seconds to its end.
    """

    text: str
    first: float
    whole: float


def our_server(folder: Path, models: str, *flags: str) -> list[str]:
    """Returns the command of our server; the port is given by `serving`."""
    program = [sys.executable, str(REPOSITORY / "run_server.py")]
    return [*program, f"--data_dir={folder}", f"--models={models}", *flags]


@contextlib.contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Server]:
    """Starts a server on a free port, waits until it listens, and ends it afterwards.

    Args:
        command: Without the port.
        environment: Of the process, beside our own.
        log: Gets what it prints.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--port={port}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    try:
        end = time.monotonic() + _PATIENCE
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command[0]} does not serve:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield Server(f"http://127.0.0.1:{port}/v1", process)
    finally:
        process.terminate()
        process.wait()


def ask_all(
    server: Server, shares: Sequence[Sequence[Mapping[str, Any]]]
) -> tuple[list[Answer], float]:
    """Asks conversations, one after the other in each share, and all shares side by side.

    Args:
        server: Answers.
        shares: For each client the bodies of its requests to chat.completions.

    Returns:
        The answers, and the seconds that all took together.
    """
    return asyncio.run(_ask_all(server.url, shares))


async def _ask_all(
    url: str, shares: Sequence[Sequence[Mapping[str, Any]]]
) -> tuple[list[Answer], float]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as http:
        began = time.perf_counter()
        clients = [_ask_each(http, url, share) for share in shares]
        answers = [answer for found in await asyncio.gather(*clients) for answer in found]
        return answers, time.perf_counter() - began


async def _ask_each(
    http: httpx.AsyncClient, url: str, bodies: Sequence[Mapping[str, Any]]
) -> list[Answer]:
    return [await _ask(http, f"{url}/chat/completions", body) for body in bodies]


async def _ask(http: httpx.AsyncClient, url: str, body: Mapping[str, Any]) -> Answer:
    began, first, parts = time.perf_counter(), 0.0, []
    async with http.stream("POST", url, json={**body, "stream": True}) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                if text := choice["delta"].get("content"):
                    first = first or time.perf_counter() - began
                    parts.append(text)
    return Answer("".join(parts), first, time.perf_counter() - began)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
