"""The sizes and the form of a decoder of llama's kind."""

from dataclasses import dataclass

from tf_finetune.models.rope import Rope


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes and the form of a decoder, from the checkpoint's `config.json`.

    Attributes:
        vocab_size: Number of tokens.
        hidden_size: The width.
        intermediate_size: The width between the feed-forward layers.
        num_layers: Number of transformer layers.
        num_heads: Number of queries of a token.
        num_kv_heads: Number of keys and of values of a token.
        head_dim: The width of each of them.
        epsilon: Added to the mean square by the norms.
        rope: The rotation of queries and keys.
        max_positions: The longest text that it was made for, in tokens.
        tie_embeddings: Whether the head's weights are the embeddings'.
        qkv_bias: Whether query, key and value have biases.
        output_bias: Whether the attention's output has one.
        mlp_bias: Whether the feed-forward layers have biases.
        qk_norm: Whether queries and keys are normalised (Qwen3).
        windows: For each layer how many tokens back it sees, None: all; None: all layers see all.
        rope_layers: For each layer whether it rotates (SmolLM3); None: all do.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    epsilon: float = 1e-5
    rope: Rope = Rope()
    max_positions: int = 2048
    tie_embeddings: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    windows: tuple[int | None, ...] | None = None
    rope_layers: tuple[bool, ...] | None = None

    @property
    def num_weights(self) -> int:
        """The number of weights."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = (n * self.head_dim for n in (self.num_heads, self.num_kv_heads))
        layer = hidden * (2 * queries + 2 * keys + 3 * inner + 2)
        layer += self.qkv_bias * (queries + 2 * keys) + self.output_bias * hidden
        layer += self.mlp_bias * (2 * inner + hidden) + self.qk_norm * 2 * self.head_dim
        tables = 1 if self.tie_embeddings else 2
        return self.num_layers * layer + hidden * (tables * self.vocab_size + 1)
