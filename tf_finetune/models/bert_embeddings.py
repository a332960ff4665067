"""The embeddings of a BERT, and its normalisation."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from tf_finetune.models import fused

Tensor = Any
Initializer: TypeAlias = keras.initializers.Initializer | str


class Norm(keras.layers.Layer):
    """Layer normalisation of a sum; its parameters are never rounded to half precision.

    Args:
        dropout: The layers' rate. `call` drops nothing, but takes the kernel for a rate above zero.
        epsilon: Added to the variance.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, dropout: float, epsilon: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout, self.epsilon = dropout, epsilon

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the weights."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape, "ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape, "zeros", autocast=False, name="beta")

    def call(
        self,
        x: Tensor,
        bias: Tensor,
        residual: Tensor,
        training: bool = False,
        fuse: bool = False,
    ) -> Tensor:
        """Returns norm(residual + x + bias)."""
        # A rate of 0 as a tensor: as a number it would need a kernel of its own.
        rate, seed = 0.0 * kernel_rate(self.dropout, training), ops.zeros((2,), "int32")
        options = {"rate": rate, "epsilon": self.epsilon, "training": training, "fuse": fuse}
        return fused.fused_residual_norm(x, bias, residual, *self.tensors(), seed, **options)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Returns gamma and beta."""
        return ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)


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
            x = fused.fused_dropout(x, seed, rate=kernel_rate(self.dropout, training), fuse=fuse)
        return x if self.projection is None else self.projection(x)


def fuses(layer: keras.layers.Layer, training: bool) -> bool:
    """Whether XLA kernels run between the products: not in float32 predictions and exports."""
    return training or layer.compute_dtype != "float32"


def kernel_rate(dropout: float, training: bool) -> float | Tensor:
    """Returns the dropout rate, as a tensor if it is not zero; see `fused.dropout`."""
    return ops.convert_to_tensor(dropout, "float32") if training and dropout else 0.0
