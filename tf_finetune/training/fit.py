"""A training from its batches to its results."""

import math

import keras

from tf_finetune.data.batches import Batches
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig, LoopConfig
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training.loop import Evaluation, train
from tf_finetune.training.state import TrainState


def check_batch_size(data: DataConfig, loop: LoopConfig, runtime: Runtime, streamed: bool) -> None:
    """Checks that replicas and slices can share a batch of rows equally, where they must.

    Args:
        data: Sets the rows of a batch.
        loop: Sets the number of slices.
        runtime: Sets the number of replicas.
        streamed: Whether rows are streamed; if not, replicas without slices may share unequally.

    Raises:
        UserError: They cannot.
    """
    slices, replicas = loop.gradient_accumulation_steps, runtime.num_replicas
    if (streamed or slices > 1) and data.train_batch_size % (replicas * slices):
        raise UserError(
            f"--train_batch_size={data.train_batch_size} cannot be cut into {replicas} replicas of "
            f"{slices} slices each. Give a multiple of {replicas * slices}."
        )


def fit(
    model: keras.Model,
    batches: Batches,
    *,
    optimizer: keras.optimizers.Optimizer,
    evaluation: Evaluation | None,
    loop: LoopConfig,
    model_dir: ModelDir | None,
    runtime: Runtime,
) -> TrainState:
    """Trains a model, and writes and prints its time and speed; see `train`."""
    state = train(
        model,
        batches,
        optimizer=optimizer,
        evaluation=evaluation,
        loop=loop,
        model_dir=model_dir,
        runtime=runtime,
    )
    summary = {**state.summary(batches.steps_per_epoch), **_size(model)}
    if model_dir and runtime.workers.is_chief:
        model_dir.save_metrics({"train": summary})
    print(
        f"trained {state.step} steps in {state.seconds:.1f} s: "
        f"{summary['examples_per_second']:.1f} examples/s over all, "
        f"{summary['steady_examples_per_second']:.1f} after the first step"
    )
    return state


def _size(model: keras.Model) -> dict[str, int]:
    """Returns the number of weights of a model, and of those that were trained."""
    every, trained = (
        sum(math.prod(weight.shape) for weight in weights)
        for weights in (model.weights, model.trainable_weights)
    )
    return {"weights": every, "trained_weights": trained}
