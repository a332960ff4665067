"""Adam on the rows of an embedding table that a training reaches, and on no others.

Of a vocabulary the texts of one data set use a part, of a multilingual one a small part: its table
is four fifths of a small model. All other rows have a gradient of zero at every step, so that
Adam's moments stay zero and never move them: they need neither moments nor time. Weight decay alone
would move them; it is left out, so that words that the data lack keep what they learnt before.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tf_finetune.models.kernels import fused

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices


class TableRows:
    """The trained rows of one table, with their moments.

    Args:
        rows: The rows, each once.
        momentum: float32 [rows, width].
        velocity: float32 [rows, width].
        stored: int32 [rows], gets `rows`, so that a checkpoint tells them.
    """

    def __init__(
        self,
        rows: Sequence[int],
        momentum: keras.Variable,
        velocity: keras.Variable,
        stored: keras.Variable,
    ) -> None:
        self.rows = np.asarray(rows, np.int32)
        self.momentum, self.velocity, self.stored = momentum, velocity, stored
        stored.assign(self.rows)
        self._places = np.full(1 + self.rows.max(), -1, np.int32)
        self._places[self.rows] = np.arange(len(self.rows))

    def cut(self, gradient: Gradient) -> tf.Tensor:
        """Returns the rows, float32 [rows, width], of a gradient by the whole table."""
        if not isinstance(gradient, tf.IndexedSlices):
            return tf.gather(gradient, self.rows)
        places = tf.gather(self._places, gradient.indices)
        return tf.math.unsorted_segment_sum(gradient.values, places, len(self.rows))

    def update(
        self, table: tf.Variable, gradient: tf.Tensor, decay: Any, arguments: Mapping[str, Any]
    ) -> None:
        """Updates the rows and their moments in place.

        Args:
            table: float32 [vocabulary, width].
            gradient: The result of `cut`.
            decay: The share that weight decay takes of each weight, float32 [].
            arguments: Those of `tf.raw_ops.ResourceApplyAdam` that all variables share.
        """
        before = table.sparse_read(self.rows), self.momentum.value, self.velocity.value
        names = ("lr", "beta1_power", "beta2_power", "beta1", "beta2", "epsilon")
        numbers = tf.stack([decay, *(arguments[name] for name in names)])
        rows, momentum, velocity = _adam(*before, gradient, numbers, training=False)
        self.momentum.value.assign(momentum)
        self.velocity.value.assign(velocity)
        table.scatter_update(tf.IndexedSlices(rows, self.rows))

    def restore(self, rows: np.ndarray, momentum: np.ndarray, velocity: np.ndarray) -> None:
        """Takes the moments of other rows, from a training on other texts; new rows have none."""
        _, here, there = np.intersect1d(self.rows, rows, return_indices=True)
        for variable, values in ((self.momentum, momentum), (self.velocity, velocity)):
            own = np.zeros(variable.shape, np.float32)
            own[here] = values[there]
            variable.assign(own)


def _step(weights: Any, momentum: Any, velocity: Any, gradient: Any, numbers: Any) -> Any:
    """The arithmetic of `ResourceApplyAdam`, after decoupled weight decay."""
    decay, rate, beta1_power, beta2_power, beta1, beta2, epsilon = tf.unstack(numbers)
    momentum += (gradient - momentum) * (1.0 - beta1)
    velocity += (tf.square(gradient) - velocity) * (1.0 - beta2)
    rate *= tf.sqrt(1.0 - beta2_power) / (1.0 - beta1_power)
    weights = weights * (1.0 - decay) - rate * momentum / (tf.sqrt(velocity) + epsilon)
    return (weights, momentum, velocity), None


# One kernel: op by op its tensors would be read and written a dozen times.
_adam = fused(_step)
