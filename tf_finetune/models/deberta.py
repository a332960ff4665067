"""DeBERTa-v2 and v3: a BERT whose attention tells what a token is from where it stands."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tf_finetune.models.bert_embeddings import Initializer
from tf_finetune.models.deberta_embeddings import (
    Convolution,
    DebertaEmbeddings,
    DistanceEmbeddings,
)
from tf_finetune.models.deberta_layer import SEEDS, DebertaLayer
from tf_finetune.models.encoder_stack import (
    INITIALIZER,
    configured,
    encoded,
    encoder_kernels,
    find_adapters,
    output_spec,
    with_lora,
)
from tf_finetune.models.lora import Adapter, Lora
from tf_finetune.models.seeds import derive_seed, draw_seed
from tf_finetune.models.stored_weights import Stored

Tensor = Any


@keras.saving.register_keras_serializable(package="tf_finetune")
class DebertaEncoder(keras.layers.Layer):
    """The encoder of DeBERTa-v2 and v3 (He et al., 2021), equal to transformers' `DebertaV2Model`.

    It has no pooler: `pooled_output` is the row of the first token.

    Args:
        vocabulary_size: Number of tokens.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads.
        hidden_size: The width.
        intermediate_size: The width between the two feed-forward layers.
        max_seq_length: The longest sequence.
        num_types: Number of token types; 0: its embeddings know none.
        dropout: The rate for the hidden rows.
        attention_dropout: Another rate for the attention weights; None: the same.
        epsilon: Added to the variance by the layer norms.
        embedding_size: Another width of the embeddings; None: the same.
        has_positions: Whether there are embeddings of positions too.
        terms: What a distance is scored with: `c2p`, the query; `p2c`, the key. Empty: distances do
            not matter.
        max_distance: Farther distances are taken for this one; None: `max_seq_length`.
        buckets: See `distance_rows`.
        share_projections: Whether distances are projected by the kernels of query and key.
        normalizes_distances: Whether the embeddings of distances are normalised.
        convolution_size: How many tokens the convolution sees, an odd number; 0: there is none.
        convolution_activation: Its activation, a name of Keras'.
        seed: For dropout; None: random.
        initializer: For embedding tables and kernels.
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
        max_seq_length: int = 512,
        num_types: int = 0,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
        epsilon: float = 1e-7,
        embedding_size: int | None = None,
        has_positions: bool = False,
        terms: Sequence[str] = ("c2p", "p2c"),
        max_distance: int | None = None,
        buckets: int = 256,
        share_projections: bool = True,
        normalizes_distances: bool = True,
        convolution_size: int = 0,
        convolution_activation: str = "tanh",
        seed: int | None = None,
        initializer: Initializer = INITIALIZER,
        lora: Lora | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "encoder", **kwargs})
        self.vocabulary_size, self.num_layers = vocabulary_size, num_layers
        self.num_heads, self.max_seq_length = num_heads, max_seq_length
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.num_types, self.dropout, self.seed = num_types, dropout, seed
        self.attention_dropout, self.epsilon = attention_dropout, epsilon
        self.embedding_size, self.has_positions = embedding_size, has_positions
        self.terms, self.max_distance, self.buckets = tuple(terms), max_distance, buckets
        self.share_projections, self.lora = share_projections, lora
        self.normalizes_distances = normalizes_distances
        self.convolution_size = convolution_size
        self.convolution_activation = convolution_activation
        self.seed_generator = keras.random.SeedGenerator(seed)
        policy, farthest = self.dtype_policy, max_distance or max_seq_length
        self.embeddings = DebertaEmbeddings(
            vocabulary_size,
            max_seq_length if has_positions else 0,
            num_types,
            embedding_size or hidden_size,
            hidden_size,
            dropout,
            epsilon,
            initializer,
            dtype=policy,
            name="embeddings",
        )
        self.distances, self.convolution = None, None
        if terms:
            self.distances = DistanceEmbeddings(
                max_seq_length,
                buckets or farthest,
                buckets,
                farthest,
                hidden_size,
                normalizes_distances,
                epsilon,
                initializer,
                dtype=policy,
                name="distances",
            )
        if convolution_size:
            self.convolution = Convolution(
                hidden_size,
                convolution_size,
                convolution_activation,
                dropout,
                epsilon,
                initializer,
                dtype=policy,
                name="convolution",
            )
        self.layers = [
            DebertaLayer(
                num_heads,
                hidden_size,
                intermediate_size,
                self.terms,
                share_projections,
                dropout,
                dropout if attention_dropout is None else attention_dropout,
                epsilon,
                initializer,
                lora,
                dtype=policy,
                name=f"layer_{number}",
            )
            for number in range(num_layers)
        ]

    @property
    def blocks(self) -> tuple[tuple[keras.layers.Layer, ...], ...]:
        """The embedding layers, then the layers of each transformer block from the lowest up."""
        tables = (self.embeddings, self.distances) if self.distances else (self.embeddings,)
        first, *others = ((layer,) for layer in self.layers)
        return (tables, (*first, self.convolution) if self.convolution else first, *others)

    @property
    def modules(self) -> list[str]:
        """The linear modules of a layer, as Hugging Face calls them: what LoRA can target."""
        return [name for linear in self.layers[0].linears for name in linear.modules]

    @property
    def adapters(self) -> dict[str, Adapter]:
        """The adapters by the full names of their modules."""
        return find_adapters(self.layers, "encoder.layer")

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        for layers in self.blocks:
            for layer in layers:
                layer.build()
                if self.lora is not None and not isinstance(layer, DebertaLayer):
                    layer.trainable = False

    def stored(self) -> list[Stored]:
        """Lists its weights with their names in the base model of Hugging Face's checkpoint."""
        parts = (self.embeddings, self.distances, self.convolution)
        listed = [weight for part in parts if part is not None for weight in part.stored()]
        for number, layer in enumerate(self.layers):
            listed += layer.stored(f"encoder.layer.{number}")
        return listed

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> dict[str, Tensor]:
        """Encodes token ids.

        Args:
            inputs: `input_word_ids`, `input_mask` and `input_type_ids`, int32 [batch, seq_length].
            training: Whether dropout is applied.

        Returns:
            `pooled_output` [batch, hidden] and `sequence_output` [batch, seq_length, hidden].
        """
        mask, last = inputs["input_mask"], self.layers[-1]
        rates = self.dropout, self.attention_dropout, self.lora and self.lora.dropout
        drops = training and any(rates)
        seed = draw_seed(self.seed_generator) if drops else ops.zeros((2,), "int32")
        x, distances = self._encode(inputs, seed, self.layers[:-1], training)
        # Twice, as in `BertEncoder.call`: what is not used is not computed.
        seed = derive_seed(seed, SEEDS * (self.num_layers - 1))
        first = last(x, mask, distances, seed, first_token_only=True, training=training)
        sequence = last(x, mask, distances, seed, training=training)
        return encoded(first, sequence, mask)

    def _encode(
        self,
        inputs: Mapping[str, Tensor],
        seed: Tensor,
        layers: Sequence[DebertaLayer],
        training: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Applies the embeddings and layers; returns the embeddings of distances too."""
        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        # Far from the seeds of the layers.
        before = [derive_seed(seed, 2**23 + number) for number in range(2)]
        x = self.embeddings(ids, inputs["input_type_ids"], before[0], training=training)
        distances, embedded = None, x
        if self.distances is not None:
            distances = self.distances(ids, training=training)
        for number, layer in enumerate(layers):
            layer_seed = derive_seed(seed, SEEDS * number)
            x = layer(x, mask, distances, layer_seed, training=training)
            if number == 0 and self.convolution is not None:
                x = self.convolution(embedded, x, mask, before[1], training=training)
        return x, distances

    def kernels(self) -> Callable[[Tensor, Tensor], Any]:
        """Returns a function that runs each kernel of a training step once; see `trace_kernels`."""
        layers = self.layers[:1]
        return encoder_kernels(
            layers, lambda inputs, seed: self._encode(inputs, seed, layers, training=True)[0]
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
            *("max_seq_length", "num_types", "dropout", "attention_dropout", "epsilon"),
            *("embedding_size", "has_positions", "terms", "max_distance", "buckets"),
            *("share_projections", "normalizes_distances", "convolution_size"),
            *("convolution_activation", "seed"),
        )
        return configured(self, super().get_config(), names)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DebertaEncoder":
        """Makes the layer that `get_config` describes."""
        return cls(**with_lora(config))
