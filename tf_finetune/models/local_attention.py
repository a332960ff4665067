"""Attention to both sides, of all tokens or of those in a window around each."""

from typing import Any

from keras import ops

from tf_finetune.models.fused import dropout, masked_softmax, softmax_gradient
from tf_finetune.models.kernels import fused

Tensor = Any
# Texts of up to so many times the window's half are one block: more blocks would save nothing.
_ONE_BLOCK = 4


def window_weights(
    scores: Tensor, mask: Tensor, seed: Tensor, *, half: int | None, scale: float, rate: Any
) -> tuple[Tensor, Tensor]:
    """Softmax over the tokens in the window that `mask` allows, computed in float32.

    Args:
        scores: [batch, heads, blocks, queries, keys], where as many keys precede the queries as
            follow them.
        mask: int32 [batch, blocks, keys], 0 for padding.
        seed: int32 [2].
        half: How many tokens a token sees to each side; None: all.
        scale: Factor of the scores.
        rate: The dropout rate, a number or float32 [].

    Returns:
        The weights after dropout and before it, in the shape and dtype of `scores`.
    """
    allowed = ops.expand_dims(ops.cast(mask, "bool"), (1, 3))
    if half is not None:
        queries, keys = ops.shape(scores)[-2:]
        places = ops.arange(keys, dtype="int32") - (keys - queries) // 2
        distances = places - ops.expand_dims(ops.arange(queries, dtype="int32"), 1)
        allowed = ops.logical_and(allowed, ops.abs(distances) <= half)
    weights = masked_softmax(ops.cast(scores, "float32") * scale, allowed)
    return ops.cast(dropout(weights, seed, rate), scores.dtype), ops.cast(weights, scores.dtype)


def window_weights_gradients(
    upstream: Tensor,
    weights: Tensor,
    scores: Tensor,
    mask: Tensor,
    seed: Tensor,
    *,
    half: int | None,
    scale: float,
    rate: Any,
) -> tuple[Tensor, None, None]:
    """The gradient of the first result of `window_weights` by each of its arguments."""
    weights = ops.cast(weights, "float32")
    change = softmax_gradient(dropout(ops.cast(upstream, "float32"), seed, rate), weights)
    return ops.cast(change * scale, scores.dtype), None, None


fused_window_weights = fused(window_weights, window_weights_gradients)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    seed: Tensor,
    *,
    half: int | None,
    **options: Any,
) -> Tensor:
    """Returns the weighted values of each token, [batch, queries, heads, head_dim].

    Of a text much longer than the window, blocks of queries see their neighbours alone: time and
    memory grow with its length, not with the square.

    Args:
        query: [batch, heads, queries, head_dim].
        key: [batch, heads, seq_length, head_dim].
        value: Likewise.
        mask: int32 [batch, seq_length], 0 for padding.
        seed: int32 [2], for dropout.
        half: How many tokens a token sees to each side, where all are queries; None: all.
        **options: `rate` of dropout, `training` and `fuse`; see `fused`.
    """
    scale, (batch, heads, length, head_dim) = query.shape[-1] ** -0.5, ops.shape(query)
    if half is None:
        query, key, value = (ops.expand_dims(part, 2) for part in (query, key, value))
        mask = ops.expand_dims(mask, 1)
    else:
        alone = length <= _ONE_BLOCK * half
        # Blocks of one token XLA cannot reshape.
        size, reach = ops.where(alone, length, half), ops.where(alone, 0, half)
        size = ops.maximum(size, 2)
        query, key, value = (_blocks(part, 2, size) for part in (query, key, value))
        key, value = (_with_neighbours(part, 2, reach) for part in (key, value))
        mask = _with_neighbours(_blocks(mask, 1, size), 1, reach)
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
    weights = fused_window_weights(scores, mask, seed, half=half, scale=scale, **options)
    rows = ops.reshape(ops.matmul(weights, value), (batch, heads, -1, head_dim))
    rows = ops.slice(rows, (0, 0, 0, 0), (batch, heads, length, head_dim))
    return ops.transpose(rows, (0, 2, 1, 3))


def _blocks(x: Tensor, axis: int, size: Tensor) -> Tensor:
    """Splits an axis into blocks, [..., blocks, size, ...], the last one filled with zeros."""
    shape = ops.shape(x)
    number = 1 + (shape[axis] - 1) // size
    padding = [(0, 0)] * len(shape)
    padding[axis] = (0, number * size - shape[axis])
    return ops.reshape(ops.pad(x, padding), (*shape[:axis], number, size, *shape[axis + 1 :]))


def _with_neighbours(x: Tensor, axis: int, reach: Tensor) -> Tensor:
    """Puts the end of the block before and the start of the one after around each block.

    Args:
        x: [..., blocks, size, ...].
        axis: Of the blocks.
        reach: How many tokens of each neighbour, up to the size; zeros where there is none.
    """
    shape = list(ops.shape(x))
    number, size = shape[axis : axis + 2]

    def neighbour(block: int, token: Tensor, padding: tuple[int, int]) -> Tensor:
        start, taken, around = [0] * len(shape), [*shape], [(0, 0)] * len(shape)
        start[axis : axis + 2] = block, token
        taken[axis : axis + 2] = number - 1, reach
        around[axis] = padding
        return ops.pad(ops.slice(x, tuple(start), tuple(taken)), around)

    before, after = neighbour(0, size - reach, (1, 0)), neighbour(1, 0, (0, 1))
    return ops.concatenate([before, x, after], axis=axis + 1)
