"""What decoding every language-model contender is asked for, and how it is timed."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

MAX_NEW_TOKENS = 64
# The length of the long prompt whose first token is waited for.
LONG_PROMPT = 200
BATCHES = (1, 16)
PASSES = 3
Prompts = Sequence[Sequence[int]]


def decoding_rates(
    generate: Callable[[Prompts, int], object], prompts: Prompts
) -> dict[str, float]:
    """Times greedy decoding.

    Args:
        generate: Takes a batch of prompts' ids and the number of new tokens of each, which are all
            made, whatever the model says.
        prompts: Token ids of questions, at least 16.

    Returns:
        For batches of 1 and of 16: `batch_1_first_seconds` of the first call, where shapes are
        compiled, and `batch_1_tokens_per_second`, the median of later ones. `first_token_ms`: a
        prompt of 200 tokens and one new token, the median of calls after the first.
    """
    found: dict[str, float] = {}
    for size in BATCHES:
        first, *later = seconds_of(partial(generate, prompts[:size], MAX_NEW_TOKENS))
        found[f"batch_{size}_first_seconds"] = first
        rate = size * MAX_NEW_TOKENS / statistics.median(later)
        found[f"batch_{size}_tokens_per_second"] = rate
    long_prompt = [token for prompt in prompts for token in prompt][:LONG_PROMPT]
    _, *later = seconds_of(partial(generate, [long_prompt], 1))
    found["first_token_ms"] = 1000 * statistics.median(later)
    return found


def seconds_of(call: Callable[[], object]) -> list[float]:
    """Returns the seconds of a first call and of some later ones."""
    seconds = []
    for _ in range(1 + PASSES):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds
