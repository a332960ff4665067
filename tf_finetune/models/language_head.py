"""The head of a language model: the log-probability of each target, without all logits at once."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tf_finetune.models.kernels import fused, trace_kernels

Tensor = Any

# Rows of logits at a time: for 49,152 tokens 12 MiB in bfloat16.
CHUNK = 128


class AnswerHead(keras.layers.Layer):
    """Log-probabilities of targets, from a decoder's output.

    The logits are computed where there is a target alone, a few rows at a time, so that no tensor
    of [batch, length, vocabulary] ever exists.

    Args:
        decoder: Its `head_kernel` is used.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, decoder: Any, **kwargs: Any) -> None:
        super().__init__(**{"dtype": decoder.dtype_policy, "name": "head", **kwargs})
        self.decoder = decoder

    def call(self, hidden: Tensor, targets: Tensor, training: bool = False) -> Tensor:
        """Returns the log-probability of each target, and whether it has the greatest.

        Args:
            hidden: [batch, length, hidden].
            targets: int32 [batch, length], -1 where there is none.
            training: Whether a gradient is asked for.

        Returns:
            float32 [batch, length, 2]; zeros where there is no target.
        """
        kernel = self.decoder.head_kernel
        rows = ops.reshape(hidden, (-1, hidden.shape[-1]))
        result = target_log_probs(
            rows,
            ops.cast(kernel, rows.dtype),
            ops.reshape(targets, (-1,)),
            learns=training and kernel.trainable,
            needs_gradient=training,
            fuse=training or self.compute_dtype != "float32",
        )
        return ops.reshape(result, (*ops.shape(targets), 2))

    def kernels(self) -> Callable[[Tensor, Tensor], Any]:
        """Returns a function that runs each kernel of a training step once; see `trace_kernels`."""

        def run(rows: Tensor, length: Tensor) -> Tensor:
            width = self.decoder.config.hidden_size
            hidden = tf.zeros((rows, length, width), self.compute_dtype)
            # One target makes one chunk.
            targets = tf.where(tf.range(rows * length) == 0, 0, -1)
            with tf.GradientTape() as tape:
                tape.watch(hidden)
                found = self(hidden, tf.reshape(targets, (rows, length)), training=True)
            return tape.gradient(found, hidden)

        return trace_kernels(run)

    def compute_output_spec(
        self, hidden: keras.KerasTensor, targets: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        """Returns the output's shape and dtype."""
        return keras.KerasTensor((*targets.shape, 2), "float32")


def target_log_probs(
    hidden: Tensor,
    kernel: Tensor,
    targets: Tensor,
    *,
    learns: bool,
    needs_gradient: bool,
    fuse: bool,
) -> Tensor:
    """Returns the log-probability of each target and whether it is the greatest, float32 [n, 2].

    Args:
        hidden: [n, hidden].
        kernel: [vocabulary, hidden].
        targets: int32 [n], -1 where there is none.
        learns: Whether the kernel gets a gradient.
        needs_gradient: Whether there is any gradient.
        fuse: Whether the softmax runs as an XLA kernel.
    """
    count = tf.reduce_sum(tf.cast(targets >= 0, tf.int32))
    # Rows with a target first; a chunk that they do not fill ends in rows without one.
    order = tf.argsort(tf.cast(targets < 0, tf.int32), stable=True)
    order = tf.concat([order, tf.zeros((CHUNK,), tf.int32)], axis=0)
    chunks = (count + CHUNK - 1) // CHUNK
    size = tf.size(targets)

    def chunk(number: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns a chunk's places, hidden rows and targets."""
        start = number * CHUNK
        places = tf.slice(order, [start], [CHUNK])
        filling = start + tf.range(CHUNK) >= count
        return (
            tf.where(filling, size, places),
            tf.gather(hidden, places),
            tf.where(filling, -1, tf.gather(targets, places)),
        )

    def loop(body: Callable[..., Any], *initial: Tensor) -> Any:
        """Calls `body` with the number of each chunk and the values so far."""
        return tf.while_loop(
            lambda number, *_: number < chunks,
            lambda number, *values: (number + 1, *body(number, *values)),
            (0, *initial),
            parallel_iterations=1,
        )[1:]

    def put(total: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        return tf.tensor_scatter_nd_update(total, places[:, None], rows)

    @tf.custom_gradient
    def log_probs(hidden: Tensor, kernel: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        results = tf.zeros((size + 1, 2))
        # With a kernel that learns nothing the whole gradient is known now, up to a factor a row.
        now = needs_gradient and not learns
        by_hidden = tf.zeros((size + 1 if now else 1, hidden.shape[-1]), hidden.dtype)

        def forward(number: Tensor, results: Tensor, by_hidden: Tensor) -> tuple[Tensor, Tensor]:
            places, rows, wanted = chunk(number, hidden)
            logits = tf.matmul(rows, kernel, transpose_b=True)
            found, change = fused_log_softmax(
                logits, wanted, tf.ones((CHUNK,)), gradient=now, fuse=fuse, training=False
            )
            if now:
                by_hidden = put(by_hidden, places, tf.matmul(change, kernel))
            return put(results, places, found), by_hidden

        results, by_hidden = loop(forward, results, by_hidden)

        def gradients(upstream: Tensor) -> tuple[Tensor, Tensor | None]:
            factors = upstream[:, 0]
            if now:
                return by_hidden[:-1] * tf.cast(factors, hidden.dtype)[:, None], None

            def backward(number: Tensor, by_hidden: Tensor, by_kernel: Tensor) -> Any:
                places, rows, wanted = chunk(number, hidden)
                logits = tf.matmul(rows, kernel, transpose_b=True)
                weights = tf.gather(factors, tf.minimum(places, size - 1))
                _, change = fused_log_softmax(
                    logits, wanted, weights, gradient=True, fuse=fuse, training=False
                )
                by_kernel += tf.cast(tf.matmul(change, rows, transpose_a=True), tf.float32)
                return put(by_hidden, places, tf.matmul(change, kernel)), by_kernel

            zeros = tf.zeros((size + 1, hidden.shape[-1]), hidden.dtype)
            by_hidden_, by_kernel = loop(backward, zeros, tf.zeros(kernel.shape))
            return by_hidden_[:-1], tf.cast(by_kernel, kernel.dtype)

        return results[:-1], gradients

    return log_probs(hidden, kernel)


def log_softmax(
    logits: Tensor, targets: Tensor, factors: Tensor, *, gradient: bool
) -> tuple[tuple[Tensor, Tensor], tuple[()]]:
    """Returns the log-probabilities of targets, and their gradient by the logits.

    Args:
        logits: [rows, vocabulary].
        targets: int32 [rows], -1 where there is none.
        factors: float32 [rows], the upstream gradient.
        gradient: Whether to compute the gradient.

    Returns:
        float32 [rows, 2], log-probability and whether it is the greatest, zeros without a target;
        and the gradient, in the shape and dtype of `logits`, or an empty tensor.
    """
    x = ops.cast(logits, "float32")
    real = targets >= 0
    hot = ops.arange(x.shape[-1])[None] == targets[:, None]
    greatest = ops.max(x, axis=-1)
    exponentials = ops.exp(x - greatest[:, None])
    total = ops.sum(exponentials, axis=-1)
    wanted = ops.sum(ops.where(hot, x, 0.0), axis=-1)
    found = ops.stack(
        [wanted - greatest - ops.log(total), ops.cast(wanted >= greatest, "float32")], axis=-1
    )
    found = ops.where(real[:, None], found, 0.0)
    change = ops.zeros((0,), logits.dtype)
    if gradient:
        factors = ops.where(real, factors, 0.0)
        change = ops.cast(hot, "float32") - exponentials / total[:, None]
        change = ops.cast(change * factors[:, None], logits.dtype)
    return (found, change), ()


fused_log_softmax = fused(log_softmax)
