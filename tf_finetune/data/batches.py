"""Token ids to batches: tokenize once, group by length, pad to a bucket, mask.

Everything about the order of examples is a numpy table of row numbers that depends on the seed
alone: a training can go on at any step of it, and no worker needs to ask another.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.data.autotuning import without_autotuning
from tf_finetune.data.labelled import Examples
from tf_finetune.errors import UserError
from tf_finetune.text.preprocessor import TextPreprocessor

TOKENIZE_BATCH = 512
# Batches are sorted by length within this many batches, as in Hugging Face's LengthGroupedSampler:
# enough rows to find neighbours of equal length, few enough to keep the order random.
GROUP_BATCHES = 50
# What a further length costs, in tokens: the kernels between the products are compiled for each
# (models/fused.py). For a training they take 0.7 s on 2 cores, in which 6 layers of 384 train 3,000
# tokens; BERT-base trains 450, so that it pays for this price with some seconds of padding, once.
# For an evaluation they take 0.3 s, or 6,500 tokens, but its padding is paid again at each one.
NEW_LENGTH_TOKENS = 3072
EVAL_NEW_LENGTH_TOKENS = 2048
# A batch of ids is small and quickly made; some lie ready while the host does something else.
PREFETCH_BATCHES = 8


@dataclass(frozen=True)
class TokenizedExamples:
    """Examples as packed token ids, ready to be gathered into batches.

    Attributes:
        preprocessor: What made the ids, and pads them.
        packed: Feature name to int32 [n, (length)] (or string [n] for encoders that read text).
        labels: int32 [n], float32 [n] or float32 [n, num_labels]; None if unlabelled.
        lengths: int32 [n], tokens of each row after truncation.
        full_lengths: int32 [n], tokens of each row before truncation.
        max_seq_length: The length that rows were truncated to.
    """

    preprocessor: TextPreprocessor
    packed: dict[str, tf.Tensor | tf.RaggedTensor]
    labels: np.ndarray | None
    lengths: np.ndarray
    full_lengths: np.ndarray
    max_seq_length: int

    def __len__(self) -> int:
        return len(self.lengths)


def tokenize(
    examples: Examples, preprocessor: TextPreprocessor, max_seq_length: int
) -> TokenizedExamples:
    """Turns texts into packed token ids, once for the whole run.

    Args:
        examples: Texts, and labels if there are any.
        preprocessor: The encoder's.
        max_seq_length: Longest row in tokens, special tokens included.

    Returns:
        The token ids, kept in memory (4 bytes a token and feature).

    Raises:
        UserError: No examples, or a `max_seq_length` that is too small or too large.
    """

    # AutoGraph would spend most of a second on sources that need none of it.
    @tf.autograph.experimental.do_not_convert
    def pack(*segments: tf.Tensor) -> tuple[dict[str, tf.RaggedTensor], tf.Tensor]:
        tokens = preprocessor.tokenize(segments)
        return preprocessor.pack(tokens, max_seq_length), preprocessor.packed_lengths(tokens)

    if not len(examples):
        raise UserError("There are no examples.")
    # Outside of a graph, where TensorFlow would wrap the error if max_seq_length is too small.
    pack(*(tf.constant([""]) for _ in examples.texts))
    texts = tuple(tf.constant(list(column), tf.string) for column in examples.texts)
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(TOKENIZE_BATCH)
    dataset = without_autotuning(dataset.map(pack, num_parallel_calls=os.cpu_count()))
    batches, full_lengths = zip(*dataset, strict=True)
    packed = {name: tf.concat([batch[name] for batch in batches], axis=0) for name in batches[0]}
    full = np.concatenate([lengths.numpy() for lengths in full_lengths])
    ragged = [value for value in packed.values() if isinstance(value, tf.RaggedTensor)]
    lengths = np.minimum(full, max_seq_length)
    if ragged:
        lengths = ragged[0].row_lengths().numpy().astype(np.int32)
    return TokenizedExamples(preprocessor, packed, examples.labels, lengths, full, max_seq_length)


def make_train_dataset(
    examples: TokenizedExamples,
    batch_size: int = 32,
    *,
    num_epochs: float = 1.0,
    max_steps: int | None = None,
    seed: int = 42,
    buckets: Sequence[int] | None = None,
) -> tf.data.Dataset:
    """Makes the batches of a whole training, one for each optimizer step.

    Each epoch sees every example once, in a new order; rows of similar length share a batch.

    Args:
        examples: Tokenized, labelled examples.
        batch_size: Examples per step, over all replicas.
        num_epochs: Passes over the examples; may be a fraction.
        max_steps: Number of steps, in place of `num_epochs`.
        seed: Decides the order.
        buckets: Lengths that batches are padded to; default: those of `choose_buckets`.

    Returns:
        Batches `(features, labels, weights)` with int32 [batch, length] features and float32
        [batch] weights; the last batch of an epoch is filled up with rows of weight 0.
    """
    steps = max_steps or count_steps(len(examples), batch_size, num_epochs)
    plan = plan_training(examples.lengths, batch_size, steps, seed)
    if buckets is None:
        longest = longest_rows(examples.lengths, plan)
        buckets = choose_buckets(longest, batch_size, examples.max_seq_length, NEW_LENGTH_TOKENS)
    return _assemble(examples, plan, buckets)


def make_eval_dataset(
    examples: TokenizedExamples, batch_size: int = 64, *, buckets: Sequence[int] | None = None
) -> tf.data.Dataset:
    """Makes batches that hold each example exactly once, shortest first.

    Args:
        examples: Tokenized examples; unlabelled ones get labels of zero.
        batch_size: Examples per batch, over all replicas.
        buckets: Lengths that batches are padded to; default: those of `choose_buckets`.

    Returns:
        Batches as of `make_train_dataset`, in the order that `eval_order` gives.
    """
    batch_size = min(batch_size, len(examples))
    plan = _split(eval_order(examples.lengths), batch_size)
    if buckets is None:
        longest = longest_rows(examples.lengths, plan)
        buckets = choose_buckets(
            longest, batch_size, examples.max_seq_length, EVAL_NEW_LENGTH_TOKENS
        )
    return _assemble(examples, plan, buckets)


def eval_order(lengths: np.ndarray) -> np.ndarray:
    """Returns the rows in the order of `make_eval_dataset`: int [n], shortest first."""
    return np.argsort(lengths, kind="stable")


def count_steps(num_examples: int, batch_size: int, num_epochs: float = 1.0) -> int:
    """Returns the optimizer steps of `num_epochs` passes, part batches and part epochs counted."""
    return int(np.ceil(num_epochs * -(-num_examples // batch_size)))


def plan_training(lengths: np.ndarray, batch_size: int, num_steps: int, seed: int) -> np.ndarray:
    """Chooses the rows of every batch of a training.

    Args:
        lengths: int [n], the length of each row.
        batch_size: Rows per batch.
        num_steps: Batches.
        seed: Decides the order; epoch e uses the generator seeded with (seed, e).

    Returns:
        int32 [num_steps, batch_size] row numbers, -1 where a batch is filled up.
    """
    epochs: list[np.ndarray] = []
    planned = 0
    while planned < num_steps:
        random = np.random.default_rng((seed, len(epochs)))
        rows = random.permutation(len(lengths))
        size = GROUP_BATCHES * batch_size
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        ordered = [group[np.argsort(-lengths[group], kind="stable")] for group in groups]
        batches = _split(np.concatenate(ordered), batch_size)
        epochs.append(random.permutation(batches))
        planned += len(batches)
    return np.concatenate(epochs)[:num_steps]


def choose_buckets(
    longest: np.ndarray, batch_size: int, max_seq_length: int, new_length_tokens: int
) -> tuple[int, ...]:
    """Chooses the lengths that batches are padded to, at the least cost.

    Padding costs its tokens, and each length `new_length_tokens`: many batches of nearly the same
    length deserve a length of their own, a few long ones share one.

    Args:
        longest: int [batches], the tokens of the longest row of each batch.
        batch_size: Rows per batch.
        max_seq_length: No length is longer.
        new_length_tokens: The price of a length, in tokens.

    Returns:
        Multiples of 4 or `max_seq_length`, in ascending order.
    """
    rounded = np.minimum(-(-longest // 4) * 4, max_seq_length)
    lengths, counts = np.unique(rounded, return_counts=True)
    batches = np.concatenate([[0], np.cumsum(counts)])
    # The least cost of the batches up to each length, if it is chosen, and the choice before it.
    costs, previous = [0], [-1]
    for number, length in enumerate(lengths):
        tokens = (batches[number + 1] - batches[: number + 1]) * length * batch_size
        totals = np.array(costs) + tokens + new_length_tokens
        previous.append(int(np.argmin(totals)))
        costs.append(int(totals.min()))
    chosen = []
    number = len(lengths)
    while number > 0:
        chosen.append(int(lengths[number - 1]))
        number = previous[number]
    return tuple(reversed(chosen))


def xla_buckets(max_seq_length: int) -> tuple[int, ...]:
    """Returns six lengths at most, for XLA, which compiles the whole step for each."""
    rounded = (max_seq_length * part // 64 * 8 for part in (1, 2, 3, 4, 6))
    return (*sorted({n for n in rounded if 8 <= n < max_seq_length}), max_seq_length)


def _split(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Cuts rows into int32 [batches, batch_size], -1 after the last row."""
    filled = np.full(-(-len(rows) // batch_size) * batch_size, -1, np.int32)
    filled[: len(rows)] = rows
    return filled.reshape(-1, batch_size)


def longest_rows(lengths: np.ndarray, plan: np.ndarray) -> np.ndarray:
    """Returns the tokens of the longest row of each batch, int [batches]."""
    return np.where(plan >= 0, lengths[plan], 0).max(axis=1)


def gather_batch(
    preprocessor: TextPreprocessor,
    packed: Mapping[str, tf.Tensor | tf.RaggedTensor],
    labels: tf.Tensor,
    padded: tf.Tensor,
    planned: tf.Tensor,
) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
    """Gathers the rows of a batch, in the graph of a dataset.

    Args:
        preprocessor: Pads them.
        packed: Of all rows; see `TokenizedExamples`.
        labels: Of all rows.
        padded: int32 [n], the length that a batch needs for each row.
        planned: int32 [batch_size], the rows; -1 where the batch is filled up.

    Returns:
        The batch, as of `make_train_dataset`.
    """
    real = planned >= 0
    # A filling row repeats a row of its batch, so that it makes the batch no longer.
    rows = tf.where(real, planned, tf.maximum(planned[0], 0))
    chosen = {name: tf.gather(value, rows) for name, value in packed.items()}
    length = tf.reduce_max(tf.gather(padded, rows))
    return preprocessor.pad(chosen, length), tf.gather(labels, rows), tf.cast(real, tf.float32)


def _assemble(
    examples: TokenizedExamples, plan: np.ndarray, buckets: Sequence[int]
) -> tf.data.Dataset:
    labels = tf.constant(
        np.zeros(len(examples), np.int32) if examples.labels is None else examples.labels
    )
    lengths = longest_rows(examples.lengths, plan)
    longest = int(lengths.max())
    if longest > max(buckets):
        raise ValueError(f"A row of {longest} tokens is longer than the buckets {buckets}.")
    # The bucket of each length, looked up by the length itself.
    bucket_of = np.array(
        [min(b for b in buckets if b >= length) for length in range(longest + 1)], np.int32
    )
    # A row that is longer than all of these is in no batch.
    padded = tf.constant(bucket_of[np.minimum(examples.lengths, longest)])

    def batch(planned: tf.Tensor) -> Any:
        return gather_batch(examples.preprocessor, examples.packed, labels, padded, planned)

    dataset = tf.data.Dataset.from_tensor_slices(plan)
    dataset = dataset.map(batch, num_parallel_calls=os.cpu_count()).prefetch(PREFETCH_BATCHES)
    dataset = without_autotuning(dataset)
    # For `compile_ahead`: the shapes of the batches, in the order of their first appearance.
    needed = dict.fromkeys(bucket_of[lengths].tolist())
    dataset.batch_shapes = [(plan.shape[1], length) for length in needed]
    return dataset
