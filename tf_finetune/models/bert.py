"""BERT and the encoders that differ from it in details, in few and large operations."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from tf_finetune.models.bert_embeddings import BertEmbeddings, Initializer, Tensor
from tf_finetune.models.bert_layers import BertLayer, batch_shape
from tf_finetune.models.bert_names import BERT_NAMES
from tf_finetune.models.encoder_stack import INITIALIZER, configured, output_spec, with_lora
from tf_finetune.models.kernels import trace_kernels
from tf_finetune.models.lora import Adapter, Lora
from tf_finetune.models.relative_bias import RelativeBias
from tf_finetune.models.seeds import derive_seed, draw_seed
from tf_finetune.models.stored_weights import Stored

# google-research/bert, modeling.py
EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="tf_finetune")
class BertEncoder(keras.layers.Layer):
    """The BERT encoder (Devlin et al., 2019), equal to `keras_hub.models.BertBackbone`.

    Its options make it a RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, ELECTRA, MPNet or ALBERT.

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
        num_types: Number of token types; 0: its embeddings know none.
        dropout: The rate for the hidden rows and for the attention weights.
        epsilon: Added to the variance by the layer norms.
        approximate_gelu: GELU by its tanh formula, as in google-research/bert, or exact.
        seed: For dropout; None: random.
        initializer: For embedding tables and kernels.
        lora: The adapters in its layers, beside weights that are then frozen, those of the
            embeddings too; None: none. The pooler has none, and is trained.
        names: What its weights are called in Hugging Face's checkpoints: a key of `BERT_NAMES`.
        attention_dropout: Another rate for the attention weights; None: the same.
        embedding_size: Another width of the embeddings (ALBERT, small ELECTRA); None: the same.
        position_offset: The row of the first position: RoBERTa counts from its padding id + 1.
        relative_buckets: Rows of MPNet's relative position bias; 0: it has none.
        share_layers: Whether all layers have the same weights, as ALBERT's.
        has_pooler: Whether a dense layer makes `pooled_output`; else it is the first token's row.
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
        names: str = "bert",
        attention_dropout: float | None = None,
        embedding_size: int | None = None,
        position_offset: int = 0,
        relative_buckets: int = 0,
        share_layers: bool = False,
        has_pooler: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("name", "encoder")
        super().__init__(**kwargs)
        self.vocabulary_size, self.num_layers = vocabulary_size, num_layers
        self.num_heads, self.max_seq_length = num_heads, max_seq_length
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.num_types, self.dropout, self.seed = num_types, dropout, seed
        self.epsilon, self.approximate_gelu = epsilon, approximate_gelu
        self.lora, self.names, self.attention_dropout = lora, names, attention_dropout
        self.embedding_size, self.position_offset = embedding_size, position_offset
        self.relative_buckets, self.share_layers = relative_buckets, share_layers
        self.has_pooler = has_pooler
        self.seed_generator = keras.random.SeedGenerator(seed)
        policy = self.dtype_policy
        self.embeddings = BertEmbeddings(
            vocabulary_size,
            position_offset + max_seq_length,
            num_types,
            embedding_size or hidden_size,
            hidden_size,
            dropout,
            epsilon,
            initializer,
            position_offset,
            dtype=policy,
            name="embeddings",
        )
        self.layers = [
            BertLayer(
                num_heads,
                hidden_size,
                intermediate_size,
                dropout,
                dropout if attention_dropout is None else attention_dropout,
                epsilon,
                approximate_gelu,
                initializer,
                BERT_NAMES[names],
                lora,
                dtype=policy,
                name=f"layer_{index}",
            )
            for index in range(1 if share_layers else num_layers)
        ]
        self.pooler, self.relative_bias = None, None
        if has_pooler:
            self.pooler = keras.layers.Dense(
                hidden_size, "tanh", kernel_initializer=initializer, dtype=policy, name="pooler"
            )
        if relative_buckets:
            self.relative_bias = RelativeBias(
                relative_buckets, num_heads, max_seq_length, initializer, name="relative_bias"
            )

    @property
    def blocks(self) -> tuple[tuple[keras.layers.Layer, ...], ...]:
        """The embedding layers, then the layers of each transformer block from the lowest up."""
        first = (self.embeddings, self.relative_bias) if self.relative_bias else (self.embeddings,)
        return (first, *((layer,) for layer in self.layers))

    @property
    def modules(self) -> list[str]:
        """The linear modules of a layer, as Hugging Face calls them: what LoRA can target."""
        return BERT_NAMES[self.names].modules

    @property
    def adapters(self) -> dict[str, Adapter]:
        """The adapters by the full names of their modules."""
        prefix = BERT_NAMES[self.names].layer
        return {
            f"{prefix.format(index)}.{module}": adapter
            for index, layer in enumerate(self.layers)
            for module, adapter in layer.adapters.items()
        }

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        self.embeddings.build()
        for layer in self.layers:
            layer.build()
        if self.relative_bias is not None:
            self.relative_bias.build()
        if self.pooler is not None:
            self.pooler.build((None, self.hidden_size))
        if self.lora is not None:
            for layer in self.blocks[0]:
                layer.trainable = False

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> dict[str, Tensor]:
        """Encodes token ids.

        Args:
            inputs: `input_word_ids`, `input_mask` and `input_type_ids`, int32 [batch, seq_length].
            training: Whether dropout is applied.

        Returns:
            `pooled_output` [batch, hidden] and `sequence_output` [batch, seq_length, hidden].
        """
        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        rates = self.dropout, self.attention_dropout, self.lora and self.lora.dropout
        drops = training and any(rates)
        seed = draw_seed(self.seed_generator) if drops else ops.zeros((2,), "int32")
        x = self.embeddings(ids, inputs["input_type_ids"], seed, training=training)
        bias = self.relative_bias.for_length(ops.shape(ids)[1]) if self.relative_bias else None
        for index in range(self.num_layers - 1):
            layer = self.layers[0 if self.share_layers else index]
            x = layer(x, mask, derive_seed(seed, 3 * index + 1), bias, training=training)
        # Call the last layer twice: a graph that uses the pooled output alone drops the second
        # call, and the first computes one token of each text only.
        last, seed = self.layers[-1], derive_seed(seed, 3 * self.num_layers)
        first = last(x, mask, seed, bias, first_token_only=True, training=training)
        sequence = last(x, mask, seed, bias, training=training)
        return {
            "pooled_output": first if self.pooler is None else self.pooler(first),
            "sequence_output": ops.reshape(sequence, (*batch_shape(ids), self.hidden_size)),
        }

    def compute_output_spec(
        self, inputs: Mapping[str, keras.KerasTensor], training: bool = False
    ) -> dict[str, keras.KerasTensor]:
        """Returns the outputs' shapes and dtypes, for which Keras would trace the network."""
        return output_spec(self, inputs["input_word_ids"])

    def kernels(self) -> Callable[[Tensor, Tensor], Any]:
        """Returns a function that runs each kernel of a training step once; see `trace_kernels`."""
        import tensorflow as tf

        def run(rows: Tensor, length: Tensor) -> Tensor:
            ids, mask = tf.zeros((rows, length), "int32"), tf.ones((rows, length), "int32")
            seed, gamma = ops.zeros((2,), "int32"), self.embeddings.norm.gamma.value
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(gamma)
                x = self.embeddings(ids, ops.zeros_like(ids), seed, training=True)
                bias = self.relative_bias.for_length(length) if self.relative_bias else None
                x = self.layers[0](x, mask, seed, bias, training=True)
            return tape.gradient(x, gamma)

        return trace_kernels(run)

    def stored(self) -> list[Stored]:
        """Lists its weights with their names in the base model of Hugging Face's checkpoint."""
        return list(self._stored())

    def _stored(self) -> Iterator[Stored]:
        names, tables = BERT_NAMES[self.names], self.embeddings
        yield Stored(tables.token, ("embeddings.word_embeddings.weight",))
        yield Stored(tables.position, ("embeddings.position_embeddings.weight",))
        if tables.type is not None:
            yield Stored(tables.type, ("embeddings.token_type_embeddings.weight",))
        yield from tables.norm.stored("embeddings.LayerNorm")
        if self.relative_bias is not None:
            yield Stored(self.relative_bias.table, ("encoder.relative_attention_bias.weight",))
        if tables.projection is not None:
            yield from _stored_dense(tables.projection, (names.projection,))
        for index, layer in enumerate(self.layers):
            prefix = names.layer.format(index)
            for dense, modules in zip(layer.products, names.products, strict=True):
                yield from _stored_dense(dense, tuple(f"{prefix}.{name}" for name in modules))
            for norm, name in zip(
                (layer.attention_norm, layer.output_norm), names.norms, strict=True
            ):
                yield from norm.stored(f"{prefix}.{name}")
        if self.pooler is not None:
            yield from _stored_dense(self.pooler, (names.pooler,))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer; Keras loads its weights afterwards."""
        names = (
            *("vocabulary_size", "num_layers", "num_heads", "hidden_size", "intermediate_size"),
            *("max_seq_length", "num_types", "dropout", "epsilon", "approximate_gelu", "seed"),
            *("names", "attention_dropout", "embedding_size", "position_offset"),
            *("relative_buckets", "share_layers", "has_pooler"),
        )
        return configured(self, super().get_config(), names)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BertEncoder":
        """Makes the layer that `get_config` describes."""
        return cls(**with_lora(config))


def _stored_dense(dense: keras.layers.Dense, names: tuple[str, ...]) -> Iterator[Stored]:
    sizes = (dense.units // len(names),) * len(names)
    yield Stored(dense.kernel, tuple(f"{name}.weight" for name in names), sizes, transposed=True)
    yield Stored(dense.bias, tuple(f"{name}.bias" for name in names), sizes)
