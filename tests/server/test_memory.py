"""The server's memory stays as it is over thousands of requests."""

import itertools
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from tests.server.conftest import Server, polls

pytestmark = pytest.mark.slow
REQUESTS, WARM_UP, CLIENTS = 2000, 500, 16
# MiB. Seen were 0.7; what each request left behind may be 4 KiB.
BOUND = 8


def test_memory_is_flat_over_two_thousand_requests(start_server, monkeypatch):
    """Whole and streamed answers, refusals, slow readers, clients that hang up in the middle."""
    # oneDNN keeps a program for each shape that it has met, up to a number: 15 MiB here.
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    server = start_server("--max_rows=16", "--max_waiting=64")
    process = psutil.Process(server.process.pid)
    numbers = itertools.count()
    counts: dict[str, int] = {}
    lock = threading.Lock()

    def work(_: int, until: int) -> None:
        with httpx.Client(base_url=server.url, timeout=300, trust_env=False) as http:
            while (number := next(numbers)) < until:
                way = _ask(http, number)
                with lock:
                    counts[way] = counts.get(way, 0) + 1

    def ask_up_to(until: int) -> int:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(work, range(CLIENTS), itertools.repeat(until)))
        _wait_until_idle(server)
        return process.memory_info().rss

    sizes = []
    for until in (WARM_UP, WARM_UP + REQUESTS):
        numbers = itertools.count(sum(counts.values()))
        sizes.append(ask_up_to(until) / 2**20)
    assert sum(counts.values()) == WARM_UP + REQUESTS
    assert min(counts.values()) > REQUESTS // 50 and len(counts) == 5
    assert sizes[-1] - sizes[0] < BOUND, sizes


def _ask(http: httpx.Client, number: int) -> str:
    """Makes a request; returns of what kind it was."""
    chance = random.Random(number)
    way = chance.choice(("whole", "whole", "stream", "stream", "dropped", "slow", "refused"))
    if way == "slow" and chance.random() < 0.7:
        way = "whole"
    words = " ".join(chance.choice(("mon", "tue", "wed")) for _ in range(chance.randrange(1, 9)))
    body: dict[str, Any] = {
        "model": "none" if way == "refused" else "tiny",
        "messages": [{"role": "user", "content": f"{words} {number}"}],
        "max_tokens": chance.randrange(2, 12),
        "temperature": chance.choice((0, 1)),
        "n": chance.choice((1, 1, 2)),
    }
    if way in ("whole", "refused"):
        answer = http.post("/chat/completions", json=body)
        assert answer.status_code == (404 if way == "refused" else 200), answer.text
        return way
    with http.stream("POST", "/chat/completions", json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        for at, _ in enumerate(answer.iter_lines()):
            if way == "slow":
                time.sleep(0.02)
            if way == "dropped" and at > chance.randrange(8):
                break
    return way


def _wait_until_idle(server: Server) -> None:
    """Waits until the server does nothing for a moment."""
    process = psutil.Process(server.process.pid)
    process.cpu_percent()
    for _ in polls():
        time.sleep(0.5)
        if process.cpu_percent() < 5:
            return
