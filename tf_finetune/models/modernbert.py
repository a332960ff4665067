"""ModernBERT: rotary positions, gated feed-forward products, and windows for long texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tf_finetune.models.bert_embeddings import Initializer
from tf_finetune.models.encoder_stack import (
    INITIALIZER,
    configured,
    encoded,
    encoder_kernels,
    find_adapters,
    output_spec,
    with_lora,
)
from tf_finetune.models.fused import fused_dropout
from tf_finetune.models.kernels import fuses, kernel_rate
from tf_finetune.models.layer_norm import LayerNorm
from tf_finetune.models.lora import Adapter, Lora
from tf_finetune.models.modernbert_layer import SEEDS, ModernBertLayer
from tf_finetune.models.rope import Rope
from tf_finetune.models.seeds import derive_seed, draw_seed
from tf_finetune.models.stored_weights import Stored

Tensor = Any


class ModernBertEmbeddings(keras.layers.Layer):
    """The normalised embeddings of tokens.

    Args:
        vocabulary_size: Number of tokens.
        hidden_size: The width.
        dropout: The dropout rate.
        norm: The layer that normalises them.
        initializer: For the table.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_size: int,
        dropout: float,
        norm: LayerNorm,
        initializer: Initializer,
        **kwargs: Any,
    ) -> None:
        # `autocast` would cast the whole table at every step.
        super().__init__(autocast=False, **kwargs)
        self.vocabulary_size, self.hidden_size = vocabulary_size, hidden_size
        self.dropout, self.norm, self.initializer = dropout, norm, initializer

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        shape = self.vocabulary_size, self.hidden_size
        self.token = self.add_weight(
            shape, self.initializer, autocast=False, name="token_embedding"
        )
        self.norm.build()

    def call(self, ids: Tensor, seed: Tensor, training: bool = False) -> Tensor:
        """Returns float32 [batch * seq_length, hidden] of ids, int32 [batch, seq_length]."""
        rows = ops.reshape(ops.take(self.token, ids, axis=0), (-1, self.hidden_size))
        # The norm's result has the dtype of what it adds to the rows: nothing.
        nothing, fuse = ops.zeros((self.hidden_size,), self.compute_dtype), fuses(self, training)
        rows = ops.cast(rows, "float32")
        x = ops.cast(self.norm(rows, nothing, training=training, fuse=fuse)[1], "float32")
        if not (training and self.dropout):
            return x
        return fused_dropout(x, seed, rate=kernel_rate(self.dropout, training), fuse=fuse)


@keras.saving.register_keras_serializable(package="tf_finetune")
class ModernBertEncoder(keras.layers.Layer):
    """The encoder of ModernBERT (Warner et al., 2024), equal to transformers' `ModernBertModel`.

    It has no token types, and no pooler: `pooled_output` is the row of the first token.

    Args:
        vocabulary_size: Number of tokens.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads.
        hidden_size: The width.
        intermediate_size: The width between the two feed-forward products.
        max_seq_length: The longest sequence that it was trained for.
        dropout: The rate between the feed-forward products.
        attention_dropout: Another rate for the attention's weights and result; None: the same.
        embedding_dropout: Another rate for the embeddings; None: the same.
        epsilon: Added to the variance by the layer norms.
        window: How many tokens a local layer's token sees, half of them to each side.
        local_layers: The numbers of the layers whose tokens see a window alone; None: two of three.
        global_theta: The base of the other layers' rotary frequencies.
        local_theta: That of the local layers'.
        attention_bias: Whether the attention's products have biases.
        mlp_bias: Whether the feed-forward products have.
        norm_bias: Whether the norms have.
        seed: For dropout; None: random.
        initializer: For the embedding table and kernels.
        lora: The adapters in its layers, beside weights that are then frozen; None: none.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        hidden_size: int,
        intermediate_size: int,
        max_seq_length: int = 8192,
        dropout: float = 0.0,
        attention_dropout: float | None = None,
        embedding_dropout: float | None = None,
        epsilon: float = 1e-5,
        window: int = 128,
        local_layers: Sequence[int] | None = None,
        global_theta: float = 160000.0,
        local_theta: float = 10000.0,
        attention_bias: bool = False,
        mlp_bias: bool = False,
        norm_bias: bool = False,
        seed: int | None = None,
        initializer: Initializer = INITIALIZER,
        lora: Lora | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "encoder", **kwargs})
        self.vocabulary_size, self.num_layers = vocabulary_size, num_layers
        self.num_heads, self.max_seq_length = num_heads, max_seq_length
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.embedding_dropout, self.epsilon, self.seed = embedding_dropout, epsilon, seed
        if local_layers is None:
            local_layers = [number for number in range(num_layers) if number % 3]
        self.window, self.local_layers = window, tuple(local_layers)
        self.global_theta, self.local_theta = global_theta, local_theta
        self.attention_bias, self.mlp_bias, self.norm_bias = attention_bias, mlp_bias, norm_bias
        self.lora, self.seed_generator = lora, keras.random.SeedGenerator(seed)
        policy = self.dtype_policy

        def norm() -> LayerNorm:
            learns = lora is None
            return LayerNorm(hidden_size, epsilon, learns, norm_bias, dtype=policy, name="norm")

        self.embeddings = ModernBertEmbeddings(
            vocabulary_size,
            hidden_size,
            dropout if embedding_dropout is None else embedding_dropout,
            norm(),
            initializer,
            dtype=policy,
            name="embeddings",
        )
        self.layers = [
            ModernBertLayer(
                num_heads,
                hidden_size,
                intermediate_size,
                number > 0,
                window // 2 if number in self.local_layers else None,
                dropout,
                dropout if attention_dropout is None else attention_dropout,
                epsilon,
                (attention_bias, mlp_bias, norm_bias),
                initializer,
                lora,
                dtype=policy,
                name=f"layer_{number}",
            )
            for number in range(num_layers)
        ]
        self.norm = norm()

    @property
    def blocks(self) -> tuple[tuple[keras.layers.Layer, ...], ...]:
        """The embedding layer, then the layers of each transformer block from the lowest up."""
        *lower, last = ((layer,) for layer in self.layers)
        return ((self.embeddings,), *lower, (*last, self.norm))

    @property
    def modules(self) -> list[str]:
        """The linear modules of a layer, as Hugging Face calls them: what LoRA can target."""
        return [name for linear in self.layers[0].linears for name in linear.modules]

    @property
    def adapters(self) -> dict[str, Adapter]:
        """The adapters by the full names of their modules."""
        return find_adapters(self.layers, "layers")

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        for layers in self.blocks:
            for layer in layers:
                layer.build()
        if self.lora is not None:
            self.embeddings.trainable = False

    def stored(self) -> list[Stored]:
        """Lists its weights with their names in the base model of Hugging Face's checkpoint."""
        return [
            Stored(self.embeddings.token, ("embeddings.tok_embeddings.weight",)),
            *self.embeddings.norm.stored("embeddings.norm"),
            *self.norm.stored("final_norm"),
            *(
                weight
                for number, layer in enumerate(self.layers)
                for weight in layer.stored(f"layers.{number}")
            ),
        ]

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> dict[str, Tensor]:
        """Encodes token ids.

        Args:
            inputs: `input_word_ids` and `input_mask`, int32 [batch, seq_length]; no others.
            training: Whether dropout is applied.

        Returns:
            `pooled_output` [batch, hidden] and `sequence_output` [batch, seq_length, hidden].
        """
        rates = self.dropout, self.attention_dropout, self.embedding_dropout
        drops = training and any((*rates, self.lora and self.lora.dropout))
        seed = draw_seed(self.seed_generator) if drops else ops.zeros((2,), "int32")
        x, changes, angles = self._encode(inputs, seed, self.layers[:-1], training)
        last, fuse = self.layers[-1], fuses(self, training)
        seed = derive_seed(seed, SEEDS * (self.num_layers - 1))
        shared = (x, changes, angles[last.half is not None], inputs["input_mask"], seed)
        # Twice, as in `BertEncoder.call`: what is not used is not computed.
        first = last(*shared, first_token_only=True, training=training)
        sequence = last(*shared, training=training)
        first, sequence = (
            self.norm(stream, *added, training=training, fuse=fuse)[1]
            for stream, added in (first, sequence)
        )
        return encoded(first, sequence, inputs["input_mask"])

    def _encode(
        self,
        inputs: Mapping[str, Tensor],
        seed: Tensor,
        layers: Sequence[ModernBertLayer],
        training: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Any, Any]]:
        """Applies the embeddings and layers.

        Returns:
            The residual stream, what is added to it, and the angles of global and of local layers.
        """
        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        angles = self._angles(mask, self.global_theta), self._angles(mask, self.local_theta)
        # Far from the seeds of the layers.
        x = self.embeddings(ids, derive_seed(seed, 2**23), training=training)
        changes: tuple[Tensor, ...] = ()
        for number, layer in enumerate(layers):
            layer_seed = derive_seed(seed, SEEDS * number)
            own = angles[layer.half is not None]
            x, changes = layer(x, changes, own, mask, layer_seed, training=training)
        return x, changes, angles

    def _angles(self, mask: Tensor, theta: float) -> tuple[Tensor, Tensor]:
        """Returns cosine and sine of the rotations, float32 [batch, seq_length, head_dim / 2]."""
        batch, length = ops.shape(mask)
        size = self.hidden_size // self.num_heads
        places = ops.expand_dims(ops.arange(length, dtype="int32"), 0)
        cos, sin = Rope(theta=theta).angles(places, size)
        shape = batch, length, size // 2
        return ops.broadcast_to(cos, shape), ops.broadcast_to(sin, shape)

    def kernels(self) -> Callable[[Tensor, Tensor], Any]:
        """Returns a function that runs each kernel of a training step once; see `trace_kernels`."""
        layers = list({layer.form(training=True): layer for layer in self.layers}.values())
        return encoder_kernels(
            layers, lambda inputs, seed: self._encode(inputs, seed, layers, training=True)[:2]
        )

    def compute_output_spec(
        self, inputs: Mapping[str, keras.KerasTensor], training: bool = False
    ) -> dict[str, keras.KerasTensor]:
        """Returns the outputs' shapes and dtypes."""
        return output_spec(self, inputs["input_word_ids"])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer; Keras loads its weights afterwards."""
        names = (
            *("vocabulary_size", "num_layers", "num_heads", "hidden_size", "intermediate_size"),
            *("max_seq_length", "dropout", "attention_dropout", "embedding_dropout", "epsilon"),
            *("window", "local_layers", "global_theta", "local_theta"),
            *("attention_bias", "mlp_bias", "norm_bias", "seed"),
        )
        return configured(self, super().get_config(), names)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ModernBertEncoder":
        """Makes the layer that `get_config` describes."""
        return cls(**with_lora(config))
