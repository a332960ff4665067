"""The scores of DeBERTa's attention (He et al., 2021): of tokens, and of their distances."""

from typing import Any

import numpy as np
from keras import ops

from tf_finetune.models.fused import dropout, masked_softmax, softmax_gradient
from tf_finetune.models.kernels import fused

Tensor = Any


def distance_rows(max_seq_length: int, span: int, buckets: int, max_distance: int) -> np.ndarray:
    """Returns the row of DeBERTa's table for each distance from a key to a query.

    Args:
        max_seq_length: The longest sequence.
        span: Half the table's rows; farther distances share the last row of each side.
        buckets: Twice the number of distances with a row of their own to each side; of farther
            ones several share a row, the more the farther. 0: none share one.
        max_distance: The distance of the last bucket.

    Returns:
        int32 [2 * max_seq_length], for the distances from max_seq_length - 1 down to
        -max_seq_length.
    """
    distances = np.arange(max_seq_length - 1, -max_seq_length - 1, -1)
    if buckets > 0:
        middle, far = buckets // 2, np.abs(distances).astype(np.float32)
        # float32 as in transformers, whose logarithms of equal distances must be equal.
        ratio = np.log(np.maximum(far, middle) / np.float32(middle)) / np.log(
            np.float32((max_distance - 1) / middle)
        )
        shared = np.sign(distances) * (np.ceil(ratio * (middle - 1)) + middle)
        distances = np.where(far <= middle, distances, shared).astype(np.int32)
    return np.clip(distances + span, 0, 2 * span - 1).astype(np.int32)


def by_token(scores: Tensor) -> Tensor:
    """Returns the scores by token of scores by distance, [..., length, length].

    The distance of a token is another column in each row, one further left than in the row above.
    In rows of one column less the columns of a token stand below each other, without a gather (the
    "relative shift" of Transformer-XL).

    Args:
        scores: [..., length, 2 * length]; in the first row the column of token n is length - 1 + n.
    """
    outer, length = ops.shape(scores)[:-2], ops.shape(scores)[-2]
    flat = ops.reshape(scores, (*outer, 2 * length * length))
    # TensorFlow's gradient of indexing is ten times as slow as that of this op.
    rows = ops.slice(flat, (0,) * (len(outer) + 1), (*outer, length * (2 * length - 1)))
    rows = ops.reshape(rows, (*outer, length, 2 * length - 1))
    return ops.slice(rows, (*(0 for _ in outer), 0, length - 1), (*outer, length, length))


def summed_weights(
    scores: Tensor,
    mask: Tensor,
    seed: Tensor,
    *others: Tensor,
    scale: float,
    rate: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Softmax of the sum of scores over the tokens that `mask` allows, computed in float32.

    Args:
        scores: [heads, batch, queries, keys].
        mask: int32 [batch, keys], 0 for padding.
        seed: int32 [2].
        *others: More scores in the same shape.
        scale: Factor of the sum.
        rate: The dropout rate, a number or float32 [].

    Returns:
        The weights after dropout and before it, in the shape and dtype of `scores`.
    """
    total = sum((ops.cast(part, "float32") for part in others), ops.cast(scores, "float32"))
    allowed = ops.expand_dims(ops.cast(mask, "bool"), (0, 2))
    weights = masked_softmax(total * scale, allowed)
    return ops.cast(dropout(weights, seed, rate), scores.dtype), ops.cast(weights, scores.dtype)


def summed_weights_gradients(
    upstream: Tensor,
    weights: Tensor,
    scores: Tensor,
    mask: Tensor,
    seed: Tensor,
    *others: Tensor,
    scale: float,
    rate: float | Tensor,
) -> tuple[Tensor | None, ...]:
    """The gradient of the first result of `summed_weights` by each of its arguments."""
    weights = ops.cast(weights, "float32")
    change = softmax_gradient(dropout(ops.cast(upstream, "float32"), seed, rate), weights)
    change = ops.cast(change * scale, scores.dtype)
    return change, None, None, *(change for _ in others)


fused_summed_weights = fused(summed_weights, summed_weights_gradients)
