"""Layer normalisation: of a sum, as in BERT's layers, and of a residual stream, as in GPT-2's."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_finetune.models.fused import fused_residual_norm
from tf_finetune.models.fused_decoder import fused_add_layer_norm
from tf_finetune.models.kernels import kernel_rate
from tf_finetune.models.stored_weights import Stored

Tensor = Any


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
        return fused_residual_norm(x, bias, residual, *self.tensors(), seed, **options)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Returns gamma and beta."""
        return ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)

    def stored(self, prefix: str) -> list[Stored]:
        """Lists the weights with their names in transformers."""
        return [Stored(self.gamma, (f"{prefix}.weight",)), Stored(self.beta, (f"{prefix}.bias",))]


class LayerNorm(keras.layers.Layer):
    """Layer normalisation of a residual stream; its weights are never rounded.

    Args:
        size: The width.
        epsilon: Added to the variance.
        learns: Whether its weights are trained.
        biased: Whether it has a beta.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self, size: int, epsilon: float, learns: bool, biased: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # It would round the residual stream.
        self.size, self.epsilon, self.learns, self.biased = size, epsilon, learns, biased

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        options = {"dtype": "float32", "autocast": False, "trainable": self.learns}
        self.gamma = self.add_weight((self.size,), "ones", name="gamma", **options)
        if self.biased:
            self.beta = self.add_weight((self.size,), "zeros", name="beta", **options)

    def call(
        self, x: Tensor, *changes: Tensor, training: bool = False, fuse: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Returns the sum of x and changes, and its norm; see `add_layer_norm`."""
        options = {"epsilon": self.epsilon, "learns": self.learns}
        return fused_add_layer_norm(
            x, *self.tensors(), *changes, **options, training=training, fuse=fuse
        )

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Returns gamma and beta."""
        gamma = ops.convert_to_tensor(self.gamma)
        return gamma, ops.convert_to_tensor(self.beta) if self.biased else ops.zeros_like(gamma)

    def stored(self, prefix: str) -> list[Stored]:
        """Lists the weights with their names in transformers."""
        listed = [Stored(self.gamma, (f"{prefix}.weight",))]
        if self.biased:
            listed.append(Stored(self.beta, (f"{prefix}.bias",)))
        return listed
