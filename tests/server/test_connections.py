"""Connections that are kept."""

import time

import httpx


def test_an_answer_over_a_kept_connection_waits_for_no_acknowledgement(server):
    """Nagle's algorithm and the client's delayed acknowledgement would cost 40 ms each time."""
    times = []
    with httpx.Client(trust_env=False) as http:
        for _ in range(40):
            began = time.perf_counter()
            assert http.post(f"{server.url}/fine_tuning/jobs", json={}).status_code == 400
            times.append(time.perf_counter() - began)
    # The first ones are acknowledged at once; a busy machine delays some.
    assert sorted(times[20:])[5] < 0.035
