"""The relative position bias of MPNet (Song et al., 2020), as T5 has it."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any

# Farther tokens share a bucket.
_MAX_DISTANCE = 128


class RelativeBias(keras.layers.Layer):
    """A number for each head and distance, which the attention adds to its scores.

    Args:
        num_buckets: Rows of the table: half for the tokens after, half for those before.
        num_heads: Number of attention heads.
        max_seq_length: The longest sequence.
        initializer: For the table.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_buckets: int,
        num_heads: int,
        max_seq_length: int,
        initializer: keras.initializers.Initializer | str,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.num_buckets, self.num_heads, self.initializer = num_buckets, num_heads, initializer
        self.max_seq_length = max_seq_length
        distances = np.arange(1 - max_seq_length, max_seq_length)
        self._buckets = relative_buckets(distances, num_buckets)

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Makes the table."""
        shape = self.num_buckets, self.num_heads
        self.table = self.add_weight(shape, self.initializer, autocast=False, name="table")

    def for_length(self, length: Any) -> Tensor:
        """Returns float32 [heads, length, length] for sequences of a length, int32 []."""
        last = self.max_seq_length - 1
        places = ops.arange(length, dtype="int32")
        distances = ops.expand_dims(places, 0) - ops.expand_dims(places, 1)
        buckets = ops.take(ops.convert_to_tensor(self._buckets), distances + last, axis=0)
        rows = ops.take(ops.convert_to_tensor(self.table), buckets, axis=0)
        return ops.transpose(ops.cast(rows, "float32"), (2, 0, 1))


def relative_buckets(distances: np.ndarray, num_buckets: int) -> np.ndarray:
    """Returns the bucket of each distance from a token to one that it sees, int32.

    The first half of the buckets is for tokens before; of each half, the first half is one for
    each distance, the others grow with its logarithm.
    """
    half = num_buckets // 2
    exact = half // 2
    far = np.abs(distances)
    # float32 as in transformers, where borders of buckets fall on powers of two.
    ratio = np.log(np.maximum(far, 1).astype("float32") / exact) / math.log(_MAX_DISTANCE / exact)
    large = np.minimum(exact + (ratio * (half - exact)).astype("int32"), half - 1)
    return (np.where(far < exact, far, large) + half * (distances > 0)).astype("int32")
