"""The sizes of a GPT-2."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GPT2Config:
    """The sizes of a GPT-2, from the checkpoint's `config.json`.

    Attributes:
        vocab_size: Number of tokens.
        hidden_size: The width.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads.
        intermediate_size: The width between the feed-forward layers.
        max_positions: The number of positions.
        epsilon: Added to the variance by the norms.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int
    epsilon: float = 1e-5

    @property
    def num_weights(self) -> int:
        """The number of weights."""
        hidden, inner = self.hidden_size, self.intermediate_size
        layer = 4 * hidden * hidden + 2 * hidden * inner + 9 * hidden + inner
        tables = self.vocab_size + self.max_positions
        return self.num_layers * layer + hidden * (tables + 2)
