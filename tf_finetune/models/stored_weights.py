"""Weights by their names and in their layout in transformers' checkpoints."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops


class Stored(NamedTuple):
    """How a variable is stored: as one tensor, or as several of which it is made.

    Attributes:
        variable: The variable.
        names: The tensors' names.
        sizes: How many of the variable's last columns each of them has; empty: one has all.
        transposed: Whether a tensor is [outputs, inputs].
    """

    variable: keras.Variable
    names: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    transposed: bool = False

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields name and value of each tensor, as it is stored, float32."""
        value = ops.convert_to_numpy(ops.cast(self.variable, "float32"))
        places = np.cumsum(self.sizes)[:-1]
        for name, part in zip(self.names, np.split(value, places, axis=-1), strict=True):
            yield name, part.T if self.transposed else part

    def assign(self, read: Callable[[str], np.ndarray]) -> None:
        """Gives the variable the value of its tensors.

        Args:
            read: Returns the tensor of a name, as it is stored.

        Raises:
            ValueError: A tensor has another shape; the message names it.
        """
        sizes = self.sizes or (self.variable.shape[-1],)
        parts = []
        for name, size in zip(self.names, sizes, strict=True):
            value = read(name)
            value = value.T if self.transposed else value
            expected = (*self.variable.shape[:-1], size)
            if value.shape != expected:
                raise ValueError(
                    f"{name} has the shape {_stored(value.shape, self.transposed)}, not "
                    f"{_stored(expected, self.transposed)}"
                )
            parts.append(value)
        self.variable.assign(np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0])


def assign_weights(stored: Sequence[Stored], read: Callable[[str], np.ndarray]) -> None:
    """Gives all variables their values; see `Stored.assign`."""
    for part in stored:
        part.assign(read)


def _stored(shape: Sequence[Any], transposed: bool) -> list[Any]:
    return list(reversed(shape) if transposed else shape)
