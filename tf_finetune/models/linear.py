"""`Linear`: one matrix product for all modules that read the same input, with their adapters."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from tf_finetune.models.lora import Adapter, AdapterPlace, Lora, add_adapters, low_rank_product
from tf_finetune.models.row_adapters import RowAdapters, low_rank_of_rows
from tf_finetune.models.stored_weights import Stored

Tensor = Any


class LinearTensors(NamedTuple):
    """The weights of a `Linear` in the dtype that it computes in.

    Attributes:
        kernel: [inputs, outputs]; or its parts for decoding, [outputs, inputs] each.
        bias: [outputs], or None.
        adapters: A and B of each adapter, float32.
        of_rows: Adapters of which each row has its own; empty: there are none.
    """

    kernel: Tensor | tuple[Tensor, ...]
    bias: Tensor | None
    adapters: tuple[tuple[Tensor, Tensor], ...]
    of_rows: RowAdapters | tuple[()] = ()  # TensorFlow recomputes no function of None.


class LinearForm(NamedTuple):
    """What is fixed in the product of a `Linear`; see `low_rank_product`."""

    places: tuple[AdapterPlace, ...] = ()
    scaling: float = 1.0


class Linear(keras.layers.Layer):
    """The weights of one product for several modules, such as query, key and value.

    Args:
        inputs: The width of the input.
        modules: The name of each module within its layer in a checkpoint, such as
            `self_attn.q_proj`, and the width of its output.
        biased: The modules that have a bias; the others' part of the bias stays zero.
        lora: If it selects modules, these get adapters. None: no adapters.
        initializer: For the kernel. Zeros do for weights that a checkpoint has.
        exact: Whether kernel and bias are never rounded. Else, with LoRA or `trainable=False`, they
            are kept in the dtype that the layer computes in: no training rounds them.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        inputs: int,
        modules: Mapping[str, int],
        *,
        biased: tuple[str, ...] = (),
        lora: Lora | None = None,
        initializer: keras.initializers.Initializer | str = "zeros",
        exact: bool = False,
        **kwargs: Any,
    ) -> None:
        self.frozen = lora is not None or not kwargs.get("trainable", True)
        super().__init__(**kwargs)
        self.inputs, self.modules, self.biased = inputs, dict(modules), biased
        self.lora, self.initializer, self.exact = lora, initializer, exact
        self.adapters: dict[str, Adapter] = {}
        self.form = LinearForm()
        self.bias: keras.Variable | None = None

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights and adapters."""
        outputs = sum(self.modules.values())
        rounded = self.frozen and not self.exact
        dtype = self.compute_dtype if rounded else self.variable_dtype
        options = {"dtype": dtype, "autocast": False, "trainable": not self.frozen}
        shape = self.inputs, outputs
        self.kernel = self.add_weight(shape, self.initializer, name="kernel", **options)
        if self.biased:
            self.bias = self.add_weight((outputs,), "zeros", name="bias", **options)
        if self.lora is not None:
            self.adapters, places = add_adapters(self, self.lora, self.inputs, self.modules)
            self.form = LinearForm(places, self.lora.scaling)

    def stored(self, prefix: str, transposed: bool) -> list[Stored]:
        """Lists the weights with their names in a checkpoint.

        Args:
            prefix: The name of the layer.
            transposed: Whether the checkpoint's kernels are [outputs, inputs].
        """
        names, sizes = [f"{prefix}.{name}" for name in self.modules], tuple(self.modules.values())
        weights = tuple(f"{name}.weight" for name in names)
        listed = [Stored(self.kernel, weights, sizes, transposed)]
        if self.bias is not None:
            listed.append(Stored(self.bias, tuple(f"{name}.bias" for name in names), sizes))
        return listed

    def tensors(self) -> LinearTensors:
        """Reads the weights."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        bias = None if self.bias is None else ops.cast(self.bias, self.compute_dtype)
        adapters = tuple(
            (ops.convert_to_tensor(a), ops.convert_to_tensor(b)) for a, b in self.adapters.values()
        )
        return LinearTensors(kernel, bias, adapters)

    def merged_kernel(self) -> Tensor:
        """Returns the kernel plus `scaling · A·B` of each adapter, float32."""
        kernel = ops.cast(self.kernel, "float32")
        for (a, b), place in zip(self.adapters.values(), self.form.places, strict=True):
            around = place.start, kernel.shape[-1] - place.start - place.size
            kernel += ops.pad(ops.matmul(a, b) * self.form.scaling, ((0, 0), around))
        return kernel


def linear_products(
    x: Tensor,
    tensors: LinearTensors,
    form: LinearForm,
    dropout: Tensor | None = None,
    seed: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Returns what the modules' outputs are the sum of, [rows, outputs] or [outputs] each.

    These are the product with the kernel, the adapters' part and the bias, so far as there are any.
    The kernel that comes next adds them up: nothing is written to memory in between.
    """
    products: tuple[Tensor, ...]
    if isinstance(tensors.kernel, tuple):
        products = (product_of_parts(x, tensors.kernel),)
    elif not tensors.adapters:
        products = (ops.matmul(x, tensors.kernel),)
    else:
        products = (
            ops.matmul(x, ops.stop_gradient(tensors.kernel)),
            low_rank_product(
                x,
                tensors.adapters,
                places=form.places,
                outputs=tensors.kernel.shape[-1],
                scaling=form.scaling,
                dropout=dropout,
                seed=seed,
            ),
        )
    if tensors.of_rows:
        products = (*products, low_rank_of_rows(x, tensors.of_rows))
    return products if tensors.bias is None else (*products, tensors.bias)


def product_of_parts(x: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Returns the product with a kernel in parts, [rows, outputs].

    Args:
        x: [rows, inputs].
        parts: The parts of the kernel, [outputs, inputs] each.
    """
    import tensorflow as tf

    if x.shape[0] == 1:
        # oneDNN reads the left factor as it lies in memory, and rearranges the right one.
        columns = tf.concat([tf.matmul(part, x, transpose_b=True) for part in parts], axis=0)
        return tf.reshape(columns, (1, -1))
    return tf.concat([tf.matmul(x, part, transpose_b=True) for part in parts], axis=-1)


def zero_products(tensors: LinearTensors, like: Tensor) -> tuple[Tensor, ...]:
    """Returns zeros in the shapes and dtypes of `linear_products`.

    Args:
        tensors: The layer's weights.
        like: [rows, outputs].
    """
    kernel = tensors.kernel[0] if isinstance(tensors.kernel, tuple) else tensors.kernel
    zeros = ops.zeros_like(like, dtype=keras.backend.standardize_dtype(kernel.dtype))
    products = (zeros, zeros) if tensors.adapters else (zeros,)
    products = (*products, zeros) if tensors.of_rows else products
    return products if tensors.bias is None else (*products, zeros[0])
