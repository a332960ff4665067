"""A BERT encoder that trains fast: KerasHub's `BertBackbone` in fewer and larger operations."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from tf_finetune.models.bert_embeddings import BertEmbeddings, Initializer, Tensor
from tf_finetune.models.bert_layers import BertLayer, batch_shape
from tf_finetune.models.kernels import trace_kernels
from tf_finetune.models.lora import Lora
from tf_finetune.models.seeds import derive_seed, draw_seed

# google-research/bert, modeling.py
EPSILON = 1e-12
INITIALIZER = keras.initializers.TruncatedNormal(stddev=0.02)


@keras.saving.register_keras_serializable(package="tf_finetune")
class BertEncoder(keras.layers.Layer):
    """The BERT encoder (Devlin et al., 2019), equal to `keras_hub.models.BertBackbone`.

    Its sublayers are exposed, so that each can be frozen; its `Dense` layers take LoRA. Query, key
    and value are one `Dense` layer. In training and in half precision, the operations between
    matrix products run as XLA kernels, whether or not XLA compiles the step; only the last layer
    computes its first tokens op by op.

    Args:
        vocabulary_size: Number of tokens.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads.
        hidden_size: The width.
        intermediate_size: The width between the two feed-forward layers.
        max_seq_length: Number of positions.
        num_types: Number of token types.
        dropout: The rate for the hidden rows and for the attention weights.
        epsilon: Added to the variance by the layer norms.
        approximate_gelu: GELU by its tanh formula, as in google-research/bert, or exact.
        seed: For dropout; None: random.
        initializer: For embedding tables and kernels.
        lora: The adapters in its layers, beside weights that are then frozen, those of the
            embeddings too; None: none. The pooler has none, and is trained.
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
        num_types: int = 2,
        dropout: float = 0.1,
        epsilon: float = EPSILON,
        approximate_gelu: bool = True,
        seed: int | None = None,
        initializer: Initializer = INITIALIZER,
        lora: Lora | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "encoder")
        super().__init__(**kwargs)
        self.vocabulary_size, self.num_layers = vocabulary_size, num_layers
        self.num_heads, self.max_seq_length = num_heads, max_seq_length
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.num_types, self.dropout, self.seed = num_types, dropout, seed
        self.epsilon, self.approximate_gelu = epsilon, approximate_gelu
        self.lora = lora
        self.seed_generator = keras.random.SeedGenerator(seed)
        policy = self.dtype_policy
        self.embeddings = BertEmbeddings(
            vocabulary_size,
            max_seq_length,
            num_types,
            hidden_size,
            dropout,
            epsilon,
            initializer,
            dtype=policy,
            name="embeddings",
        )
        self.layers = [
            BertLayer(
                num_heads,
                hidden_size,
                intermediate_size,
                dropout,
                epsilon,
                approximate_gelu,
                initializer,
                lora,
                dtype=policy,
                name=f"layer_{index}",
            )
            for index in range(num_layers)
        ]
        self.pooler = keras.layers.Dense(
            hidden_size, "tanh", kernel_initializer=initializer, dtype=policy, name="pooler"
        )

    @property
    def blocks(self) -> tuple[tuple[keras.layers.Layer, ...], ...]:
        """The embedding layers, then the layers of each transformer block from the lowest up."""
        return ((self.embeddings,), *((layer,) for layer in self.layers))

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        self.embeddings.build()
        for layer in self.layers:
            layer.build()
        self.pooler.build((None, self.hidden_size))
        if self.lora is not None:
            self.embeddings.trainable = False

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> dict[str, Tensor]:
        """Encodes token ids.

        Args:
            inputs: `input_word_ids`, `input_mask` and `input_type_ids`, int32 [batch, seq_length].
            training: Whether dropout is applied.

        Returns:
            `pooled_output` [batch, hidden] and `sequence_output` [batch, seq_length, hidden].
        """
        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        drops = training and (self.dropout or (self.lora is not None and self.lora.dropout))
        seed = draw_seed(self.seed_generator) if drops else ops.zeros((2,), "int32")
        x = self.embeddings(ids, inputs["input_type_ids"], seed, training=training)
        for index, layer in enumerate(self.layers[:-1]):
            x = layer(x, mask, derive_seed(seed, 3 * index + 1), training=training)
        # Call the last layer twice: a graph that uses the pooled output alone drops the second
        # call, and the first computes one token of each text only.
        last, seed = self.layers[-1], derive_seed(seed, 3 * self.num_layers)
        first = last(x, mask, seed, first_token_only=True, training=training)
        sequence = last(x, mask, seed, training=training)
        return {
            "pooled_output": self.pooler(first),
            "sequence_output": ops.reshape(sequence, (*batch_shape(ids), self.hidden_size)),
        }

    def compute_output_spec(
        self, inputs: Mapping[str, keras.KerasTensor], training: bool = False
    ) -> dict[str, keras.KerasTensor]:
        """Returns the outputs' shapes and dtypes, for which Keras would trace the network."""
        batch, length = inputs["input_word_ids"].shape
        return {
            "pooled_output": keras.KerasTensor((batch, self.hidden_size), self.compute_dtype),
            "sequence_output": keras.KerasTensor(
                (batch, length, self.hidden_size), self.compute_dtype
            ),
        }

    def kernels(self) -> Callable[[Tensor, Tensor], Any]:
        """Returns a function that runs each kernel of a training step once; see `trace_kernels`."""
        import tensorflow as tf

        def run(rows: Tensor, length: Tensor) -> Tensor:
            ids, mask = tf.zeros((rows, length), "int32"), tf.ones((rows, length), "int32")
            seed, gamma = ops.zeros((2,), "int32"), self.embeddings.norm.gamma.value
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(gamma)
                x = self.embeddings(ids, ops.zeros_like(ids), seed, training=True)
                x = self.layers[0](x, mask, seed, training=True)
            return tape.gradient(x, gamma)

        return trace_kernels(run)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer; Keras loads its weights afterwards."""
        names = (
            *("vocabulary_size", "num_layers", "num_heads", "hidden_size", "intermediate_size"),
            *("max_seq_length", "num_types", "dropout", "epsilon", "approximate_gelu", "seed"),
        )
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        return config if self.lora is None else {**config, "lora": dataclasses.asdict(self.lora)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BertEncoder":
        """Makes the layer that `get_config` describes."""
        if lora := config.get("lora"):
            config = {**config, "lora": Lora(**{**lora, "targets": tuple(lora["targets"])})}
        return cls(**config)
