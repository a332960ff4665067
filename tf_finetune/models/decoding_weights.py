"""A decoder's weights as decoding reads them."""

import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from keras import ops

from tf_finetune.models.linear import Linear, LinearTensors

Tensor = Any
# The most bytes that are copied: more memory than this is worth more than the time.
COPIED_BYTES = 2**30
# Of a variable with more elements than this only a sample is looked at to see what has changed: a
# step of training changes all of them.
SAMPLED, STRIDE = 2**18, 61
# The least bytes of a part of a kernel: below, the call takes longer than the product.
PART_BYTES = 2**18


class WeightTensors(NamedTuple):
    """The weights of a decoder for decoding.

    Attributes:
        layers: The tensors of each layer.
        head: The parts of the head's kernel, [vocab_size, hidden] together.
    """

    layers: list[Any]
    head: tuple[Tensor, ...]


class DecodingWeights:
    """The weights of a decoder, made ready to multiply few tokens with.

    For few tokens reading the weights is what takes time. So kernels are copied: with their
    adapters merged into them, in the dtype that the decoder computes in, and as [outputs, inputs],
    which oneDNN reads without rearranging them. Each product's kernels of all layers are one tensor
    and lie in memory in the order in which they are read.

    The kernels of large decoders are not copied: their layers compute as in training. All other
    weights, such as norms and biases, are read where they are.
    """

    def __init__(self, decoder: Any) -> None:
        """Reads nothing before `refresh`.

        Args:
            decoder: The decoder, which may learn on.
        """
        self._decoder = decoder
        self._known: list[bytes] | None = None
        self._kernels: list[tf.Variable] = []  # [layers, outputs, inputs] each
        self._head: tf.Variable | None = None

    @property
    def copies(self) -> bool:
        """Whether kernels are copied."""
        kernels = [linear.kernel for layer in self._decoder.layers for linear in layer.linears]
        dtype = self._decoder.compute_dtype
        if self._decoder.head_kernel.dtype != dtype:
            kernels.append(self._decoder.head_kernel)
        sizes = (int(np.prod(kernel.shape)) for kernel in kernels)
        return sum(sizes) * tf.as_dtype(dtype).size <= COPIED_BYTES

    def refresh(self) -> None:
        """Copies the kernels again, if what is trained has changed since the last call."""
        if not self.copies:
            return
        known = [_checksum(variable) for variable in self._decoder.trainable_variables]
        if known == self._known:
            return
        self._known = None  # Ctrl-C may come before all are copied.
        dtype = self._decoder.compute_dtype
        products = zip(*(layer.linears for layer in self._decoder.layers), strict=True)
        for number, linears in enumerate(products):
            # Whole: TensorFlow copies a variable that was assigned in parts at every reading.
            kernels = tf.stack([_for_decoding(linear) for linear in linears])
            if number == len(self._kernels):
                self._kernels.append(tf.Variable(kernels, trainable=False))
            else:
                self._kernels[number].assign(kernels)
        head = self._decoder.head_kernel
        if head.dtype != dtype:
            if self._head is None:
                self._head = tf.Variable(tf.zeros(head.shape, dtype), trainable=False)
            self._head.assign(ops.cast(head, dtype))
        self._known = known

    def read(self) -> WeightTensors:
        """Returns the weights, in a graph those of the time when it runs."""
        layers = [layer.tensors() for layer in self._decoder.layers]
        head = self._decoder.head_kernel if self._head is None else self._head
        head = ops.cast(head, self._decoder.compute_dtype)
        if self._kernels:
            stacks = [tf.unstack(kernels) for kernels in self._kernels]
            layers = [
                layer._replace(
                    linears=tuple(
                        LinearTensors(_split(kernel), linear.bias, ())
                        for kernel, linear in zip(kernels, layer.linears, strict=True)
                    )
                )
                for layer, *kernels in zip(layers, *stacks, strict=True)
            ]
        return WeightTensors(layers, _split(head))


def _for_decoding(linear: Linear) -> Tensor:
    kernel = linear.merged_kernel() if linear.adapters else linear.kernel
    return ops.transpose(ops.cast(kernel, linear.compute_dtype))


def _split(kernel: Tensor) -> tuple[Tensor, ...]:
    """Cuts a large kernel, [outputs, inputs], into a part for each core, without copying it.

    A product of few rows keeps little more than a core busy; TensorFlow computes several at once.
    """
    size = int(np.prod(kernel.shape)) * kernel.dtype.size
    count = min(size // PART_BYTES, os.cpu_count() or 1)
    if count < 2 or tf.config.list_physical_devices("GPU"):
        return (kernel,)
    parts = np.array_split(np.arange(kernel.shape[0]), count)
    return tuple(tf.split(kernel, [len(part) for part in parts]))


def _checksum(variable: Any) -> bytes:
    """Returns a hash of a variable's bytes, or of a sample of them."""
    data = tf.reshape(tf.convert_to_tensor(variable), (1, -1))
    data = data[:, ::STRIDE] if data.shape[1] > SAMPLED else data
    return bytes(tf.raw_ops.Fingerprint(data=data, method="farmhash64").numpy())
