"""The embeddings of a BERT."""

from typing import Any, TypeAlias

import keras
from keras import ops

from tf_finetune.models.fused import fused_dropout
from tf_finetune.models.kernels import fuses, kernel_rate
from tf_finetune.models.layer_norm import Norm

Tensor = Any
Initializer: TypeAlias = keras.initializers.Initializer | str


class BertEmbeddings(keras.layers.Layer):
    """The normalised sum of token, position and type embeddings.

    Args:
        vocabulary_size: Number of tokens.
        num_positions: Rows of the table of positions.
        num_types: Number of token types; with one, all tokens are of it; 0: there is no table.
        width: The width of the tables.
        hidden_size: The layers' width; if it is another, a dense layer leads there.
        dropout: The dropout rate.
        epsilon: Added to the variance.
        initializer: For the tables.
        position_offset: The row of the first token.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_positions: int,
        num_types: int,
        width: int,
        hidden_size: int,
        dropout: float,
        epsilon: float,
        initializer: Initializer,
        position_offset: int = 0,
        **kwargs: Any,
    ) -> None:
        # `autocast` would cast whole embedding tables at every step.
        super().__init__(autocast=False, **kwargs)
        self.sizes = {"token": vocabulary_size, "position": num_positions, "type": num_types}
        self.width, self.initializer, self.dropout = width, initializer, dropout
        self.position_offset = position_offset
        self.norm = Norm(dropout, epsilon, dtype=self.dtype_policy, name="norm")
        self.type: keras.Variable | None = None
        self.projection: keras.layers.Dense | None = None
        if width != hidden_size:
            self.projection = keras.layers.Dense(
                hidden_size,
                kernel_initializer=initializer,
                dtype=self.dtype_policy,
                name="projection",
            )

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        self.token, self.position, self.type = (
            self.add_weight(
                (size, self.width), self.initializer, autocast=False, name=f"{name}_embedding"
            )
            if size
            else None
            for name, size in self.sizes.items()
        )
        self.norm.build((None, self.width))
        if self.projection is not None:
            self.projection.build((None, self.width))

    def call(self, ids: Tensor, types: Tensor, seed: Tensor, training: bool = False) -> Tensor:
        """Returns [batch * seq_length, hidden] of ids and types, int32 [batch, seq_length]."""
        start = self.position_offset
        others = ops.convert_to_tensor(self.position)[start : start + ops.shape(ids)[1]]
        if self.sizes["type"] > 1:
            others = ops.take(self.type, types, axis=0) + others
        else:
            if self.type is not None:
                others = ops.convert_to_tensor(self.type) + others
            others = ops.broadcast_to(others, (*ops.shape(ids), self.width))
        x, residual = (
            ops.cast(ops.reshape(part, (-1, self.width)), self.compute_dtype)
            for part in (ops.take(self.token, ids, axis=0), others)
        )
        # Shapes and dtypes as in the layers' norms, to share their kernel.
        bias, fuse = ops.zeros((self.width,), x.dtype), fuses(self, training)
        x = self.norm(x, bias, residual, training=training, fuse=fuse)
        if training and self.dropout:
            x = fused_dropout(x, seed, rate=kernel_rate(self.dropout, training), fuse=fuse)
        return x if self.projection is None else self.projection(x)
