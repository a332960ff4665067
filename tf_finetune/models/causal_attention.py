"""Attention of a decoder: each token sees those before it in its document."""

from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf
from keras import ops

from tf_finetune.models.fused_decoder import fused_causal_weights

Tensor = Any


class Memory(NamedTuple):
    """What a layer remembers of the tokens so far (KV cache).

    Attributes:
        keys: [batch, num_kv_heads, room, head_dim]; places that are not filled yet hold zeros.
        values: Likewise.
    """

    keys: Tensor
    values: Tensor


class NewMemory(NamedTuple):
    """The order to remember the tokens that come.

    Attributes:
        room: int32 [], the tokens that the memory is to have room for.
    """

    room: Tensor


# A layer's memory, or none, where nothing is to be remembered.
MaybeMemory: TypeAlias = Memory | NewMemory | tuple[()]


class Seen(NamedTuple):
    """Which tokens the queries see; the same for all layers.

    Attributes:
        queries: int32 [batch, length], the document of each query; 0 is padding.
        keys: int32 [batch, seen], the document of each key.
        place: int32 [], the place of the first query among the keys.
    """

    queries: Tensor
    keys: Tensor
    place: Tensor


def causal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Seen,
    memory: MaybeMemory,
    *,
    window: int | None = None,
    **options: bool,
) -> tuple[Tensor, MaybeMemory]:
    """Returns the weighted values of each token, [batch * length, heads * head_dim].

    Args:
        query: [batch, num_kv_heads, group * length, head_dim], where a group is the queries that
            share a key.
        key: [batch, num_kv_heads, length, head_dim].
        value: Likewise.
        seen: Which tokens are seen.
        memory: Of the tokens before these; these are added to it at `seen.place`.
        window: How many tokens back a token sees; None: all.
        **options: `training` and `fuse`; see `fused`.

    Returns:
        The result, and the memory with these tokens.
    """
    if isinstance(memory, Memory):
        key, value = _put(memory.keys, key, seen.place), _put(memory.values, value, seen.place)
        memory = Memory(key, value)
    elif isinstance(memory, NewMemory):
        # Not zeros that are written to: TensorFlow would let all layers share them.
        more = ((0, 0), (0, 0), (0, memory.room - ops.shape(key)[2]), (0, 0))
        memory = Memory(ops.pad(key, more), ops.pad(value, more))
    num_kv_heads, head_dim = query.shape[1], query.shape[-1]
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
    weights = fused_causal_weights(scores, *seen, scale=head_dim**-0.5, window=window, **options)
    context = ops.matmul(weights, value)
    batch, length = ops.shape(seen.queries)[0], ops.shape(seen.queries)[1]
    heads = ops.reshape(context, (batch, num_kv_heads, -1, length, head_dim))
    rows = ops.transpose(heads, (0, 3, 1, 2, 4))
    return ops.reshape(rows, (batch * length, -1)), memory


def _put(memory: Tensor, rows: Tensor, place: Tensor) -> Tensor:
    """Writes rows [batch, num_kv_heads, length, head_dim] into a memory, in place if possible."""
    shape, length = tf.shape(memory), tf.shape(rows)[2]
    starts = tf.range(shape[0] * shape[1]) * shape[2] + place
    places = tf.reshape(starts[:, tf.newaxis] + tf.range(length), (-1,))
    flat = (-1, memory.shape[-1])
    # TensorFlow's other ways of writing a part of a tensor copy all of it for each token. This one
    # writes into its argument, which nothing else reads afterwards.
    filled = tf.raw_ops.InplaceUpdate(
        x=tf.reshape(memory, flat), i=places, v=tf.reshape(rows, flat)
    )
    return tf.ensure_shape(tf.reshape(filled, shape), memory.shape)
