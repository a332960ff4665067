"""Batches of rows that stay in their files: read in blocks, shuffled, never all in memory.

An epoch is a random order of all blocks. Each group of blocks is read and its rows are shuffled:
rows of one block are spread over a group and those of a file over the epoch, even if the file is
sorted by label. The order depends on the seed alone: each worker reads the raw rows of all and
parses its own share of them, which is cheap and needs no communication.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tf_finetune.data.batches import PREFETCH_BATCHES, Batches
from tf_finetune.data.blocks import RawRow
from tf_finetune.data.plan import (
    GROUP_BATCHES,
    NEW_LENGTH_TOKENS,
    bucket_table,
    choose_buckets,
    count_steps,
    longest_rows,
    plan_training,
)
from tf_finetune.data.readers import Row
from tf_finetune.data.row_stream import RowStream
from tf_finetune.data.tokenized import TokenizedRows, gather_batch, without_autotuning
from tf_finetune.errors import UserError
from tf_finetune.runs.config import LoopConfig

# Blocks per group: 16 MiB in blocks of 64 KiB. With one class in each half of a file, each class is
# 50 % of a group, with a standard deviation of 3 %.
GROUP_BLOCKS = 256
# The most batches of sampled rows from which the lengths of all batches are chosen.
SAMPLE_STEPS = 10_000


class RowTokenizer(Protocol):
    """Turns streamed rows into the columns that a `Collate` takes. Each wing has its own."""

    @property
    def signature(self) -> Mapping[str, tf.TypeSpec]:
        """The type of each array that `read` returns, for any number of rows."""

    def read(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Checks rows and returns their arrays; without rows, those of one filling row."""

    def tokenize(self, arrays: Mapping[str, Any]) -> tuple[dict[str, Any], tf.Tensor]:
        """Returns the columns of `TokenizedRows` and the rows' lengths, int32 [n], in a graph."""


@dataclass(frozen=True)
class StreamedRows:
    """The rows of a whole training in the order in which they are batched.

    Attributes:
        stream: The rows.
        tokenizer: Turns them into columns.
        sample: Some of them, tokenized; gives the lengths of rows, and `collate`.
        batch_size: Rows per step, over all replicas.
        num_steps: Steps of the whole training.
        seed: Decides the order.
        failures: The errors of rows; TensorFlow passes on their messages only.
    """

    stream: RowStream
    tokenizer: RowTokenizer
    sample: TokenizedRows
    batch_size: int
    num_steps: int
    seed: int
    failures: list[Exception] = field(default_factory=list)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The lengths that batches are padded to, in ascending order."""
        longest = self.sample.max_seq_length
        if self.sample.buckets:
            return tuple(self.sample.buckets)
        steps = min(self.num_steps, SAMPLE_STEPS)
        plan = plan_training(self.sample.lengths, self.batch_size, steps, self.seed)
        rows = longest_rows(self.sample.lengths, plan)
        chosen = choose_buckets(rows, self.batch_size, longest, NEW_LENGTH_TOKENS)
        # A row that is not in the sample may have `max_seq_length` tokens.
        return (*(length for length in chosen if length < longest), longest)

    def start(self, strategy: tf.distribute.Strategy, step: int) -> Any:
        """Returns the batches after a step, distributed over the replicas."""
        replicas = strategy.num_replicas_in_sync
        return strategy.distribute_datasets_from_function(
            lambda context: self.batches(context, step, replicas)
        )

    def batches(
        self, context: tf.distribute.InputContext, start_step: int, num_replicas: int
    ) -> tf.data.Dataset:
        """Makes the batches of one worker's replicas, one after the other.

        Args:
            context: The worker's number.
            start_step: The number of steps done.
            num_replicas: Over all workers.

        Returns:
            Batches of `batch_size / num_replicas` rows.
        """
        if self.batch_size % num_replicas:
            raise ValueError(f"{num_replicas} replicas cannot share {self.batch_size} rows.")
        rows = self.batch_size // num_replicas
        per_worker = num_replicas // context.num_input_pipelines
        collate, longest = self.sample.collate, self.sample.max_seq_length
        bucket_of = bucket_table(self.lengths, longest)

        def own_windows() -> Iterator[tuple[Any, ...]]:
            worker, workers = context.input_pipeline_id, context.num_input_pipelines
            try:
                yield from self.windows(worker, workers, start_step)
            except (UserError, OSError) as error:
                self.failures.append(error)
                raise

        # AutoGraph would only cost time: it has nothing to convert here.
        @tf.autograph.experimental.do_not_convert
        def window_batches(arrays: Any, real: Any, steps: Any, order: Any) -> tf.data.Dataset:
            columns, lengths = self.tokenizer.tokenize(arrays)
            # Rows of similar length share a step; the steps are in any order.
            by_length = tf.argsort(-lengths[:real], stable=True)
            missing = steps * per_worker * rows - real
            plan = tf.concat([by_length, tf.fill([missing], -1)], axis=0)
            plan = tf.gather(tf.reshape(plan, (-1, per_worker * rows)), order)
            padded = tf.gather(bucket_of, lengths)
            return tf.data.Dataset.from_tensor_slices(tf.reshape(plan, (-1, rows))).map(
                lambda planned: gather_batch(columns, collate, planned, padded)
            )

        dataset = tf.data.Dataset.from_generator(
            own_windows,
            output_signature=(
                dict(self.tokenizer.signature),
                tf.TensorSpec((), tf.int32),
                tf.TensorSpec((), tf.int32),
                tf.TensorSpec((None,), tf.int32),
            ),
        )
        # The next window is read while one is trained on.
        dataset = dataset.prefetch(1).flat_map(window_batches).prefetch(PREFETCH_BATCHES)
        count = (self.num_steps - start_step) * per_worker
        dataset = dataset.take(count).apply(tf.data.experimental.assert_cardinality(count))
        return without_autotuning(dataset)

    def windows(self, worker: int, workers: int, start_step: int) -> Iterator[tuple[Any, ...]]:
        """Yields a worker's windows: arrays, numbers of rows and of steps, order of the steps."""
        size = GROUP_BATCHES * self.batch_size
        epoch, skipped = 0, start_step
        if start_step:
            epoch, skipped = divmod(start_step, count_steps(self.stream.num_rows, self.batch_size))
        while True:
            for number, window in enumerate(self._raw_windows(epoch, size)):
                steps = count_steps(len(window), self.batch_size)
                if skipped >= steps:
                    skipped -= steps
                    continue
                order = np.random.default_rng((self.seed, epoch, number)).permutation(steps)
                rows = self.stream.rows(window[worker::workers])
                arrays = dict(self.tokenizer.read(rows))
                yield arrays, len(rows), steps, order[skipped:].astype(np.int32)
                skipped = 0
            epoch += 1

    def _raw_windows(self, epoch: int, size: int) -> Iterator[list[RawRow]]:
        """Yields the rows of an epoch in their order, `size` at a time."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(len(self.stream.blocks))
        waiting: list[RawRow] = []
        for start in range(0, len(order), GROUP_BLOCKS):
            # Blocks are read fastest in the order of their files.
            group = sorted(order[start : start + GROUP_BLOCKS])
            rows = [row for number in group for row in self.stream.raw_rows(number)]
            waiting += [rows[index] for index in random.permutation(len(rows))]
            while len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]
        if waiting:
            yield waiting


def stream_batches(
    stream: RowStream,
    tokenizer: RowTokenizer,
    sample: TokenizedRows,
    batch_size: int,
    loop: LoopConfig,
    seed: int,
) -> Batches:
    """Plans the batches of a whole training over files of any size.

    Args:
        stream: The rows.
        tokenizer: Turns them into columns.
        sample: Some of them, tokenized.
        batch_size: Rows per step, over all replicas.
        loop: Sets the number of epochs or steps.
        seed: Decides the order.
    """
    num_rows = stream.rows_for(loop.max_steps)
    steps = loop.max_steps or count_steps(num_rows, batch_size, loop.num_train_epochs)
    rows = StreamedRows(stream, tokenizer, sample, batch_size, steps, seed)
    return Batches(
        num_steps=steps,
        steps_per_epoch=count_steps(num_rows, batch_size),
        start=rows.start,
        count_tokens=sample.collate.count_tokens,
        shapes=[(batch_size, length) for length in rows.lengths],
        failures=rows.failures,
    )
