"""`Batches`: all batches of a training, from rows in memory or a dataset of the user's own."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.data.plan import (
    EVAL_NEW_LENGTH_TOKENS,
    NEW_LENGTH_TOKENS,
    bucket_table,
    choose_buckets,
    count_steps,
    cut_rows,
    longest_rows,
    plan_training,
)
from tf_finetune.data.tokenized import Batch, TokenizedRows, gather_batch, without_autotuning
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig, LoopConfig, RuntimeConfig

# Batches that wait for the step while the host does other work; a batch of ids is small.
PREFETCH_BATCHES = 8


def no_tokens(features: Any, labels: Any, weights: Any) -> tf.Tensor:
    """Counts no tokens: for batches of unknown features."""
    return tf.constant(0.0)


@dataclass(frozen=True)
class Batches:
    """The batches of a whole training, one for each optimizer step.

    Attributes:
        num_steps: The number of batches.
        steps_per_epoch: The number of batches that contain each row once.
        start: Takes a strategy and the number of steps done; returns the remaining batches,
            distributed over the replicas.
        count_tokens: Takes a batch; returns its tokens without padding, float32 [].
        shapes: The (rows, length) of the batches in the order of their first appearance; empty:
            not known beforehand.
        rows: The rows that they are gathered from; None: not known beforehand.
        row_weight: The mean weight of a row, where rows share the weight of an example: a step's
            losses are then divided by its rows times this, so that every example counts alike,
            whatever else is in its batch; None: by the weights of the step.
        failures: The errors of rows that were read in the background; TensorFlow passes on their
            messages only.
    """

    num_steps: int
    steps_per_epoch: int
    start: Callable[[tf.distribute.Strategy, int], Any]
    count_tokens: Callable[[Any, Any, Any], tf.Tensor] = no_tokens
    shapes: Sequence[tuple[int, int]] = ()
    rows: TokenizedRows | None = None
    row_weight: float | None = None
    failures: list[Exception] = field(default_factory=list)

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """Raises the error of a row itself where the block raises TensorFlow's copy of it."""
        try:
            yield
        except tf.errors.OpError:
            if self.failures:
                raise self.failures[0] from None
            raise


def from_dataset(dataset: tf.data.Dataset, steps_per_epoch: int | None = None) -> Batches:
    """Makes `Batches` of the user's own dataset.

    Args:
        dataset: Batches `(features, labels, weights)`, of all replicas together; it must be finite.
        steps_per_epoch: The number of batches that contain each row once; None: all.

    Raises:
        UserError: The dataset is infinite, or its number of batches is unknown.
    """
    num_steps = int(dataset.cardinality())
    if num_steps < 0:
        raise UserError(
            "The training data set has no known end. Make it finite with take(), or say how many "
            "batches it has with dataset.apply(tf.data.experimental.assert_cardinality(n))."
        )
    return Batches(num_steps, steps_per_epoch or num_steps, partial(_start, dataset))


def plan_batches(
    rows: TokenizedRows,
    batch_size: int = DataConfig.train_batch_size,
    loop: LoopConfig = LoopConfig(),
    *,
    seed: int = RuntimeConfig.seed,
) -> Batches:
    """Plans the batches of a whole training over rows in memory.

    Each epoch sees every row once, in a new order; rows of similar length share a batch.

    Args:
        rows: The training rows.
        batch_size: Rows per step, over all replicas.
        loop: Sets the number of epochs or steps.
        seed: Decides the order.

    Returns:
        The batches; the last of an epoch is filled up with rows of weight 0.
    """
    dataset, shapes = _plan(rows, batch_size, loop.num_train_epochs, loop.max_steps, seed)
    return Batches(
        num_steps=int(dataset.cardinality()),
        steps_per_epoch=count_steps(len(rows), batch_size),
        start=partial(_start, dataset),
        count_tokens=rows.collate.count_tokens,
        shapes=shapes,
        rows=rows,
        row_weight=rows.row_weight,
    )


def make_train_dataset(
    rows: TokenizedRows,
    batch_size: int = DataConfig.train_batch_size,
    *,
    num_epochs: float = 1.0,
    max_steps: int | None = None,
    seed: int = RuntimeConfig.seed,
) -> tf.data.Dataset:
    """Makes the batches of `plan_batches` as a dataset, for `keras.Model.fit`.

    Args:
        rows: The training rows.
        batch_size: Rows per step, over all replicas.
        num_epochs: Passes over the rows; may be a fraction.
        max_steps: Number of steps, in place of `num_epochs`.
        seed: Decides the order.
    """
    return _plan(rows, batch_size, num_epochs, max_steps, seed)[0]


def make_eval_dataset(
    rows: TokenizedRows,
    batch_size: int = DataConfig.eval_batch_size,
) -> tf.data.Dataset:
    """Makes batches that hold each row exactly once, in the order `TokenizedRows.order`.

    Args:
        rows: The rows.
        batch_size: Rows per batch, over all replicas.
    """
    batch_size = min(batch_size, len(rows))
    plan = cut_rows(rows.order, batch_size)
    return _assemble(rows, plan, EVAL_NEW_LENGTH_TOKENS)[0]


def _plan(
    rows: TokenizedRows,
    batch_size: int,
    num_epochs: float,
    max_steps: int | None,
    seed: int,
) -> tuple[tf.data.Dataset, list[tuple[int, int]]]:
    rows.collate.check_training(rows.columns)
    steps = max_steps or count_steps(len(rows), batch_size, num_epochs)
    plan = plan_training(rows.lengths, batch_size, steps, seed)
    return _assemble(rows, plan, NEW_LENGTH_TOKENS)


def _assemble(
    rows: TokenizedRows, plan: np.ndarray, new_length_tokens: int
) -> tuple[tf.data.Dataset, list[tuple[int, int]]]:
    """Returns the batches of a plan, and their shapes in the order of their first appearance."""
    lengths = longest_rows(rows.lengths, plan)
    buckets = rows.buckets or choose_buckets(
        lengths, plan.shape[1], rows.max_seq_length, new_length_tokens
    )
    longest = int(lengths.max())
    bucket_of = bucket_table(buckets, longest)
    # A row longer than `longest` is in no batch.
    padded = tf.constant(bucket_of[np.minimum(rows.lengths, longest)])

    def batch(planned: tf.Tensor) -> Batch:
        return gather_batch(rows.columns, rows.collate, planned, padded)

    dataset = tf.data.Dataset.from_tensor_slices(plan)
    dataset = dataset.map(batch, num_parallel_calls=os.cpu_count()).prefetch(PREFETCH_BATCHES)
    needed = dict.fromkeys(bucket_of[lengths].tolist())
    return without_autotuning(dataset), [(plan.shape[1], length) for length in needed]


def _start(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy, step: int) -> Any:
    return strategy.experimental_distribute_dataset(dataset.skip(step))
