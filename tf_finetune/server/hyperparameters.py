"""The hyperparameters of a job, and OpenAI's rules for `auto`."""

from collections.abc import Mapping
from typing import Any

_MOST_EPOCHS, _LEAST_SEEN, _MOST_SEEN = 25, 100, 25_000
_BATCH_SHARE, _MOST_BATCH = 0.002, 256


def resolved(asked: Mapping[str, Any], num_examples: int) -> dict[str, Any]:
    """Replaces `auto` by numbers.

    Args:
        asked: `n_epochs`, `batch_size`, `learning_rate_multiplier`, for preferences `beta` too.
        num_examples: Of the training file.
    """
    found = {
        "n_epochs": _epochs(num_examples),
        "batch_size": max(1, min(_MOST_BATCH, round(_BATCH_SHARE * num_examples))),
        "learning_rate_multiplier": 1.0,
        "beta": 0.1,
    }
    return {name: found[name] if value == "auto" else value for name, value in asked.items()}


def _epochs(num_examples: int) -> int:
    """Returns so many epochs that a model sees neither too few examples nor too many."""
    usual = 3
    if usual * num_examples < _LEAST_SEEN:
        return min(_MOST_EPOCHS, _LEAST_SEEN // num_examples)
    if usual * num_examples > _MOST_SEEN:
        return max(1, _MOST_SEEN // num_examples)
    return usual
