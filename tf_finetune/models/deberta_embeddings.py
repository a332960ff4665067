"""The embeddings of a DeBERTa: of tokens and of distances, and the convolution of its v2."""

from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from tf_finetune.models import fused
from tf_finetune.models.bert_embeddings import Initializer
from tf_finetune.models.bert_layers import batch_shape
from tf_finetune.models.disentangled import distance_rows
from tf_finetune.models.kernels import fuses, kernel_rate
from tf_finetune.models.layer_norm import Norm
from tf_finetune.models.stored_weights import Stored

Tensor = Any


class DebertaEmbeddings(keras.layers.Layer):
    """The normalised sum of token and, as far as there are any, position and type embeddings.

    Args:
        vocabulary_size: Number of tokens.
        num_positions: Number of positions; 0: only the attention knows any.
        num_types: Number of token types; 0: there are none.
        embedding_size: The width of the tables; another one than `hidden_size` is projected to it.
        hidden_size: The width of the result.
        dropout: The dropout rate.
        epsilon: Added to the variance.
        initializer: For the tables and the projection.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_positions: int,
        num_types: int,
        embedding_size: int,
        hidden_size: int,
        dropout: float,
        epsilon: float,
        initializer: Initializer,
        **kwargs: Any,
    ) -> None:
        # `autocast` would cast whole embedding tables at every step.
        super().__init__(autocast=False, **kwargs)
        self.vocabulary_size, self.num_positions = vocabulary_size, num_positions
        self.num_types, self.embedding_size = num_types, embedding_size
        self.hidden_size, self.initializer, self.dropout = hidden_size, initializer, dropout
        self.norm = Norm(dropout, epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""

        def table(name: str, rows: int, columns: int) -> keras.Variable:
            return self.add_weight((rows, columns), self.initializer, autocast=False, name=name)

        self.token = table("token_embedding", self.vocabulary_size, self.embedding_size)
        if self.num_positions:
            self.position = table("position_embedding", self.num_positions, self.embedding_size)
        if self.num_types:
            self.type = table("type_embedding", self.num_types, self.embedding_size)
        if self.embedding_size != self.hidden_size:
            self.projection = table("projection", self.embedding_size, self.hidden_size)
        self.norm.build((None, self.hidden_size))

    def call(self, ids: Tensor, types: Tensor, seed: Tensor, training: bool = False) -> Tensor:
        """Returns [batch * seq_length, hidden] of ids and types, int32 [batch, seq_length]."""
        x = ops.take(self.token, ids, axis=0)
        if self.num_positions:
            x += ops.convert_to_tensor(self.position)[: ops.shape(ids)[1]]
        if self.num_types:
            x += ops.take(self.type, types, axis=0)
        x = ops.cast(ops.reshape(x, (-1, self.embedding_size)), self.compute_dtype)
        if self.embedding_size != self.hidden_size:
            x = ops.matmul(x, ops.cast(self.projection, x.dtype))
        # Shapes and dtypes as in the layers' norms, to share their kernel.
        bias, fuse = ops.zeros((self.hidden_size,), x.dtype), fuses(self, training)
        x = self.norm(x, bias, ops.zeros_like(x), training=training, fuse=fuse)
        if not (training and self.dropout):
            return x
        return fused.fused_dropout(x, seed, rate=kernel_rate(self.dropout, training), fuse=fuse)

    def stored(self) -> Iterator[Stored]:
        """Yields the weights with their names in Hugging Face's checkpoint."""
        yield Stored(self.token, ("embeddings.word_embeddings.weight",))
        if self.num_positions:
            yield Stored(self.position, ("embeddings.position_embeddings.weight",))
        if self.num_types:
            yield Stored(self.type, ("embeddings.token_type_embeddings.weight",))
        if self.embedding_size != self.hidden_size:
            yield Stored(self.projection, ("embeddings.embed_proj.weight",), (), True)
        yield from self.norm.stored("embeddings.LayerNorm")


class DistanceEmbeddings(keras.layers.Layer):
    """The embeddings of the distances between tokens.

    Args:
        max_seq_length: The longest sequence.
        span: Half the table's rows.
        buckets: See `distance_rows`.
        max_distance: See `distance_rows`.
        hidden_size: The width.
        normalizes: Whether the rows are normalised.
        epsilon: Added to the variance.
        initializer: For the table.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        max_seq_length: int,
        span: int,
        buckets: int,
        max_distance: int,
        hidden_size: int,
        normalizes: bool,
        epsilon: float,
        initializer: Initializer,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.max_seq_length, self.span, self.hidden_size = max_seq_length, span, hidden_size
        self.initializer = initializer
        self.rows = distance_rows(max_seq_length, span, buckets, max_distance)
        self.norm = Norm(0.0, epsilon, dtype=self.dtype_policy, name="norm") if normalizes else None

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        shape = 2 * self.span, self.hidden_size
        self.table = self.add_weight(shape, self.initializer, autocast=False, name="table")
        if self.norm is not None:
            self.norm.build((None, self.hidden_size))

    def call(self, ids: Tensor, training: bool = False) -> Tensor:
        """Returns the embeddings of the distances from seq_length - 1 down to -seq_length.

        Args:
            ids: int32 [batch, seq_length].
            training: Whether the table is trained.

        Returns:
            [2 * seq_length, hidden].
        """
        length = ops.shape(ids)[1]
        first = self.max_seq_length - length
        rows = ops.convert_to_tensor(self.rows)[first : first + 2 * length]
        x = ops.cast(ops.take(self.table, rows, axis=0), self.compute_dtype)
        if self.norm is None:
            return x
        bias = ops.zeros((self.hidden_size,), x.dtype)
        return self.norm(x, bias, ops.zeros_like(x), training=training)

    def stored(self) -> Iterator[Stored]:
        """Yields the weights with their names in Hugging Face's checkpoint."""
        yield Stored(self.table, ("encoder.rel_embeddings.weight",))
        if self.norm is not None:
            yield from self.norm.stored("encoder.LayerNorm")


class Convolution(keras.layers.Layer):
    """What DeBERTa-v2-xlarge adds to the first layer's result: a convolution of the embeddings.

    Args:
        hidden_size: The width.
        kernel_size: How many tokens it sees, an odd number.
        activation: A name of Keras' activations.
        dropout: The dropout rate.
        epsilon: Added to the variance.
        initializer: For the kernel.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        hidden_size: int,
        kernel_size: int,
        activation: str,
        dropout: float,
        epsilon: float,
        initializer: Initializer,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_size, self.kernel_size, self.dropout = hidden_size, kernel_size, dropout
        self.initializer, self.activation = initializer, keras.activations.get(activation)
        self.norm = Norm(dropout, epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        shape = self.kernel_size, self.hidden_size, self.hidden_size
        self.kernel = self.add_weight(shape, self.initializer, name="kernel")
        self.bias = self.add_weight((self.hidden_size,), "zeros", name="bias")
        self.norm.build((None, self.hidden_size))

    def call(
        self, x: Tensor, residual: Tensor, mask: Tensor, seed: Tensor, training: bool = False
    ) -> Tensor:
        """Returns norm(residual + convolution of x), [batch * seq_length, hidden].

        Args:
            x: [batch * seq_length, hidden]; what stands at padding is read as zeros.
            residual: [batch * seq_length, hidden].
            mask: int32 [batch, seq_length], 0 for padding.
            seed: int32 [2].
            training: Whether dropout is applied.
        """
        texts = ops.reshape(x, (*batch_shape(mask), self.hidden_size))
        texts *= ops.expand_dims(ops.cast(mask, x.dtype), 2)
        x = ops.conv(texts, ops.convert_to_tensor(self.kernel), padding="same")
        x, fuse = ops.reshape(x + self.bias, (-1, self.hidden_size)), fuses(self, training)
        if training and self.dropout:
            x = fused.fused_dropout(x, seed, rate=kernel_rate(self.dropout, training), fuse=fuse)
        x, bias = self.activation(x), ops.zeros((self.hidden_size,), x.dtype)
        return self.norm(x, bias, residual, training=training, fuse=fuse)

    def stored(self) -> Iterator[Stored]:
        """Yields the weights with their names in Hugging Face's checkpoint."""
        yield Stored(self.kernel, ("encoder.conv.conv.weight",), (), True)
        yield Stored(self.bias, ("encoder.conv.conv.bias",))
        yield from self.norm.stored("encoder.conv.LayerNorm")
