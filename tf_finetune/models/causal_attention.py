"""Attention of a decoder: each token sees those before it in its document."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf
from keras import ops

from tf_finetune.models.fused_decoder import fused_causal_weights
from tf_finetune.models.kernels import compiled_by_xla

Tensor = Any


class Memory(NamedTuple):
    """What a layer remembers of the tokens so far (KV cache).

    Attributes:
        keys: [batch, num_kv_heads, room, head_dim]; places that are not filled yet hold zeros.
        values: Likewise.
    """

    keys: Tensor
    values: Tensor

    @property
    def room(self) -> Any:
        """How many tokens it has room for; None in a program for any room."""
        return self.keys.shape[2]


class NewMemory(NamedTuple):
    """The order to remember the tokens that come.

    Attributes:
        room: int32 [] or a number, the tokens that the memory is to have room for.
        fuse: Whether the operations between the products run as XLA kernels, in half precision.
    """

    room: Tensor | int
    fuse: bool = False


class Prefix(NamedTuple):
    """What comes before all rows.

    Attributes:
        keys: [1, num_kv_heads, length, head_dim].
        values: Likewise.
    """

    keys: Tensor
    values: Tensor


# A layer's memory, or none, where nothing is to be remembered.
MaybeMemory: TypeAlias = Memory | NewMemory | Prefix | tuple[()]


class Seen(NamedTuple):
    """Which tokens the queries see; the same for all layers.

    Attributes:
        queries: int32 [batch, length], the document of each query; 0 is padding.
        keys: int32 [batch, seen], the document of each key.
        place: int32 [], [1] or [batch], the place of the first query among the keys.
    """

    queries: Tensor
    keys: Tensor
    place: Tensor


def all_at_once(segments: Tensor) -> Seen:
    """Returns what is seen where all tokens of a row come at once; segments [batch, length]."""
    return Seen(segments, segments, ops.zeros((), "int32"))


def attend(
    split: Callable[..., tuple[Tensor, Tensor, Tensor]],
    products: Sequence[Tensor],
    seen: Sequence[Seen],
    memory: MaybeMemory,
    **options: Any,
) -> tuple[Tensor, MaybeMemory]:
    """Returns the weighted values of all parts of a batch; see `causal_attention`.

    Args:
        split: Makes query, key and value of a part's number and products.
        products: What the product of query, key and value is the sum of, [tokens, width] or
            [width]: the parts follow each other.
        seen: Which tokens each part sees: the rows, or what all rows begin with, and the rows.
        memory: Of the tokens before these.
        **options: Of `causal_attention`.
    """
    if len(seen) == 1:
        return causal_attention(*split(0, *products), seen[0], memory, **options)
    count = seen[0].queries.shape[1]
    # The gradient of this split is a single concatenation.
    parts = [
        (part, part) if len(part.shape) == 1 else tf.split(part, (count, -1)) for part in products
    ]
    query, key, value = split(0, *(before for before, _ in parts))
    before, _ = causal_attention(query, key, value, seen[0], (), **options)
    rows = split(1, *(after for _, after in parts))
    after, _ = causal_attention(*rows, seen[1], Prefix(key, value), **options)
    return ops.concatenate([before, after], axis=0), memory


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
    elif isinstance(memory, Prefix):
        shape = (ops.shape(key)[0], *memory.keys.shape[1:])
        key, value = (
            ops.concatenate([ops.broadcast_to(before, shape), own], axis=2)
            for before, own in ((memory.keys, key), (memory.values, value))
        )
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
    shape, length = ops.shape(memory), ops.shape(rows)[2]
    starts = tf.reshape(tf.range(shape[0] * shape[1]) * shape[2], (*shape[:2], 1))
    places = tf.reshape(starts + tf.reshape(place, (-1, 1, 1)) + tf.range(length), (-1,))
    flat = (-1, memory.shape[-1])
    old, new = tf.reshape(memory, flat), tf.reshape(rows, flat)
    if compiled_by_xla():
        filled = tf.tensor_scatter_nd_update(old, places[:, tf.newaxis], new)
    else:
        # TensorFlow's own ways of writing a part of a tensor copy all of it for each token. This
        # one writes into its argument, which nothing else reads afterwards.
        filled = tf.raw_ops.InplaceUpdate(x=old, i=places, v=new)
    return tf.ensure_shape(tf.reshape(filled, shape), memory.shape)
