"""The training loop: one for every model, problem and strategy."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_finetune.data.streamed_batches import StreamedBatches, plain_errors
from tf_finetune.errors import UserError
from tf_finetune.runtime.interrupt import interruptible
from tf_finetune.runtime.workers import Workers
from tf_finetune.training.checkpoints import Checkpoints, checkpoint_variables
from tf_finetune.training.compile_ahead import compiling_ahead
from tf_finetune.training.progress import Progress
from tf_finetune.training.step import make_train_loop


@dataclass
class TrainState:
    """How far a training is and what it has cost; saved with every checkpoint.

    Attributes:
        step: Optimizer steps done.
        seconds: From the first batch asked for to the last step, tracing and compiling included,
            evaluation and checkpoints left out.
        examples: Rows with a weight that were trained on, however many targets a row has.
        tokens: The same in tokens, padding left out.
        first_step_seconds: The first step of the last process: tracing and compiling.
        steady_seconds: As `seconds`, without the first loop of each process.
        steady_examples: Examples of those seconds.
        best_value: The best evaluation so far.
        best_step: The step it was at.
        stale: Evaluations since then.
        stopped_early: Whether early stopping ended the training.
    """

    step: int = 0
    seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    first_step_seconds: float = 0.0
    steady_seconds: float = 0.0
    steady_examples: int = 0
    best_value: float | None = None
    best_step: int = 0
    stale: int = 0
    stopped_early: bool = False

    def summary(self, steps_per_epoch: int) -> dict[str, Any]:
        """Returns the `train` part of metrics.json."""
        return {
            "steps": self.step,
            "epochs": self.step / steps_per_epoch,
            "seconds": self.seconds,
            "examples_per_second": self.examples / max(self.seconds, 1e-9),
            "steady_examples_per_second": self.steady_examples / max(self.steady_seconds, 1e-9),
            "tokens_per_second": self.tokens / max(self.seconds, 1e-9),
            "first_step_seconds": self.first_step_seconds,
            "best_step": self.best_step or self.step,
            "stopped_early": self.stopped_early,
        }


def train(
    model: keras.Model,
    dataset: tf.data.Dataset | StreamedBatches,
    *,
    optimizer: keras.optimizers.Optimizer | None = None,
    steps_per_epoch: int | None = None,
    evaluate: Callable[[], dict[str, Any]] | None = None,
    eval_steps: int | None = None,
    metric_for_best_model: str = "loss",
    greater_is_better: bool = False,
    load_best_model_at_end: bool = True,
    early_stopping_patience: int | None = None,
    model_dir: str | None = None,
    save_checkpoints_steps: int | None = None,
    keep_checkpoint_max: int = 2,
    gradient_accumulation_steps: int = 1,
    steps_per_loop: int = 1,
    jit_compile: bool = False,
    strategy: tf.distribute.Strategy | None = None,
) -> TrainState:
    """Trains a model on a data set, once through, and goes on where an earlier call stopped.

    Args:
        model: A compiled model; its loss is applied to each example.
        dataset: Batches `(features, labels, weights)`, one for each optimizer step, e.g. from
            `make_train_dataset`; it must be finite. A row of weight 0 does not count. Or batches
            from files of any size.
        optimizer: In place of the model's own; see `build_optimizer`.
        steps_per_epoch: Steps between evaluations unless `eval_steps` is given; default: all.
        evaluate: Returns metrics of the model as it is.
        eval_steps: Steps between evaluations.
        metric_for_best_model: The metric of `evaluate` that picks the best weights.
        greater_is_better: Whether a greater value of it is better.
        load_best_model_at_end: Keep the weights of the best evaluation, if there are any, and end
            with them; otherwise the model ends with those of the last step.
        early_stopping_patience: Evaluations without improvement before training stops.
        model_dir: Gets `checkpoints/` and TensorBoard events; None: neither, and no best weights.
        save_checkpoints_steps: Steps between checkpoints; default: after each evaluation.
        keep_checkpoint_max: Checkpoints kept beside the best one.
        gradient_accumulation_steps: Slices that each batch is worked through in, to save memory;
            the result is that of the whole batch.
        steps_per_loop: Steps between two looks of the host.
        jit_compile: Compile the step with XLA.
        strategy: The one the model was made under; default: the current one.

    Returns:
        How far the training is and what it cost.

    Raises:
        UserError: The loss is not finite, a checkpoint cannot be written or read, or the data set
            has no end.
        Interrupted: SIGINT or SIGTERM came, to any of the workers; a checkpoint is there.
    """
    strategy = strategy or tf.distribute.get_strategy()
    total_steps = int(dataset.cardinality())
    if total_steps < 0:
        raise UserError(
            "The training data set has no known end. Make it finite with take(), or say how many "
            "batches it has with dataset.apply(tf.data.experimental.assert_cardinality(n))."
        )
    steps_per_epoch = steps_per_epoch or total_steps
    eval_steps = eval_steps or steps_per_epoch
    save_steps = save_checkpoints_steps or eval_steps
    with strategy.scope():
        if optimizer is not None:
            _compile(model, optimizer)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    loop = make_train_loop(model, strategy, gradient_accumulation_steps, jit_compile)

    state = TrainState()
    workers = Workers(strategy)
    checkpoints = None
    if model_dir is not None:
        folder = tf.io.gfile.join(model_dir, "checkpoints")
        variables = checkpoint_variables(model)
        checkpoints = Checkpoints(folder, variables, model.optimizer, keep_checkpoint_max, workers)
        state = TrainState(**checkpoints.restore())
    log_dir = model_dir if workers.is_chief else None
    progress = Progress(total_steps, state.step, log_dir, show=workers.is_chief)
    if state.step:
        progress.message(f"going on from step {state.step} of {total_steps}")

    with interruptible() as interruption, closing(progress), ExitStack() as stack:
        batches: Iterator[Any] | None = None
        while state.step < total_steps and not state.stopped_early:
            started = time.perf_counter()
            first = batches is None
            if batches is None:
                batches = iter(_distribute(strategy, dataset, state.step))
                # On one device, with whole batches, whose steps XLA does not compile whole.
                if (
                    strategy.num_replicas_in_sync == gradient_accumulation_steps == 1
                    and not jit_compile
                ):
                    stack.enter_context(compiling_ahead(model, dataset))
            boundary = min(_next(state.step, eval_steps), _next(state.step, save_steps))
            count = min(
                1 if first else steps_per_loop, boundary - state.step, total_steps - state.step
            )
            with plain_errors(dataset):
                losses, examples, tokens = (
                    value.numpy() for value in loop(batches, tf.constant(count))
                )
            seconds = time.perf_counter() - started
            gradient_norm = _gradient_norm(model.optimizer)
            _require_finite(losses, gradient_norm, state.step, checkpoints)
            state.step += count
            state.seconds += seconds
            state.examples += int(examples)
            state.tokens += int(tokens)
            if first:
                state.first_step_seconds = seconds
            else:
                state.steady_seconds += seconds
                state.steady_examples += int(examples)
            progress.steps(
                state.step,
                count,
                {
                    "loss": float(losses.mean()),
                    "learning_rate": _number(model.optimizer.learning_rate),
                    **({} if gradient_norm is None else {"gradient_norm": gradient_norm}),
                    "examples_per_second": float(examples) / seconds,
                    "tokens_per_second": float(tokens) / seconds,
                },
            )
            done = state.step == total_steps
            if evaluate is not None and (done or state.step % eval_steps == 0):
                metrics = evaluate()
                progress.evaluation(state.step, metrics, state.step / steps_per_epoch)
                if _improved(state, metrics[metric_for_best_model], greater_is_better):
                    if checkpoints and load_best_model_at_end:
                        checkpoints.save_best(state.step)
                elif early_stopping_patience and state.stale >= early_stopping_patience:
                    state.stopped_early = True
                    best = state.best_value
                    progress.message(
                        f"stopped early: {metric_for_best_model} has not improved on "
                        f"{'nothing' if best is None else f'{best:.4f}'} of step "
                        f"{state.best_step} for {state.stale} evaluations"
                    )
            done = done or state.stopped_early
            # One worker's signal is everyone's: the others could not go on without it.
            stopping = workers.any(interruption.came)
            if done or stopping or state.step % save_steps == 0:
                if checkpoints:
                    checkpoints.save(state.step, dataclasses.asdict(state))
                if stopping:
                    last = checkpoints.latest() if checkpoints else None
                    interruption.stop(
                        f"stopped after step {state.step} of {total_steps}. The same command goes "
                        f"on from checkpoint {last or 'none'}."
                    )
    if checkpoints and evaluate is not None and load_best_model_at_end:
        checkpoints.restore_best()
    return state


def _distribute(
    strategy: tf.distribute.Strategy, dataset: tf.data.Dataset | StreamedBatches, step: int
) -> Any:
    if isinstance(dataset, StreamedBatches):
        replicas = strategy.num_replicas_in_sync
        return strategy.distribute_datasets_from_function(
            lambda context: dataset.batches(context, step, replicas)
        )
    return strategy.experimental_distribute_dataset(dataset.skip(step))


def _next(step: int, interval: int) -> int:
    return (step // interval + 1) * interval


def _improved(state: TrainState, value: float | None, greater_is_better: bool) -> bool:
    sign = 1 if greater_is_better else -1
    # A metric that is not defined, e.g. a correlation with a constant, is None: never better.
    if value is None or math.isnan(value):
        state.stale += 1
        return False
    if state.best_value is None or sign * value > sign * state.best_value:
        state.best_value, state.best_step, state.stale = value, state.step, 0
        return True
    state.stale += 1
    return False


def _require_finite(
    losses: Any, gradient_norm: float | None, steps_done: int, checkpoints: Checkpoints | None
) -> None:
    values = [("loss", number, loss) for number, loss in enumerate(losses, start=1)]
    # With the norm of the last gradient the weights are finite too.
    values += [("gradient", len(losses), gradient_norm)] if gradient_norm is not None else []
    for kind, number, value in values:
        if not math.isfinite(value):
            last = checkpoints.latest() if checkpoints else None
            raise UserError(
                f"the {kind} of step {steps_done + number} is {value}; the last good checkpoint is "
                f"{last or 'none'}. Usual causes: a learning rate that is too high (lower "
                "--learning_rate or raise --warmup_proportion), mixed_float16 (use "
                "--precision=mixed_bfloat16 or float32), or labels out of range."
            )


def _gradient_norm(optimizer: keras.optimizers.Optimizer) -> float | None:
    norm = getattr(getattr(optimizer, "inner_optimizer", optimizer), "gradient_norm", None)
    return None if norm is None else _number(norm)


def _number(value: Any) -> float:
    # A variable of several replicas is no number, but a tensor.
    return float(tf.convert_to_tensor(getattr(value, "value", value)))


def _compile(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Gives a model another optimizer: `fit` and `save` afterwards use that one too."""
    config = model.get_compile_config() or {}
    kept = {
        name: keras.saving.deserialize_keras_object(value)
        for name, value in config.items()
        if name not in ("optimizer", "loss")
    }
    model.compile(optimizer=optimizer, loss=model.loss, **kept)
