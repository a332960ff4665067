"""A server as a process of its own, and OpenAI's client of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="the test extra brings OpenAI's client")

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "formats" / "language_models"
# Nothing takes so long; a test that waits in vain ends.
LIMIT = 300


class Server:
    """A server in a folder, which can be killed and started again."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self._flags = flags
        self._log = folder.parent / f"{folder.name}.log"
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(REPOSITORY / "run_server.py"), f"--data_dir={self.folder}"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, f"--models=tiny={MODELS / 'llama'}", "--port=0", *self._flags],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "A_SECRET": "of the server"},
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://"), self.said
        self.url = line.split()[-1]
        self.client = openai.OpenAI(base_url=self.url, api_key="local", timeout=300)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT)

    @property
    def said(self) -> str:
        """What it wrote to the standard error."""
        return self._log.read_text()

    def upload(self, path: Path) -> str:
        with path.open("rb") as file:
            return str(self.client.files.create(file=file, purpose="fine-tune").id)

    def wait(self, job: str, *statuses: str) -> Any:
        """Waits for a job's end, or for another status."""
        wanted = statuses or ("succeeded", "failed", "cancelled")
        found = self.client.fine_tuning.jobs.retrieve(job)
        for _ in polls():
            found = self.client.fine_tuning.jobs.retrieve(job)
            if found.status in wanted:
                return found
        raise AssertionError(f"{found}\n{self.output(job)}")

    def model_dir(self, job: str) -> Path:
        return self.folder / "jobs" / job / "model"

    def output(self, job: str) -> str:
        path = self.folder / "jobs" / job / "output.txt"
        return path.read_text() if path.exists() else ""


def polls() -> Iterator[None]:
    """Yields again and again, with pauses, up to the limit."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        yield
        time.sleep(0.05)


@pytest.fixture(scope="module")
def start_server(tmp_path_factory) -> Iterator[Callable[..., Server]]:
    """Starts servers with further flags; at the end they are stopped."""
    servers: list[Server] = []

    def start(*flags: str) -> Server:
        servers.append(Server(tmp_path_factory.mktemp("server") / "data", *flags))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            assert server.stop() in (0, -signal.SIGTERM)
        assert "Traceback" not in server.said


@pytest.fixture(scope="module")
def server(start_server) -> Server:
    return start_server()


@pytest.fixture(scope="module")
def client(server) -> Any:
    return server.client


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    os.environ.pop("OPENAI_BASE_URL", None)
