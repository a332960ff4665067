"""The training loop: one for every kind of model and every strategy."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_finetune.data.batches import Batches
from tf_finetune.errors import UserError
from tf_finetune.runs.config import LoopConfig
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.runtime.interrupt import Interruption, interruptible
from tf_finetune.training.checkpoints import Checkpoints, checkpoint_variables
from tf_finetune.training.compile_ahead import compiling_ahead
from tf_finetune.training.progress import Progress
from tf_finetune.training.state import TrainState
from tf_finetune.training.step import make_train_loop


@dataclass(frozen=True)
class Evaluation:
    """How a model is evaluated during its training.

    Attributes:
        metrics: Returns the metrics of the model with its current weights.
        metric: The name of the metric that picks the best weights.
        greater_is_better: Whether a greater value of this metric is better.
    """

    metrics: Callable[[], dict[str, Any]]
    metric: str = "loss"
    greater_is_better: bool = False


def train(
    model: keras.Model,
    batches: Batches,
    *,
    optimizer: keras.optimizers.Optimizer | None = None,
    evaluation: Evaluation | None = None,
    loop: LoopConfig = LoopConfig(),
    model_dir: ModelDir | None = None,
    runtime: Runtime | None = None,
) -> TrainState:
    """Trains a model on each batch once, and resumes where an earlier call stopped.

    Args:
        model: A compiled model. Its `loss.call(labels, outputs)` has the shape of the weights; the
            training minimises the weighted mean of the loss over all replicas.
        batches: One for each optimizer step.
        optimizer: In place of the model's own; see `build_optimizer`.
        evaluation: How the model is evaluated; None: it is not.
        loop: When to evaluate, when to save, and when to stop early. The number of steps is that of
            `batches`.
        model_dir: Gets checkpoints, the log and TensorBoard events; None: none of these, and no
            best weights.
        runtime: The one the model was made under; None: the current strategy.

    Returns:
        The progress of the training and its cost.

    Raises:
        UserError: The loss is not finite, or a checkpoint cannot be written or read.
        Interrupted: A worker got SIGINT or SIGTERM; a checkpoint was written.
    """
    training = _Training(model, batches, optimizer, evaluation, loop, model_dir, runtime)
    state = training.state
    with interruptible() as interruption, closing(training.progress), ExitStack() as stack:
        remaining: Iterator[Any] | None = None
        while not training.done:
            if remaining is None:
                started = time.perf_counter()
                remaining = iter(batches.start(training.runtime.strategy, state.step))
                stack.enter_context(training.compiling_ahead())
                training.steps(remaining, 1, started, first=True)
            else:
                training.steps(remaining, training.next_stop(), time.perf_counter())
            if evaluation and (training.done or state.step % training.eval_steps == 0):
                training.evaluate(evaluation)
            # A signal to one worker stops all: the others cannot train without it.
            stopping = training.runtime.workers.any(interruption.pending)
            if training.done or stopping or state.step % training.save_steps == 0:
                training.save()
            if stopping:
                training.stop(interruption)
    if training.keeps_best:
        training.checkpoints.restore_best()
    return state


class _Training:
    """The objects of one call of `train`, and the actions that it chooses from."""

    def __init__(
        self,
        model: keras.Model,
        batches: Batches,
        optimizer: keras.optimizers.Optimizer | None,
        evaluation: Evaluation | None,
        loop: LoopConfig,
        model_dir: ModelDir | None,
        runtime: Runtime | None,
    ) -> None:
        self.model, self.batches, self.loop = model, batches, loop
        self.runtime = runtime or Runtime()
        self.eval_steps = loop.eval_steps or batches.steps_per_epoch
        self.save_steps = loop.save_checkpoints_steps or self.eval_steps
        with self.runtime.scope():
            if optimizer is not None:
                _compile(model, optimizer)
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
        slices = loop.gradient_accumulation_steps
        self.run_steps = make_train_loop(
            model, self.runtime, batches.count_tokens, slices, batches.row_weight
        )
        self.state = TrainState()
        workers = self.runtime.workers
        self.checkpoints: Any = None
        if model_dir is not None:
            variables = checkpoint_variables(model)
            keep = loop.keep_checkpoint_max
            folder = model_dir.checkpoints
            self.checkpoints = Checkpoints(folder, variables, model.optimizer, keep, workers)
            self.state = TrainState(**self.checkpoints.restore())
        self.keeps_best = bool(self.checkpoints and evaluation and loop.load_best_model_at_end)
        logged = model_dir if workers.is_chief else None
        self.progress = Progress(
            batches.num_steps,
            batches.steps_per_epoch,
            self.state.step,
            logged,
            show=workers.is_chief,
            log_every=loop.log_steps,
        )
        if self.state.step:
            total = batches.num_steps
            self.progress.message(f"going on from step {self.state.step} of {total}")

    @property
    def done(self) -> bool:
        return self.state.stopped_early or self.state.step >= self.batches.num_steps

    def next_stop(self) -> int:
        """Returns the number of steps until the next evaluation, checkpoint or signal check."""
        step = self.state.step
        stops = [(step // n + 1) * n for n in (self.eval_steps, self.save_steps)]
        return min(self.runtime.steps_per_loop, *(s - step for s in stops), self._steps_left)

    def compiling_ahead(self) -> Any:
        # Kernels get whole batches only on one device and without slices, and exist only where XLA
        # does not compile the whole step.
        plain = self.runtime.num_replicas == self.loop.gradient_accumulation_steps == 1
        shapes = self.batches.shapes if plain and not self.runtime.jit_compile else ()
        return compiling_ahead(self.model, shapes)

    def steps(
        self, remaining: Iterator[Any], count: int, started: float, first: bool = False
    ) -> None:
        with self.batches.own_errors():
            losses, counts, measures = tf.nest.map_structure(
                lambda value: value.numpy(), self.run_steps(remaining, tf.constant(count))
            )
        seconds = time.perf_counter() - started
        gradient_norm = _gradient_norm(self.model.optimizer)
        self._require_finite(losses, gradient_norm)
        counts = counts._asdict()
        self.state.add(count, counts, seconds, first)
        if counts["targets"] == counts["examples"]:
            del counts["targets"]
        scalars = {
            "loss": float(losses.mean()),
            "learning_rate": _number(self.model.optimizer.learning_rate),
            **({} if gradient_norm is None else {"gradient_norm": gradient_norm}),
            **{name: float(value) for name, value in measures.items()},
            **{f"{name}_per_second": float(value) / seconds for name, value in counts.items()},
        }
        self.progress.steps(self.state.step, scalars, first)

    def evaluate(self, evaluation: Evaluation) -> None:
        metrics, state = evaluation.metrics(), self.state
        self.progress.evaluation(state.step, metrics)
        patience = self.loop.early_stopping_patience
        if state.improved(metrics[evaluation.metric], evaluation.greater_is_better):
            if self.keeps_best:
                self.checkpoints.save_best(state.step)
        elif patience and state.stale >= patience:
            state.stopped_early = True
            best = "nothing" if state.best_value is None else f"{state.best_value:.4f}"
            self.progress.message(
                f"stopped early: {evaluation.metric} has not improved on {best} of step "
                f"{state.best_step} for {state.stale} evaluations"
            )

    def save(self) -> None:
        if self.checkpoints:
            self.checkpoints.save(self.state.step, dataclasses.asdict(self.state))

    def stop(self, interruption: Interruption) -> None:
        interruption.stop(
            f"stopped after step {self.state.step} of {self.batches.num_steps}. The same command "
            f"goes on from checkpoint {self._last_checkpoint}."
        )

    @property
    def _steps_left(self) -> int:
        return self.batches.num_steps - self.state.step

    @property
    def _last_checkpoint(self) -> str:
        if not self.runtime.workers.is_chief:
            return "of worker 0"
        return (self.checkpoints.latest() if self.checkpoints else None) or "none"

    def _require_finite(self, losses: Any, gradient_norm: float | None) -> None:
        values = [("loss", number, loss) for number, loss in enumerate(losses, start=1)]
        # If the norm of the last gradient is finite, the weights are.
        if gradient_norm is not None:
            values.append(("gradient", len(losses), gradient_norm))
        for quantity, number, value in values:
            if not math.isfinite(value):
                raise UserError(
                    f"the {quantity} of step {self.state.step + number} is {value}; the last good "
                    f"checkpoint is {self._last_checkpoint}. Usual causes: a learning rate that is "
                    "too high (lower --learning_rate or raise --warmup_proportion), mixed_float16 "
                    "(use --precision=mixed_bfloat16 or float32), or labels out of range."
                )


def _gradient_norm(optimizer: keras.optimizers.Optimizer) -> float | None:
    norm = getattr(getattr(optimizer, "inner_optimizer", optimizer), "gradient_norm", None)
    return None if norm is None else _number(norm)


def _number(value: Any) -> float:
    # A variable of several replicas converts to a tensor, but not to a float.
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
