"""The parts of a batch: rows of tokens, and before them what all rows begin with."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from keras import ops

from tf_finetune.models.causal_attention import Seen, all_at_once

Tensor = Any


class Part(NamedTuple):
    """Tokens.

    Attributes:
        ids: int32 [batch, length].
        positions: int32 [batch, length].
        seen: Which tokens they see.
    """

    ids: Tensor
    positions: Tensor
    seen: Seen


def cut_prefix(inputs: Mapping[str, Tensor], prefix: Sequence[int]) -> list[Part]:
    """Takes what all rows begin with out of them, so that it is computed once.

    Args:
        inputs: See `LlamaDecoder.call`.
        prefix: The ids that all rows begin with, in one document; empty: none.

    Returns:
        The prefix, a single row, if there is any; and the rows, which see it.
    """
    ids, positions, segments = (inputs[n] for n in ("token_ids", "positions", "segments"))
    count = len(prefix)
    if not count:
        return [Part(ids, positions, all_at_once(segments))]
    ones = ops.ones((1, count), "int32")
    places = ops.arange(count, dtype="int32")[None]
    first = Part(ops.convert_to_tensor([prefix], "int32"), places, all_at_once(ones))
    seen = Seen(segments[:, count:], segments, ops.convert_to_tensor(count, "int32"))
    return [first, Part(ids[:, count:], positions[:, count:], seen)]


def join_rows(x: Tensor, parts: Sequence[Part]) -> Tensor:
    """Returns what a decoder makes of the rows, [batch, length, hidden]; zeros for a prefix.

    Args:
        x: [tokens of all parts, hidden].
        parts: From `cut_prefix`.
    """
    count = parts[0].ids.shape[1] if len(parts) > 1 else 0
    rows = ops.reshape(x[count:] if count else x, (*ops.shape(parts[-1].ids), x.shape[-1]))
    return ops.pad(rows, ((0, 0), (count, 0), (0, 0))) if count else rows
