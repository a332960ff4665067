"""The optimizer step, and the loop over steps that runs inside TensorFlow."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_finetune.data.batches import no_tokens
from tf_finetune.data.tokenized import Batch
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training.optimizer import AdamW


def make_train_loop(
    model: keras.Model,
    runtime: Runtime,
    count_tokens: Callable[[Any, Any, Any], tf.Tensor] = no_tokens,
    gradient_accumulation_steps: int = 1,
) -> Callable[[Iterator[Any], tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Makes the function that trains some steps without returning to Python between them.

    It is traced once, whatever the lengths of the batches; XLA compiles a program for each length.

    Args:
        model: A compiled model whose optimizer is built.
        runtime: The one the model was made under.
        count_tokens: See `Batches`.
        gradient_accumulation_steps: Slices into which each batch is cut, to save memory; the
            gradient is that of the whole batch.

    Returns:
        A function of an iterator and int32 [] steps, which returns the mean loss of each step,
        float32 [steps], and the numbers of examples and of tokens, float32 [] each.
    """
    strategy = runtime.strategy
    step = _make_step(model, runtime.jit_compile, count_tokens, gradient_accumulation_steps)
    run = tf.function(step, jit_compile=True) if runtime.jit_compile else step

    @tf.function
    def loop(iterator: Any, num_steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        losses = tf.TensorArray(tf.float32, size=num_steps)
        examples, tokens = tf.constant(0.0), tf.constant(0.0)
        for i in tf.range(num_steps):
            results = strategy.run(run, args=next(iterator))
            loss, new_examples, new_tokens = (
                strategy.experimental_local_results(result)[0] for result in results
            )
            losses = losses.write(i, loss)
            examples += new_examples
            tokens += new_tokens
        return losses.stack(), examples, tokens

    return loop


def _make_step(
    model: keras.Model, jit_compile: bool, count_tokens: Callable[..., tf.Tensor], slices: int
) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Makes one replica's part of an optimizer step: from a batch to loss, examples and tokens."""
    variables, optimizer = model.trainable_variables, model.optimizer
    # Our AdamW takes an embedding table's gradient as `IndexedSlices`. XLA does not, as the number
    # of rows is known only at run time, nor do sums of slices and scaled losses.
    keep_rows = (
        isinstance(optimizer, AdamW)
        and optimizer.loss_scale_factor is None
        and slices == 1
        and not jit_compile
    )

    def gradients_of(features: Any, labels: Any, weights: Any, count: Any) -> tuple[list[Any], Any]:
        """Returns the gradients of the weighted sum of losses over `count`, and that quotient."""
        with tf.GradientTape() as tape:
            losses = model.loss.call(labels, model(features, training=True))
            loss = tf.reduce_sum(tf.cast(losses, tf.float32) * weights) / count
            if model.losses:
                loss += tf.add_n(model.losses) * tf.reduce_sum(weights) / count
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        gradients = [
            tf.zeros_like(variable.value) if gradient is None else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        return gradients if keep_rows else [*map(tf.convert_to_tensor, gradients)], loss

    def sum_of_slices(batch: Batch, count: Any) -> tuple[list[Any], Any]:
        """Returns the result of `gradients_of` for the whole batch, computed slice by slice."""
        parts = tf.nest.map_structure(
            lambda x: tf.reshape(x, tf.concat([[slices, -1], tf.shape(x)[1:]], 0)), batch
        )

        def add_slice(i: Any, loss: Any, *total: Any) -> tuple[Any, ...]:
            x, y, w = tf.nest.map_structure(lambda part: part[i], parts)
            new, part_loss = gradients_of(x, y, w, count)
            return i + 1, loss + part_loss, *(a + b for a, b in zip(total, new, strict=True))

        # One slice at a time: in parallel they would need the memory of the whole batch.
        _, loss, *gradients = tf.while_loop(
            lambda i, *_: i < slices,
            add_slice,
            (0, tf.constant(0.0), *(tf.zeros_like(variable.value) for variable in variables)),
            parallel_iterations=1,
        )
        return gradients, loss

    # AutoGraph would convert the sources of the model and the optimizer, which need none of it.
    @tf.autograph.experimental.do_not_convert
    def step(features: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
        # Divided by the weights of all replicas, the replicas' gradients add up to the mean's.
        total = _sum_over_replicas(tf.reduce_sum(weights))
        count = tf.where(total > 0, total, 1.0)
        if slices == 1:
            gradients, loss = gradients_of(features, labels, weights, count)
        else:
            gradients, loss = sum_of_slices((features, labels, weights), count)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # It checks only the first replica for overflow: add NaN everywhere if any has one.
            overflow = _sum_over_replicas(tf.add_n([tf.reduce_sum(g * 0) for g in gradients]))
            gradients = [gradient + overflow for gradient in gradients]
        optimizer.apply(gradients, variables)
        counts = _count_examples(weights), count_tokens(features, labels, weights)
        loss, examples, tokens = (_sum_over_replicas(value) for value in (loss, *counts))
        return loss, examples, tokens

    return step


def _sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    replicas = tf.distribute.get_replica_context()
    if replicas.num_replicas_in_sync == 1:
        return value
    return replicas.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _count_examples(weights: tf.Tensor) -> tf.Tensor:
    """Returns the number of rows with a weight, float32 [].

    Args:
        weights: float32 [batch] or [batch, length].
    """
    row = tf.reshape(weights, [tf.shape(weights)[0], -1])
    return tf.reduce_sum(tf.cast(tf.reduce_any(row > 0, axis=1), tf.float32))
