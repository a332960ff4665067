"""Training rows that stay in their files: read in blocks, shuffled, batched, never all at once.

An epoch is a random order of all blocks. Groups of them are read and their rows shuffled, so that
rows that stood together, sorted by label perhaps, end up a group or an epoch apart. The order
depends on the seed alone: each worker reads the raw rows of all and parses its own share of them,
which costs it little and needs no agreement.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.data.autotuning import without_autotuning
from tf_finetune.data.batches import (
    GROUP_BATCHES,
    NEW_LENGTH_TOKENS,
    PREFETCH_BATCHES,
    TokenizedExamples,
    choose_buckets,
    count_steps,
    gather_batch,
    longest_rows,
    plan_training,
)
from tf_finetune.data.blocks import RawRow
from tf_finetune.data.labelled import TrainStream
from tf_finetune.errors import UserError

# 16 MiB of blocks of 64 KiB: with two classes in two halves of a file, a group's shares differ from
# the file's by 3 % (one standard deviation).
GROUP_BLOCKS = 256
# Batches whose lengths are looked at in a sample, to choose lengths for all.
SAMPLE_STEPS = 10_000


@dataclass(frozen=True)
class StreamedBatches:
    """The batches of a whole training, as of `make_train_dataset`, from files of any size.

    Attributes:
        stream: The rows.
        num_columns: Texts of a row.
        sample: Some of them, tokenized: what made their ids, and how long rows are.
        batch_size: Examples per step, over all replicas.
        num_steps: Steps of the whole training.
        seed: Decides the order.
        buckets: Lengths that batches are padded to; None: chosen by the sample.
        failures: What was wrong with a row; TensorFlow passes on no more than a text of it.
    """

    stream: TrainStream
    num_columns: int
    sample: TokenizedExamples
    batch_size: int
    num_steps: int
    seed: int
    buckets: Sequence[int] | None = None
    failures: list[Exception] = field(default_factory=list)

    def cardinality(self) -> int:
        """Returns the steps of the whole training."""
        return self.num_steps

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The lengths that batches are padded to, in ascending order."""
        longest = self.sample.max_seq_length
        if self.buckets is not None:
            return tuple(self.buckets)
        steps = min(self.num_steps, SAMPLE_STEPS)
        plan = plan_training(self.sample.lengths, self.batch_size, steps, self.seed)
        rows = longest_rows(self.sample.lengths, plan)
        chosen = choose_buckets(rows, self.batch_size, longest, NEW_LENGTH_TOKENS)
        # A row that is not in the sample may be as long as is allowed.
        return (*(length for length in chosen if length < longest), longest)

    @property
    def no_labels(self) -> np.ndarray:
        """Labels of one row that does not count."""
        return np.zeros_like(np.asarray(self.sample.labels)[:1])

    @property
    def batch_shapes(self) -> list[tuple[int, int]]:
        """The shapes of the batches, for `compile_ahead`."""
        return [(self.batch_size, length) for length in self.lengths]

    @property
    def element_spec(self) -> Any:
        """The types and shapes of a batch on one device."""
        return self.batches(tf.distribute.InputContext(), 0, 1).element_spec

    def batches(
        self, context: tf.distribute.InputContext, start_step: int, num_replicas: int
    ) -> tf.data.Dataset:
        """Makes the batches of one worker's replicas, one after the other.

        Args:
            context: Which worker this is.
            start_step: Steps done before.
            num_replicas: Over all workers.

        Returns:
            Batches `(features, labels, weights)` of `batch_size / num_replicas` rows.
        """
        if self.batch_size % num_replicas:
            raise ValueError(f"{num_replicas} replicas cannot share {self.batch_size} rows.")
        rows = self.batch_size // num_replicas
        per_worker = num_replicas // context.num_input_pipelines
        preprocessor, longest = self.sample.preprocessor, self.sample.max_seq_length
        bucket_of = np.array(
            [min(b for b in self.lengths if b >= length) for length in range(longest + 1)], np.int32
        )

        def own_windows() -> Iterator[tuple[Any, ...]]:
            worker, workers = context.input_pipeline_id, context.num_input_pipelines
            try:
                yield from self.windows(worker, workers, start_step)
            except (UserError, OSError) as error:
                self.failures.append(error)
                raise

        # AutoGraph would spend most of a second on sources that need none of it.
        @tf.autograph.experimental.do_not_convert
        def window_batches(
            texts: Any, values: Any, real: Any, steps: Any, order: Any
        ) -> tf.data.Dataset:
            tokens = preprocessor.tokenize(tf.unstack(texts))
            packed = preprocessor.pack(tokens, longest)
            lengths = tf.minimum(preprocessor.packed_lengths(tokens), longest)
            # Rows of similar length share a step; the steps are in any order.
            by_length = tf.argsort(-lengths[:real], stable=True)
            missing = steps * per_worker * rows - real
            plan = tf.concat([by_length, tf.fill([missing], -1)], axis=0)
            plan = tf.gather(tf.reshape(plan, (-1, per_worker * rows)), order)
            padded = tf.gather(bucket_of, lengths)
            return tf.data.Dataset.from_tensor_slices(tf.reshape(plan, (-1, rows))).map(
                lambda planned: gather_batch(preprocessor, packed, values, padded, planned)
            )

        dataset = tf.data.Dataset.from_generator(
            own_windows,
            output_signature=(
                tf.TensorSpec((self.num_columns, None), tf.string),
                tf.TensorSpec((None, *self.no_labels.shape[1:]), self.no_labels.dtype),
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
        """Yields a worker's rows of some steps: texts, labels, their number, steps, and order."""
        size = GROUP_BATCHES * self.batch_size
        epoch, skipped = 0, start_step
        if start_step:
            epoch, skipped = divmod(start_step, count_steps(self.stream.num_rows, self.batch_size))
        while True:
            for number, rows in enumerate(self._raw_windows(epoch, size)):
                steps = count_steps(len(rows), self.batch_size)
                if skipped >= steps:
                    skipped -= steps
                    continue
                order = np.random.default_rng((self.seed, epoch, number)).permutation(steps)
                share = self.stream.read(rows[worker::workers])
                # With nothing to do, a row that only fills batches up.
                texts = share.texts if share else [[""]] * self.num_columns
                labels = share.labels if share else self.no_labels
                real = len(share) if share else 0
                yield np.array(texts, object), labels, real, steps, order[skipped:].astype(np.int32)
                skipped = 0
            epoch += 1

    def _raw_windows(self, epoch: int, size: int) -> Iterator[list[RawRow]]:
        """Yields the rows of an epoch in their order, `size` at a time."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(len(self.stream.blocks))
        waiting: list[RawRow] = []
        for start in range(0, len(order), GROUP_BLOCKS):
            # In the files' order, in which they are read fastest.
            group = sorted(order[start : start + GROUP_BLOCKS])
            rows = [row for number in group for row in self.stream.rows_of(number)]
            waiting += [rows[place] for place in random.permutation(len(rows))]
            while len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]
        if waiting:
            yield waiting


@contextmanager
def plain_errors(dataset: tf.data.Dataset | StreamedBatches) -> Iterator[None]:
    """Within the block an error in a streamed row is raised as it was, not as TensorFlow's."""
    try:
        yield
    except tf.errors.OpError:
        if isinstance(dataset, StreamedBatches) and dataset.failures:
            raise dataset.failures[0] from None
        raise
