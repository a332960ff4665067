"""The element-wise parts of a transformer, each one XLA kernel, with dropout inside.

Between its matrix products a transformer is bound by memory. Run op by op, a GELU alone reads and
writes its [tokens, width] tensor eight times forward and more backward; as one kernel, once.
"""

import operator
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_finetune.models.kernels import fused, in_kernel

Tensor = Any


def dropout(x: Tensor, seed: Tensor, rate: float | Tensor) -> Tensor:
    """Sets a random share of the elements to zero and scales the others up to keep the mean.

    Whether an element stays is a hash of its number: a few integer instructions inside the kernel,
    repeated backward, so that no mask is written to memory. The hash is "lowbias32" by Chris
    Wellons (https://nullprogram.com/blog/2018/07/31/), keyed by 64 bits.

    Args:
        x: Any shape of fewer than 2**31 elements; float32 if the rate is a tensor.
        seed: int32 [2]; equal seeds drop equal elements.
        rate: The share, below 1; a number or float32 []. XLA compiles a kernel for each number, but
            one for all tensors.

    Returns:
        The shape and dtype of `x`.
    """
    if isinstance(rate, float) and not rate:
        return x

    def mix(bits: Tensor, key: Tensor) -> Tensor:
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, 16))
        bits = bits * ops.cast(0x7FEB352D, "uint32") + key
        bits = ops.bitwise_xor(bits, ops.right_shift(bits, 15))
        bits = bits * ops.cast(0x846CA68B, "uint32")
        return ops.bitwise_xor(bits, ops.right_shift(bits, 16))

    seed = ops.cast(seed, "uint32")
    key = mix(seed[0], seed[1])
    numbers = ops.cast(ops.arange(ops.size(x), dtype="int32"), "uint32")
    bits = mix(ops.bitwise_xor(numbers, key), mix(seed[1], key))
    kept = ops.reshape(bits, ops.shape(x)) >= ops.cast(rate * 2.0**32, "uint32")
    return ops.where(kept, x / (1 - rate), ops.zeros((), x.dtype))


def normalize(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Returns the rows of `x`, float32, at mean 0 and variance 1, and their factors, [rows, 1]."""
    centred = x - reduce_last(operator.add, x) / x.shape[-1]
    factor = ops.rsqrt(reduce_last(operator.add, ops.square(centred)) / x.shape[-1] + epsilon)
    return centred * factor, factor


def normalize_gradient(upstream: Tensor, normalized: Tensor, factor: Tensor) -> Tensor:
    """The gradient of the first result of `normalize` by `x`."""
    common = reduce_last(operator.add, upstream) + normalized * reduce_last(
        operator.add, upstream * normalized
    )
    return factor * (upstream - common / normalized.shape[-1])


def reduce_last(function: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    """Reduces the last axis to one element by `operator.add` or `ops.maximum`.

    XLA:CPU does not vectorise a reduction of neighbours, least of all of a long last axis. So a
    kernel reduces strided lanes first, then the lanes by halves. Uncompiled, the plain op is used.
    """
    if not in_kernel():
        return (ops.sum if function is operator.add else ops.max)(x, axis=-1, keepdims=True)
    width, lanes = ops.shape(x)[-1], 8
    if isinstance(width, int):
        while width > 16 * lanes:
            lanes *= 2
    reduce, neutral = (ops.sum, 0.0) if function is operator.add else (ops.max, -np.inf)
    filling = -width % lanes
    if not isinstance(filling, int) or filling:
        padding = [[0, 0]] * (len(x.shape) - 1) + [[0, filling]]
        x = ops.pad(x, padding, constant_values=neutral)
    x = reduce(ops.reshape(x, (*ops.shape(x)[:-1], -1, lanes)), axis=-2)
    while lanes > 1:
        lanes //= 2
        x = function(*ops.split(x, 2, axis=-1))
    return x


def masked_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Returns the softmax over the last axis, float32, of the scores that are allowed."""
    logits = ops.where(allowed, scores, -1e9)
    weights = ops.exp(logits - reduce_last(ops.maximum, logits))
    return weights / reduce_last(operator.add, weights)


def softmax_gradient(upstream: Tensor, weights: Tensor) -> Tensor:
    """The gradient of `masked_softmax`, whose result is `weights`, by its scores."""
    change = weights * upstream
    return change - weights * reduce_last(operator.add, change)


def residual_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    seed: Tensor,
    *,
    rate: float | Tensor,
    epsilon: float,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Layer normalisation of `residual + dropout(x + bias)`, computed in float32.

    Args:
        x: [rows, hidden].
        bias: [hidden].
        residual: [rows, hidden].
        gamma: float32 [hidden].
        beta: float32 [hidden].
        seed: int32 [2].
        rate: The dropout rate, a number or float32 [].
        epsilon: Added to the variance.

    Returns:
        The result, [rows, hidden] in the dtype of `x`; and for the gradient, the normalized rows
        before gamma and beta, and the factor of each row, float32 [rows, 1].
    """
    total = ops.cast(residual, "float32") + dropout(_biased(x, bias), seed, rate)
    normalized, factor = normalize(total, epsilon)
    result = ops.cast(normalized * gamma + beta, x.dtype)
    return result, (ops.cast(normalized, x.dtype), factor)


def residual_norm_gradients(
    upstream: Tensor,
    kept: tuple[Tensor, Tensor],
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    seed: Tensor,
    *,
    rate: float | Tensor,
    epsilon: float,
) -> tuple[Tensor | None, ...]:
    """The gradient of the first result of `residual_norm` by each of its arguments."""
    upstream, normalized, factor = (ops.cast(part, "float32") for part in (upstream, *kept))
    change = normalize_gradient(upstream * gamma, normalized, factor)
    by_x = dropout(change, seed, rate)
    return (
        ops.cast(by_x, x.dtype),
        ops.cast(ops.sum(by_x, axis=0), bias.dtype),
        ops.cast(change, residual.dtype),
        ops.sum(upstream * normalized, axis=0),
        ops.sum(upstream, axis=0),
        None,
    )


def row_dropout(x: Tensor, seed: Tensor, *, rate: float | Tensor) -> Tensor:
    """`dropout` of `x`, computed in float32."""
    return ops.cast(dropout(ops.cast(x, "float32"), seed, rate), x.dtype)


def row_dropout_gradients(
    upstream: Tensor, _: None, x: Tensor, seed: Tensor, *, rate: float | Tensor
) -> tuple[Tensor, None]:
    """The gradient of `row_dropout` by each of its tensors."""
    return row_dropout(upstream, seed, rate=rate), None


@ops.custom_gradient
def add_bias(x: Tensor, bias: Tensor) -> tuple[Tensor, Callable[..., Any]]:
    """Returns `x + bias`, [..., width], with a gradient that is summed in float32.

    A matrix product with ones sums in float32 for any dtype, and is faster than a reduction.
    """

    def gradients(upstream: Tensor) -> tuple[Tensor, Tensor]:
        rows = ops.reshape(upstream, (-1, bias.shape[0]))
        ones = ops.ones((1, ops.shape(rows)[0]), rows.dtype)
        return upstream, ops.matmul(ones, rows)[0]

    return ops.add(x, bias), gradients


def _biased(x: Tensor, bias: Tensor) -> Tensor:
    x, bias = ops.cast(x, "float32"), ops.cast(bias, "float32")
    if keras.config.backend() != "tensorflow":
        return x + bias
    import tensorflow as tf

    # TensorFlow fuses only this form of the sum with the product before it and a GELU after it.
    return tf.nn.bias_add(x, bias)


def gelu(x: Tensor, bias: Tensor, *, approximate: bool) -> Tensor:
    """GELU of `x + bias`, exact or by its tanh formula."""
    return ops.cast(ops.gelu(_biased(x, bias), approximate=approximate), x.dtype)


def attention_weights(
    scores: Tensor, mask: Tensor, seed: Tensor, *bias: Tensor, scale: float, rate: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Softmax over the tokens that `mask` allows, computed in float32.

    Args:
        scores: [batch, heads, queries, keys].
        mask: int32 [batch, keys], 0 for padding.
        seed: int32 [2].
        *bias: Added to the scaled scores, float32 [heads, queries, keys]; at most one.
        scale: Factor of the scores.
        rate: The dropout rate, a number or float32 [].

    Returns:
        The weights after dropout and before it, in the shape and dtype of `scores`.
    """
    allowed = ops.expand_dims(ops.cast(mask, "bool"), (1, 2))
    scaled = sum(bias, ops.cast(scores, "float32") * scale)
    weights = masked_softmax(scaled, allowed)
    return ops.cast(dropout(weights, seed, rate), scores.dtype), ops.cast(weights, scores.dtype)


def attention_weights_gradients(
    upstream: Tensor,
    weights: Tensor,
    scores: Tensor,
    mask: Tensor,
    seed: Tensor,
    *bias: Tensor,
    scale: float,
    rate: float | Tensor,
) -> tuple[Tensor | None, ...]:
    """The gradient of the first result of `attention_weights` by each of its arguments."""
    weights = ops.cast(weights, "float32")
    change = softmax_gradient(dropout(ops.cast(upstream, "float32"), seed, rate), weights)
    by_bias = [ops.sum(change, axis=0) for _ in bias]
    return ops.cast(change * scale, scores.dtype), None, None, *by_bias


fused_residual_norm = fused(residual_norm, residual_norm_gradients)
fused_dropout = fused(row_dropout, row_dropout_gradients)
fused_gelu = fused(gelu)
fused_attention_weights = fused(attention_weights, attention_weights_gradients)
