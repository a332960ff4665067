"""Compiles parts of a network as XLA kernels, or traces them once for all their calls."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Tensor = Any


def fused(
    function: Callable[..., Any], gradients: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Compiles a function of tensors as one XLA kernel forward and one backward, in TensorFlow.

    Where XLA compiles the whole step, and with other backends, the results are the same.

    Args:
        function: Takes tensors, and Python values as keywords. Returns one tensor, or a pair: the
            result, a tensor or a tuple of them, and tensors in any structure that are kept for
            `gradients`.
        gradients: Takes the gradient of the result, the kept tensors and the arguments; returns the
            gradient of each argument. None: automatic differentiation, which computes `function`
            again instead of keeping its intermediate tensors.

    Returns:
        A function that returns the result. `fuse=False` runs it op by op; `training=False` runs a
        kernel that keeps nothing. Both then have TensorFlow's own gradient.
    """

    def plain(*tensors: Tensor, **static: Any) -> Any:
        return _split(function(*tensors, **static))[0]

    if keras.config.backend() != "tensorflow":
        return lambda *tensors, fuse=True, training=True, **static: plain(*tensors, **static)
    import tensorflow as tf

    def automatic(upstream: Tensor, _: None, *tensors: Tensor, **static: Any) -> Any:
        real = [tensor for tensor in tensors if tensor.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(real)
            result = plain(*tensors, **static)
        found = iter(tape.gradient(result, real, upstream))
        return [next(found) if tensor.dtype.is_floating else None for tensor in tensors]

    predict, forward, backward = (
        tf.function(_noted(part), jit_compile=True, autograph=False)
        for part in (plain, function, gradients or automatic)
    )

    def call(*tensors: Tensor, fuse: bool = True, training: bool = True, **static: Any) -> Any:
        if not fuse:
            return plain(*tensors, **static)
        tensors = tuple(map(tf.convert_to_tensor, tensors))
        if not training:
            return predict(*tensors, **static)

        @tf.custom_gradient
        def kernel(*tensors: Tensor) -> tuple[Any, Callable[..., Any]]:
            result, kept = _split(forward(*tensors, **static))

            def gradient(*upstream: Tensor) -> Any:
                changes = upstream if isinstance(result, tuple) else upstream[0]
                return backward(changes, kept, *tensors, **static)

            return result, gradient

        return kernel(*tensors)

    return call


class _Tracing(threading.local):
    """What a thread traces; models are loaded while others are traced.

    Attributes:
        is_kernel: Whether it is a kernel of `fused`.
    """

    is_kernel = False


_tracing = _Tracing()


def in_kernel() -> bool:
    """Whether the function being traced is a kernel of `fused`."""
    return _tracing.is_kernel


def _noted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes `in_kernel` return True while the function is traced."""

    @functools.wraps(function)
    def call(*tensors: Tensor, **static: Any) -> Any:
        before, _tracing.is_kernel = _tracing.is_kernel, True
        try:
            return function(*tensors, **static)
        finally:
            _tracing.is_kernel = before

    return call


def _split(results: Any) -> tuple[Tensor, Any]:
    return tuple(results) if isinstance(results, (list, tuple)) else (results, None)


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets all calls in a graph share one trace of a function, gradient included; TensorFlow only.

    Other shapes, dtypes and keywords make another trace. TensorFlow inlines the calls before it
    optimizes the graph, so a step is as fast. Eager calls run op by op. For XLA the function stays
    part of the caller's trace: across a call XLA does not see that the shapes which the gradient
    uses are independent of the weights, and would compile again at every step.
    """
    if keras.config.backend() != "tensorflow":
        return function
    import tensorflow as tf

    traced = tf.function(function, autograph=False)

    def call(*tensors: Any, **static: Any) -> Any:
        if tf.executing_eagerly() or compiled_by_xla():
            return function(*tensors, **static)
        # A tf.function does not accept Keras variables.
        tensors = tf.nest.map_structure(
            lambda x: x if x is None else tf.convert_to_tensor(x), tensors
        )
        return traced(*tensors, **static)

    return call


def trace_kernels(run: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor, Tensor], Any]:
    """Traces a function that runs each kernel of a training step once; TensorFlow only.

    Its call compiles the kernels: a step on inputs of the same shape then finds them compiled. It
    is traced for any shape, as a step is.

    Args:
        run: Takes the rows and the length of the inputs, int32 [].
    """
    import tensorflow as tf

    number = tf.TensorSpec((), "int32")
    return tf.function(run, autograph=False).get_concrete_function(number, number)


def compiled_by_xla() -> bool:
    """Whether XLA compiles the graph being traced; TensorFlow only."""
    import tensorflow as tf

    # There is no public way to ask.
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    return bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps the arguments of a function alone, and computes it again for its gradient."""
    if keras.config.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.recompute_grad(function)


def fuses(layer: keras.layers.Layer, training: bool) -> bool:
    """Whether XLA kernels run between the products: not in float32 predictions and exports."""
    return training or layer.compute_dtype != "float32"


def kernel_rate(dropout: float, training: bool) -> float | Tensor:
    """Returns the dropout rate, as a tensor if it is not zero; see `fused.dropout`."""
    return ops.convert_to_tensor(dropout, "float32") if training and dropout else 0.0
