"""Reading tokens into memories, whose room grows by blocks."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from keras import ops

from tf_finetune.models.causal_attention import MaybeMemory, Memory, Seen

# The room of a memory is a multiple of this.
BLOCK = 64


def read_tokens(
    network: Any,
    ids: tf.Tensor,
    starts: tf.Tensor,
    places: tf.Tensor,
    seen: tf.Tensor,
    memories: Sequence[MaybeMemory],
    layers: Sequence[Any],
) -> tuple[tf.Tensor, list[MaybeMemory]]:
    """Reads some tokens of each row.

    Args:
        network: A decoder; see `LlamaDecoder`.
        ids: int32 [batch, length].
        starts: int32 [batch], the place of each row's first token of all.
        places: int32 [batch] or [1], the place of the first of these tokens in each row.
        seen: int32 [], the room of the memories.
        memories: Of each layer.
        layers: The weights of each layer.

    Returns:
        [batch, length, hidden], and the memories with these tokens.
    """
    at = places[:, tf.newaxis] + tf.range(ops.shape(ids)[1])
    starts = starts[:, tf.newaxis]
    keys = tf.cast(tf.range(seen)[tf.newaxis] >= starts, tf.int32)
    queries = tf.cast(at >= starts, tf.int32)
    # Tokens that are read in vain may be beyond the last position.
    positions = tf.clip_by_value(at - starts, 0, network.config.max_positions - 1)
    inputs = {"token_ids": ids, "positions": positions}
    hidden, kept = network.remember(inputs, Seen(queries, keys, places), memories, layers)
    return hidden, kept


def grown(memories: Sequence[Memory], needed: int) -> list[Memory]:
    """Returns memories with room for so many tokens: these, or copies with more room."""
    room = memories[0].room
    if needed <= room:
        return list(memories)
    # In place of a few for each block, so that little is copied.
    more = rounded_up(max(needed, room * 5 // 4)) - room
    pads = [[0, 0], [0, 0], [0, more], [0, 0]]
    return [Memory(*(tf.pad(part, pads) for part in memory)) for memory in memories]


def fitted(
    memories: Sequence[Memory],
    rows: Sequence[int],
    size: int | None = None,
    room: int | None = None,
) -> list[Memory]:
    """Returns copies of some rows of memories.

    Args:
        memories: The memories.
        rows: The rows' numbers; some may stand there twice.
        size: How many rows the copies have, empty ones behind those; None: those alone.
        room: The tokens that they have room for; None: as many as before.
    """
    room = room or memories[0].room
    more = 0 if size is None else size - len(rows)
    pads = [[0, more], [0, 0], [0, max(0, room - memories[0].room)], [0, 0]]

    def fit(part: tf.Tensor) -> tf.Tensor:
        return tf.pad(tf.gather(part, tf.constant(rows, tf.int32))[:, :, :room], pads)

    return [Memory(*map(fit, memory)) for memory in memories]


def rounded_up(length: Any) -> Any:
    """Returns the least multiple of `BLOCK` that is not below a length."""
    return -(-length // BLOCK) * BLOCK


def power_of_two(count: int) -> int:
    """Returns the least power of two that is not below a count."""
    return 1 << (count - 1).bit_length()
