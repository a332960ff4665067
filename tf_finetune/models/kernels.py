"""How parts of a network are compiled as XLA kernels, or traced once for all their calls."""

import functools
from collections.abc import Callable
from typing import Any

import keras

Tensor = Any


def fused(
    function: Callable[..., Any], gradients: Callable[..., Any] | None = None
) -> Callable[..., Tensor]:
    """Makes a function of tensors one XLA kernel forward and one backward, in TensorFlow.

    Where XLA compiles the whole step, and with other backends, it is the same mathematics.

    Args:
        function: From tensors, and keywords that are Python values, to one tensor, or to a pair of
            which the second, tensors in any structure, is kept for `gradients`.
        gradients: From the gradient of the result, what was kept, and the arguments, to the
            gradient of each argument. None: automatic, computing `function` again instead of
            keeping its intermediate tensors.

    Returns:
        The function, giving one tensor. With `fuse=False` it is no kernel; with `training=False` it
        is one that keeps nothing. The gradient of both is TensorFlow's own.
    """

    def plain(*tensors: Tensor, **static: Any) -> Tensor:
        return _split(function(*tensors, **static))[0]

    if keras.config.backend() != "tensorflow":
        return lambda *tensors, fuse=True, training=True, **static: plain(*tensors, **static)
    import tensorflow as tf

    def automatic(upstream: Tensor, _: None, *tensors: Tensor, **static: Any) -> Any:
        real = [tensor for tensor in tensors if tensor.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(real)
            result = function(*tensors, **static)
        found = iter(tape.gradient(result, real, upstream))
        return [next(found) if tensor.dtype.is_floating else None for tensor in tensors]

    predict, forward, backward = (
        tf.function(_noted(part), jit_compile=True, autograph=False)
        for part in (plain, function, gradients or automatic)
    )

    def call(*tensors: Tensor, fuse: bool = True, training: bool = True, **static: Any) -> Tensor:
        if not fuse:
            return plain(*tensors, **static)
        tensors = tuple(map(tf.convert_to_tensor, tensors))
        if not training:
            return predict(*tensors, **static)

        @tf.custom_gradient
        def kernel(*tensors: Tensor) -> tuple[Tensor, Callable[[Tensor], Any]]:
            result, kept = _split(forward(*tensors, **static))
            return result, lambda upstream: backward(upstream, kept, *tensors, **static)

        return kernel(*tensors)

    return call


_compiles = False  # Whether XLA compiles what is traced at the moment.


def in_kernel() -> bool:
    """Whether XLA compiles what is traced at the moment."""
    return _compiles


def _noted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets `in_kernel` answer."""

    @functools.wraps(function)
    def call(*tensors: Tensor, **static: Any) -> Any:
        global _compiles
        before, _compiles = _compiles, True
        try:
            return function(*tensors, **static)
        finally:
            _compiles = before

    return call


def _split(results: Any) -> tuple[Tensor, Any]:
    return tuple(results) if isinstance(results, (list, tuple)) else (results, None)


def traced_once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Lets all calls in a graph share one trace of a function, gradient included; TensorFlow only.

    Other shapes, dtypes and keywords make another trace. TensorFlow copies it to where it is called
    before it optimizes the graph, so that a step is as fast. Called eagerly it stays op by op, and
    for XLA it is part of the caller's trace: through a call XLA does not see that the shapes which
    the gradient takes from it depend on no weight, and would compile anew at every step.
    """
    if keras.config.backend() != "tensorflow":
        return function
    import tensorflow as tf

    # There is no public way to ask whether XLA compiles what is traced.
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    traced = tf.function(function, autograph=False)

    def call(*tensors: Any, **static: Any) -> Tensor:
        if tf.executing_eagerly() or GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
            return function(*tensors, **static)
        # A tf.function takes no variables of Keras.
        return traced(*tf.nest.map_structure(tf.convert_to_tensor, tensors), **static)

    return call
