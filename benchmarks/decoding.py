"""What decoding every language-model contender is asked for, and how it is timed."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain, cycle, islice

MAX_NEW_TOKENS = 64
# The length of the long prompt whose first token is waited for.
LONG_PROMPT = 200
BATCHES = (1, 16)
PASSES = 3
# How many questions a tuned model answers at each size of a batch.
ANSWERED = {1: 48, 16: 192}
Prompts = Sequence[Sequence[int]]


def decoding_rates(generate: Callable[[Prompts, int], int], prompts: Prompts) -> dict[str, float]:
    """Times greedy decoding, each call with prompts that no call had before.

    Args:
        generate: Takes a batch of prompts' ids and the number of new tokens of each, which are all
            made, whatever the model says; returns how many it has made for all.
        prompts: Token ids of questions, at least 68.

    Returns:
        For batches of 1 and of 16: `batch_1_first_seconds` of the first call, where shapes are
        compiled, and `batch_1_tokens_per_second`, the median of later ones. `first_token_ms`: a
        prompt of 200 tokens and one new token, the median of calls after the first.
    """
    found: dict[str, float] = {}
    rest = iter(prompts)
    for size in BATCHES:
        batches = [list(islice(rest, size)) for _ in range(1 + PASSES)]
        calls = (partial(generate, batch, MAX_NEW_TOKENS) for batch in batches)
        (first, _), *later = timed(calls)
        found[f"batch_{size}_first_seconds"] = first
        rates = [tokens / seconds for seconds, tokens in later]
        found[f"batch_{size}_tokens_per_second"] = statistics.median(rates)
    tokens = chain.from_iterable(cycle(prompts))
    long_prompts = [list(islice(tokens, LONG_PROMPT)) for _ in range(1 + PASSES)]
    _, *later = timed(partial(generate, [prompt], 1) for prompt in long_prompts)
    found["first_token_ms"] = 1000 * statistics.median(seconds for seconds, _ in later)
    return found


def answering_rates(answer: Callable[[Prompts, int], int], prompts: Prompts) -> dict[str, float]:
    """Times the answers of a tuned model up to where each ends by itself.

    Args:
        answer: Takes prompts' ids and how many to answer at a time, greedily with at most 64
            tokens; returns the number of their tokens.
        prompts: Token ids of questions, at least 274.

    Returns:
        `answers_1_tokens_per_second`, of 48 questions one by one, and likewise of 192 others in
        batches of 16; not counted are some questions before them.
    """
    found: dict[str, float] = {}
    rest = iter(prompts)
    for size, count in ANSWERED.items():
        answer(list(islice(rest, 2 * size)), size)
        asked = list(islice(rest, count))
        started = time.perf_counter()
        tokens = answer(asked, size)
        found[f"answers_{size}_tokens_per_second"] = tokens / (time.perf_counter() - started)
    return found


def timed(calls: Iterable[Callable[[], int]]) -> list[tuple[float, int]]:
    """Returns the seconds of calls, and what they return."""
    found = []
    for call in calls:
        started = time.perf_counter()
        result = call()
        found.append((time.perf_counter() - started, result))
    return found
