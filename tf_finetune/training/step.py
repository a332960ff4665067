"""The optimizer step, and the loop over steps that runs inside TensorFlow."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_finetune.data.batches import no_tokens
from tf_finetune.data.tokenized import Batch
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training.optimizer import AdamW


class Counts(NamedTuple):
    """What was trained on, float32 [] each.

    Attributes:
        examples: Rows with a weight; the weights' sum, where rows share the weight of an example.
        targets: Weights above zero: the examples, their pieces, or the tokens that are learnt.
        tokens: See `Batches.count_tokens`.
    """

    examples: Any
    targets: Any
    tokens: Any


class Trained(NamedTuple):
    """The result of some steps.

    Attributes:
        losses: The mean loss of each step, float32 [steps].
        counts: The sums over all steps.
        measures: The weighted mean of each measure of the loss over all steps, float32 [] each.
    """

    losses: Any
    counts: Counts
    measures: Mapping[str, Any]


def make_train_loop(
    model: keras.Model,
    runtime: Runtime,
    count_tokens: Callable[[Any, Any, Any], tf.Tensor] = no_tokens,
    gradient_accumulation_steps: int = 1,
    row_weight: float | None = None,
) -> Callable[[Iterator[Any], tf.Tensor], Trained]:
    """Makes the function that trains some steps without returning to Python between them.

    It is traced once, whatever the lengths of the batches; XLA compiles a program for each length.

    Args:
        model: A compiled model whose optimizer is built. Its loss may have
            `measures`: by name, functions of labels and outputs that return tensors in the shape
            of the weights.
        runtime: The one the model was made under.
        count_tokens: See `Batches`.
        gradient_accumulation_steps: Slices into which each batch is cut, to save memory; the
            gradient is that of the whole batch.
        row_weight: See `Batches`.

    Returns:
        A function of an iterator and int32 [] steps.
    """
    strategy = runtime.strategy
    names = list(getattr(model.loss, "measures", {}))
    slices, jit_compile = gradient_accumulation_steps, runtime.jit_compile
    step = _make_step(model, jit_compile, count_tokens, slices, row_weight)
    run = tf.function(step, jit_compile=True) if jit_compile else step

    @tf.function
    def loop(iterator: Any, num_steps: tf.Tensor) -> Trained:
        losses = tf.TensorArray(tf.float32, size=num_steps)
        sums = tf.nest.map_structure(
            lambda _: tf.constant(0.0), (Counts(0, 0, 0), dict.fromkeys(names, 0))
        )
        for i in tf.range(num_steps):
            results = tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0],
                strategy.run(run, args=next(iterator)),
            )
            losses = losses.write(i, results[0])
            sums = tf.nest.map_structure(tf.add, sums, results[1:])
        counts, measures = sums
        steps = tf.cast(num_steps, tf.float32)
        return Trained(losses.stack(), counts, {name: measures[name] / steps for name in names})

    return loop


def _make_step(
    model: keras.Model,
    jit_compile: bool,
    count_tokens: Callable[..., tf.Tensor],
    slices: int,
    row_weight: float | None,
) -> Callable[..., tuple[tf.Tensor, Counts, dict[str, tf.Tensor]]]:
    """Makes one replica's part of an optimizer step: from a batch to loss, counts and measures."""
    variables, optimizer = model.trainable_variables, model.optimizer
    measures = dict(getattr(model.loss, "measures", {}))
    adamw = getattr(optimizer, "inner_optimizer", optimizer)
    cut = adamw.cut if isinstance(adamw, AdamW) else partial(_with_zeros, variables)
    # Our AdamW takes an embedding table's gradient as `IndexedSlices`. XLA does not, as the number
    # of rows is known only at run time, nor do sums of slices and scaled losses.
    keep_rows = (
        isinstance(optimizer, AdamW)
        and optimizer.loss_scale_factor is None
        and slices == 1
        and not jit_compile
    )

    def gradients_of(features: Any, labels: Any, weights: Any, count: Any) -> tuple[list[Any], Any]:
        """Returns the gradients of the weighted sum of losses over `count`, and the means.

        The means, float32 [1 + measures], are that quotient and the same of each measure.
        """
        with tf.GradientTape() as tape:
            outputs = model(features, training=True)
            losses = model.loss.call(labels, outputs)
            loss = tf.reduce_sum(tf.cast(losses, tf.float32) * weights) / count
            if model.losses:
                loss += tf.add_n(model.losses) * tf.reduce_sum(weights) / count
            scaled = optimizer.scale_loss(loss)
        gradients = cut(tape.gradient(scaled, [variable.value for variable in variables]))
        means = [loss]
        for measure in measures.values():
            means.append(tf.reduce_sum(measure(labels, outputs) * weights) / count)
        gradients = gradients if keep_rows else [*map(tf.convert_to_tensor, gradients)]
        return gradients, tf.stack(means)

    def sum_of_slices(batch: Batch, count: Any) -> tuple[list[Any], Any]:
        """Returns the result of `gradients_of` for the whole batch, computed slice by slice."""
        parts = tf.nest.map_structure(
            lambda x: tf.reshape(x, tf.concat([[slices, -1], tf.shape(x)[1:]], 0)), batch
        )

        def add_slice(i: Any, means: Any, *total: Any) -> tuple[Any, ...]:
            x, y, w = tf.nest.map_structure(lambda part: part[i], parts)
            new, new_means = gradients_of(x, y, w, count)
            return i + 1, means + new_means, *(a + b for a, b in zip(total, new, strict=True))

        # One slice at a time: in parallel they would need the memory of the whole batch.
        zeros = map(tf.convert_to_tensor, cut([None] * len(variables)))
        _, means, *gradients = tf.while_loop(
            lambda i, *_: i < slices,
            add_slice,
            (0, tf.zeros(1 + len(measures)), *zeros),
            parallel_iterations=1,
        )
        return gradients, means

    # AutoGraph would convert the sources of the model and the optimizer, which need none of it.
    @tf.autograph.experimental.do_not_convert
    def step(features: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
        rows = tf.reshape(weights > 0, [tf.shape(weights)[0], -1])
        examples = tf.reduce_sum(tf.cast(tf.reduce_any(rows, axis=1), tf.float32))
        # Divided by the weights of all replicas, the replicas' gradients add up to the mean's.
        own = tf.reduce_sum(weights)
        total = _sum_over_replicas(own if row_weight is None else examples * row_weight)
        count = tf.where(total > 0, total, 1.0)
        if slices == 1:
            gradients, means = gradients_of(features, labels, weights, count)
        else:
            gradients, means = sum_of_slices((features, labels, weights), count)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # It checks only the first replica for overflow: add NaN everywhere if any has one.
            overflow = _sum_over_replicas(tf.add_n([tf.reduce_sum(g * 0) for g in gradients]))
            gradients = [gradient + overflow for gradient in gradients]
        optimizer.apply(gradients, variables)
        counts = [
            examples if row_weight is None else own,
            tf.reduce_sum(tf.cast(rows, tf.float32)),
            count_tokens(features, labels, weights),
        ]
        loss, *values = tf.unstack(_sum_over_replicas(tf.concat([means, counts], axis=0)))
        return loss, Counts(*values[-3:]), dict(zip(measures, values[:-3], strict=True))

    return step


def _with_zeros(variables: Sequence[keras.Variable], gradients: Sequence[Any]) -> list[Any]:
    """Puts zeros in the place of gradients that are None."""
    return [
        tf.zeros(variable.shape, variable.dtype) if gradient is None else gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def _sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    replicas = tf.distribute.get_replica_context()
    if replicas.num_replicas_in_sync == 1:
        return value
    return replicas.all_reduce(tf.distribute.ReduceOp.SUM, value)
