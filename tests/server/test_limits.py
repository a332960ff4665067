"""Limits of a client's requests: so many a minute, so many at a time; each for itself."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tf_finetune.server.limits import Limits

openai = pytest.importorskip("openai", reason="the test extra brings OpenAI's client")

_SECOND = 10**9
_PAUSES = some.lists(some.tuples(some.integers(0, 70 * _SECOND), some.sampled_from("abc")))


@given(some.integers(1, 10_000), _PAUSES)
def test_the_bucket_is_that_of_exact_fractions(per_minute, pauses):
    now = 0
    limits = Limits(per_minute, None, lambda: now)
    tokens = dict.fromkeys("abc", Fraction(per_minute))
    for pause, client in pauses:
        now += pause
        filled = Fraction(pause * per_minute, 60 * _SECOND)
        tokens = {name: min(count + filled, per_minute) for name, count in tokens.items()}
        verdict = limits.begin(client)
        if tokens[client] >= 1:
            tokens[client] -= 1
            assert verdict.refusal is None and "retry-after" not in verdict.headers
            limits.end(client)
        else:
            missing = (1 - tokens[client]) * 60 / per_minute
            assert verdict.refusal and int(verdict.headers["retry-after"]) == math.ceil(missing)
        headers = verdict.headers
        assert headers["x-ratelimit-limit-requests"] == str(per_minute)
        assert headers["x-ratelimit-remaining-requests"] == str(math.floor(tokens[client]))
        reset = (per_minute - tokens[client]) * 60 / per_minute
        assert abs(_seconds(headers["x-ratelimit-reset-requests"]) - reset) <= 0.0011


def _seconds(text: str) -> float:
    """Reads a duration such as 1m0.5s or 12ms."""
    if text.endswith("ms"):
        return int(text[:-2]) / 1000
    minutes, _, rest = text.removesuffix("s").rpartition("m")
    return 60 * int(minutes or 0) + float(rest)


def test_who_asks_no_more_is_forgotten():
    now = 0
    limits = Limits(60, 2, lambda: now)
    for number in range(1000):
        now += _SECOND
        limits.begin(str(number))
        limits.end(str(number))
    assert len(limits._full) == 1 and not limits._at_work


def test_as_many_at_a_time_as_may_be():
    limits = Limits(None, 2)
    assert [limits.begin(name).refusal for name in "aab"] == [None] * 3
    refused = limits.begin("a")
    assert refused.refusal and refused.headers == {"retry-after": "1"}
    assert limits.begin("b").refusal is None
    limits.end("a")
    assert limits.begin("a").refusal is None and limits.begin("a").refusal


@pytest.fixture(scope="module")
def keyed(start_server, tmp_path_factory) -> Any:
    """Clients of two keys of a server that takes two requests of each at a time, 60 a minute."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("first\nsecond\n")
    server = start_server(
        f"--api_keys_file={keys}", "--max_requests_per_minute=60", "--max_concurrent_requests=2"
    )
    return [openai.OpenAI(base_url=server.url, api_key=key) for key in ("first", "second")]


def test_a_flood_is_refused_and_delays_nobody_else(keyed):
    first, second = (client.with_options(max_retries=0) for client in keyed)
    headers = first.models.with_raw_response.list().headers
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-reset-requests"] == "1s"
    caught = _flood(first)
    error, headers = caught.value, caught.value.response.headers
    assert error.code == "rate_limit_exceeded" and error.type == "requests"
    assert "60 requests a minute" in error.message and error.request_id.startswith("req_")
    assert headers["retry-after"] == "1" and headers["x-ratelimit-remaining-requests"] == "0"
    for _ in range(20):
        assert second.models.list().data
    # The client's own retries heed the header; a busy machine may let the second pass before.
    waits = []
    for _ in range(2):
        _flood(first)
        answer = keyed[0].models.with_raw_response.list()
        assert answer.parse().data
        waits.append(answer.retries_taken)
    assert max(waits) > 0
    time.sleep(2.1)
    for _ in range(2):
        assert first.models.list().data


def _flood(client: Any) -> Any:
    """Asks until the client is refused; returns how."""
    with pytest.raises(openai.RateLimitError) as caught:
        for _ in range(1000):
            client.models.list()
    return caught


@pytest.mark.slow
def test_answers_at_a_time_are_bounded_and_each_is_given_in_the_end(keyed):
    first, second = (client.with_options(max_retries=0) for client in keyed)
    time.sleep(5)  # The flood's bucket fills.
    messages: Any = [{"role": "user", "content": "mon"}]
    options: Any = {"model": "tiny", "messages": messages, "max_tokens": 100}
    options["logit_bias"] = {"70": 100}
    streams = [first.chat.completions.create(stream=True, n=32, **options) for _ in range(2)]
    with pytest.raises(openai.RateLimitError, match="2 of your requests") as caught:
        first.models.list()
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "1"
    assert second.chat.completions.create(**options).choices[0].message.content
    for stream in streams:
        stream.close()
    patient = keyed[1].with_options(max_retries=10)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: patient.chat.completions.create(**options), range(6)))
    assert all(answer.choices[0].finish_reason == "length" for answer in found)
