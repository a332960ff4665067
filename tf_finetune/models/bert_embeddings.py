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
        max_seq_length: Number of positions.
        num_types: Number of token types.
        hidden_size: The width.
        dropout: The dropout rate.
        epsilon: Added to the variance.
        initializer: For the tables.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        max_seq_length: int,
        num_types: int,
        hidden_size: int,
        dropout: float,
        epsilon: float,
        initializer: Initializer,
        **kwargs: Any,
    ) -> None:
        # `autocast` would cast whole embedding tables at every step.
        super().__init__(autocast=False, **kwargs)
        self.sizes = {"token": vocabulary_size, "position": max_seq_length, "type": num_types}
        self.hidden_size, self.initializer, self.dropout = hidden_size, initializer, dropout
        self.norm = Norm(dropout, epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        self.token, self.position, self.type = (
            self.add_weight(
                (size, self.hidden_size), self.initializer, autocast=False, name=f"{name}_embedding"
            )
            for name, size in self.sizes.items()
        )
        self.norm.build((None, self.hidden_size))

    def call(self, ids: Tensor, types: Tensor, seed: Tensor, training: bool = False) -> Tensor:
        """Returns [batch * seq_length, hidden] of ids and types, int32 [batch, seq_length]."""
        types = ops.take(self.type, types, axis=0)
        others = types + ops.convert_to_tensor(self.position)[: ops.shape(ids)[1]]
        x, residual = (
            ops.cast(ops.reshape(part, (-1, self.hidden_size)), self.compute_dtype)
            for part in (ops.take(self.token, ids, axis=0), others)
        )
        # Shapes and dtypes as in the layers' norms, to share their kernel.
        bias, fuse = ops.zeros((self.hidden_size,), x.dtype), fuses(self, training)
        x = self.norm(x, bias, residual, training=training, fuse=fuse)
        if not (training and self.dropout):
            return x
        return fused.fused_dropout(x, seed, rate=kernel_rate(self.dropout, training), fuse=fuse)


def fuses(layer: keras.layers.Layer, training: bool) -> bool:
    """Whether XLA kernels run between the products: not in float32 predictions and exports."""
    return training or layer.compute_dtype != "float32"


def kernel_rate(dropout: float, training: bool) -> float | Tensor:
    """Returns the dropout rate, as a tensor if it is not zero; see `fused.dropout`."""
    return ops.convert_to_tensor(dropout, "float32") if training and dropout else 0.0
