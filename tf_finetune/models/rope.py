"""Rotary position embeddings: the angles by which queries and keys are rotated."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Tensor = Any

SCALINGS = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Rope:
    """How fast each pair of a head's elements turns with the position.

    Attributes:
        theta: The base of the frequencies.
        scaling: `default`; `linear` (Chen et al., 2023): all turn slower by `factor`; `llama3`
            (Llama 3.1): only those do that turn slowly anyway.
        factor: By how much slower.
        low_freq_factor: llama3: pairs that turn less often than this within
            `original_max_positions` are slowed down whole.
        high_freq_factor: llama3: those that turn more often than this are not; between the two the
            factor is interpolated.
        original_max_positions: llama3: the length of the first training's texts.
    """

    theta: float = 10000.0
    scaling: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Returns the angle of each pair for one position, float32 [head_dim / 2]."""
        frequencies = self.theta ** -(np.arange(0, head_dim, 2) / head_dim)
        if self.scaling == "linear":
            frequencies = frequencies / self.factor
        if self.scaling == "llama3":
            turns = self.original_max_positions * frequencies / (2 * np.pi)
            width = self.high_freq_factor - self.low_freq_factor
            kept = np.clip((turns - self.low_freq_factor) / width, 0, 1)
            frequencies = frequencies * (kept + (1 - kept) / self.factor)
        return frequencies.astype(np.float32)

    def angles(self, positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
        """Returns cosine and sine of each angle, float32 [batch, length, head_dim / 2].

        Args:
            positions: int32 [batch, length].
            head_dim: The width of a head.
        """
        from keras import ops  # Configurations are read before TensorFlow is imported.

        angles = ops.expand_dims(ops.cast(positions, "float32"), 2) * self.frequencies(head_dim)
        return ops.cos(angles), ops.sin(angles)
