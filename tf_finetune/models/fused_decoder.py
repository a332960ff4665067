"""The element-wise parts of a decoder, each one XLA kernel; see `fused.py`."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from keras import ops

from tf_finetune.models.fused import normalize, normalize_gradient, reduce_last
from tf_finetune.models.kernels import fused, in_kernel

Tensor = Any


def add_rms_norm(
    x: Tensor, gamma: Tensor, *changes: Tensor, epsilon: float, learns: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Adds to the residual stream, and normalises it by its root mean square, in float32.

    Args:
        x: float32 [rows, hidden], the residual stream.
        gamma: float32 [hidden].
        *changes: What is added to the stream, [rows, hidden] or [hidden] each.
        epsilon: Added to the mean square.
        learns: Whether gamma and changes of [hidden] get a gradient.

    Returns:
        The stream, float32, and its norm in the dtype of the changes; and for the gradient, the
        normalised rows before gamma, and the factor of each, float32 [rows, 1].
    """
    x = _sum(x, *changes)
    factor = ops.rsqrt(reduce_last(operator.add, ops.square(x)) / x.shape[-1] + epsilon)
    normalized = x * factor
    result = ops.cast(normalized * gamma, changes[0].dtype)
    return (x, result), (ops.cast(normalized, changes[0].dtype), factor)


def add_rms_norm_gradients(
    upstream: tuple[Tensor, Tensor],
    kept: tuple[Tensor, Tensor],
    x: Tensor,
    gamma: Tensor,
    *changes: Tensor,
    epsilon: float,
    learns: bool,
) -> tuple[Tensor | None, ...]:
    """The gradient of both results of `add_rms_norm` by each of its arguments."""
    by_stream, by_norm, normalized, factor = (
        ops.cast(part, "float32") for part in (*upstream, *kept)
    )
    scaled = by_norm * gamma
    common = normalized * reduce_last(operator.add, scaled * normalized) / x.shape[-1]
    by_x = by_stream + factor * (scaled - common)
    by_gamma = ops.sum(by_norm * normalized, axis=0) if learns else None
    return by_x, by_gamma, *_gradients_of_sum(by_x, changes, learns)


def add_layer_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, *changes: Tensor, epsilon: float, learns: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Adds to the residual stream, and normalises it to mean 0 and variance 1, in float32.

    Args:
        x: float32 [rows, hidden], the residual stream.
        gamma: float32 [hidden].
        beta: float32 [hidden].
        *changes: What is added to the stream, [rows, hidden] or [hidden] each.
        epsilon: Added to the variance.
        learns: Whether gamma, beta and changes of [hidden] get a gradient.

    Returns:
        As `add_rms_norm`.
    """
    x = _sum(x, *changes)
    normalized, factor = normalize(x, epsilon)
    result = ops.cast(normalized * gamma + beta, changes[0].dtype)
    return (x, result), (ops.cast(normalized, changes[0].dtype), factor)


def add_layer_norm_gradients(
    upstream: tuple[Tensor, Tensor],
    kept: tuple[Tensor, Tensor],
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *changes: Tensor,
    epsilon: float,
    learns: bool,
) -> tuple[Tensor | None, ...]:
    """The gradient of both results of `add_layer_norm` by each of its arguments."""
    by_stream, by_norm, normalized, factor = (
        ops.cast(part, "float32") for part in (*upstream, *kept)
    )
    by_x = by_stream + normalize_gradient(by_norm * gamma, normalized, factor)
    by_gamma = ops.sum(by_norm * normalized, axis=0) if learns else None
    by_beta = ops.sum(by_norm, axis=0) if learns else None
    return by_x, by_gamma, by_beta, *_gradients_of_sum(by_x, changes, learns)


def split_heads(
    cos: Tensor,
    sin: Tensor,
    *tensors: Tensor,
    num_kv_heads: int,
    head_dim: int,
    num_norms: int,
    rotates: bool,
    epsilon: float,
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[()]]:
    """Splits the product of query, key and value into heads, and rotates queries and keys (RoPE).

    Args:
        cos: float32 [batch, length, head_dim / 2], of the rotations' angles.
        sin: Likewise.
        *tensors: Gamma of the queries' and of the keys' root-mean-square norm, float32 [head_dim],
            if any; then what the product is the sum of, [batch * length, (heads + 2 *
            num_kv_heads) * head_dim], or only the last axis.
        num_kv_heads: The number of keys and of values of a token.
        head_dim: Their width.
        num_norms: The number of gammas, 0 or 2.
        rotates: Whether this layer has RoPE.
        epsilon: Of the norms.

    Returns:
        Queries [batch, num_kv_heads, group * length, head_dim], where a group is the queries that
        share a key; keys and values, [batch, num_kv_heads, length, head_dim].
    """
    batch, length = ops.shape(cos)[0], ops.shape(cos)[1]
    # The angles learn nothing: do not compute their gradient.
    cos, sin = ops.stop_gradient(cos), ops.stop_gradient(sin)
    norms, products = tensors[:num_norms], tensors[num_norms:]
    heads = products[0].shape[-1] // head_dim - 2 * num_kv_heads
    x = ops.reshape(_sum(*products), (batch, length, heads + 2 * num_kv_heads, head_dim))
    both, value = ops.split(x, [heads + num_kv_heads], axis=2)
    if norms:
        both = ops.concatenate(
            [
                part * ops.rsqrt(ops.mean(ops.square(part), axis=-1, keepdims=True) + epsilon) * g
                for part, g in zip(ops.split(both, [heads], axis=2), norms, strict=True)
            ],
            axis=2,
        )
    if rotates:
        both = _rotate(both, cos[:, :, None], sin[:, :, None])
    query, key = ops.split(both, [heads], axis=2)
    query, key, value = (
        ops.transpose(ops.cast(part, products[0].dtype), (0, 2, 1, 3))
        for part in (query, key, value)
    )
    grouped = (batch, num_kv_heads, heads // num_kv_heads * length, head_dim)
    return (ops.reshape(query, grouped), key, value), ()


def split_equal_heads(
    segments: Tensor, *products: Tensor, head_dim: int
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[()]]:
    """Splits the product of query, key and value into heads, as many of each.

    Args:
        segments: int32 [batch, length].
        *products: What the product is the sum of, [batch * length, 3 * heads * head_dim], or only
            the last axis.
        head_dim: The width of a head.

    Returns:
        Queries, keys and values, [batch, heads, length, head_dim].
    """
    batch, length = ops.shape(segments)[0], ops.shape(segments)[1]
    x = ops.cast(_sum(*products), products[0].dtype)
    x = ops.reshape(x, (batch, length, 3, x.shape[-1] // 3 // head_dim, head_dim))
    query, key, value = ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)), 3)
    return (query, key, value), ()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates each pair of elements half a head apart (Su et al., 2021; the order is llama's)."""
    first, second = ops.split(x, 2, axis=-1)
    return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def causal_weights(
    scores: Tensor,
    queries: Tensor,
    keys: Tensor,
    place: Tensor,
    *,
    scale: float,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """Softmax over the tokens of the same document that are not after the query, in float32.

    Args:
        scores: [batch, num_kv_heads, group * length, seen].
        queries: int32 [batch, length], the document of each query; 0 is padding.
        keys: int32 [batch, seen], the document of each key.
        place: int32 [], [1] or [batch], the place of the first query among the keys.
        scale: Factor of the scores.
        window: Only that many tokens are seen, the query's own included; None: all.

    Returns:
        The weights, in the shape and dtype of `scores`; twice, as the gradient needs them.
    """
    batch, length, seen = ops.shape(queries)[0], ops.shape(queries)[1], ops.shape(keys)[1]
    distance = place[..., None, None] + ops.arange(length)[:, None] - ops.arange(seen)
    allowed = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    same = queries[:, :, None] == keys[:, None, :]
    logits = ops.reshape(
        ops.cast(scores, "float32") * scale, (batch, scores.shape[1], -1, length, seen)
    )
    if in_kernel():
        logits = ops.where((allowed & same)[:, None, None], logits, -1e9)
        weights = ops.exp(logits - reduce_last(ops.maximum, logits))
        weights = weights / reduce_last(operator.add, weights)
    else:
        # TensorFlow makes this mask once for all layers, and adds faster than it chooses.
        hidden = ops.where(allowed & same, 0.0, -1e9)
        weights = tf.nn.softmax(logits + hidden[:, None, None])
    weights = ops.cast(ops.reshape(weights, ops.shape(scores)), scores.dtype)
    return weights, weights


def causal_weights_gradients(
    upstream: Tensor,
    weights: Tensor,
    scores: Tensor,
    *places: Tensor,
    scale: float,
    window: int | None,
) -> tuple[Tensor | None, ...]:
    """The gradient of the first result of `causal_weights` by each of its arguments."""
    weights, change = ops.cast(weights, "float32"), ops.cast(upstream, "float32")
    change = weights * change
    change = (change - weights * reduce_last(operator.add, change)) * scale
    return ops.cast(change, scores.dtype), *(None for _ in places)


def swiglu(*products: Tensor) -> Tensor:
    """Returns silu(gate) * up.

    Args:
        *products: What gate and up, side by side, are the sum of: [rows, 2 * width] or [2 * width].
    """
    gate, up = ops.split(_sum(*products), 2, axis=-1)
    return ops.cast(ops.silu(gate) * up, products[0].dtype)


def gelu(*products: Tensor) -> Tensor:
    """Returns GELU by its tanh formula, "gelu_new".

    Args:
        *products: What its input is the sum of: [rows, width] or [width].
    """
    return ops.cast(ops.gelu(_sum(*products), approximate=True), products[0].dtype)


def _sum(*parts: Tensor) -> Tensor:
    """Returns the sum of tensors in float32."""
    first, *others = (ops.cast(part, "float32") for part in parts)
    return sum(others, first)


def _gradients_of_sum(
    upstream: Tensor, parts: Sequence[Tensor], learns: bool
) -> Iterator[Tensor | None]:
    """Yields the gradient of the sum by each part, [rows, width], or [width] if these learn."""
    for part in parts:
        if len(part.shape) > 1:
            yield ops.cast(upstream, part.dtype)
        else:
            yield ops.cast(ops.sum(upstream, axis=0), part.dtype) if learns else None


fused_add_rms_norm = fused(add_rms_norm, add_rms_norm_gradients)
fused_add_layer_norm = fused(add_layer_norm, add_layer_norm_gradients)
fused_split_heads = fused(split_heads)
fused_split_equal_heads = fused(split_equal_heads)
fused_causal_weights = fused(causal_weights, causal_weights_gradients)
fused_swiglu = fused(swiglu)
fused_gelu = fused(gelu)
