"""Preferences as token ids: pairs of a better and a worse answer, which stay together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.data.conversations import Preference
from tf_finetune.data.tokenized import Batch, PackedTexts, TokenizedRows, packed_cached
from tf_finetune.errors import UserError
from tf_finetune.generation.collate import IDS, TARGETS, DialogueCollate
from tf_finetune.generation.tokenize import (
    CHUNK,
    DialogueFormat,
    TokenizedDialogues,
    count_answer_bytes,
    example_key,
    ragged,
    without_rest,
)
from tf_finetune.runs.paths import expand_path
from tf_finetune.text.answers import Row, truncate_pair
from tf_finetune.text.answers import tokenize as to_rows

# The columns of pairs beside `IDS` and `TARGETS`, in which the chosen answer's tokens stand before
# the rejected one's: the tokens of each, int32 [n, 2]; and the log-probability of each before the
# training, float32 [n, 2], see `reference.py`.
SIZES, REFERENCE = "sizes", "reference"


@dataclass(frozen=True)
class PairCollate:
    """Makes the features, labels and weights of preferences; see `Collate`.

    A pair is one row of a batch, so that slices and replicas never part it.
    """

    def __call__(self, columns: Mapping[str, Any], real: tf.Tensor, length: tf.Tensor) -> Batch:
        """Returns int32 [batch, 2, length] features, float32 [batch, 2] labels, [batch] weights.

        The labels are the log-probabilities before the training, zeros while they are not known.
        """
        sizes = tf.reshape(columns[SIZES], [-1])
        answers = {
            name: tf.RaggedTensor.from_row_lengths(columns[name].values, sizes)
            for name in (IDS, TARGETS)
        }
        features, _, _ = DialogueCollate()(answers, tf.repeat(real, 2), length)
        pairs = {name: tf.reshape(rows, [-1, 2, length]) for name, rows in features.items()}
        labels = columns.get(REFERENCE, tf.zeros([tf.shape(real)[0], 2]))
        return pairs, labels, tf.cast(real, tf.float32)

    def count_tokens(self, features: Any, labels: Any, weights: tf.Tensor) -> tf.Tensor:
        """Returns the tokens of both answers, each with its prompt, as float32 []."""
        real = weights[:, tf.newaxis, tf.newaxis] > 0
        return tf.reduce_sum(tf.cast((features["segments"] > 0) & real, tf.float32))

    def check_training(self, columns: Mapping[str, Any]) -> None:
        """Checks that the log-probabilities before the training are there."""
        if REFERENCE not in columns:
            raise ValueError("The pairs have no reference. Add it with references_at_start.")


def tokenize_pairs(
    examples: Sequence[Preference],
    form: DialogueFormat,
    max_seq_length: int,
    cache_dir: str | None = None,
) -> TokenizedDialogues:
    """Turns preferences into token ids, once for the whole run.

    Args:
        examples: The preferences.
        form: How they become texts: the prompt with either answer, of which that is learnt.
        max_seq_length: The most tokens of a prompt with an answer. Of both the same part of the
            prompt is cut.
        cache_dir: Folder that keeps the ids for later runs on the same texts; None: no cache.

    Returns:
        The pairs; their length is that of the longer answer. One is left out if nothing of an
        answer is left within `max_seq_length`, or no difference.

    Raises:
        UserError: No pair is left, or the template refuses one.
    """

    def make() -> PackedTexts:
        pairs, full = [], []
        for start in range(0, len(examples), CHUNK):
            chunk = examples[start : start + CHUNK]
            texts = [form.example(one) for pair in chunk for one in pair.alternatives]
            rows = to_rows(form.chat.tokenizer, texts)
            for chosen, rejected in zip(rows[::2], rows[1::2], strict=True):
                pairs.append(_cut(chosen, rejected, max_seq_length))
                full.append(max(len(chosen.ids), len(rejected.ids)))
        return _packed(pairs, full, form)

    cache_dir = expand_path(cache_dir, "cache_dir") if cache_dir else None
    parts = [f"pairs {form.fingerprint}", str(max_seq_length)]
    parts += map(example_key, examples) if cache_dir else ()
    packed = packed_cached(cache_dir, parts, make)
    columns = dict(packed.features)
    numbers, answer_bytes = (columns.pop(name).numpy() for name in ("numbers", "answer_bytes"))
    if not len(numbers):
        raise UserError(
            f"None of the {len(examples):,} pairs has two different answers within "
            f"--max_seq_length={max_seq_length}. Give a greater one."
        )
    rows = TokenizedRows(
        columns, packed.lengths, packed.full_lengths, max_seq_length, PairCollate()
    )
    return TokenizedDialogues(rows, numbers, answer_bytes)


def _cut(chosen: Row, rejected: Row, max_length: int) -> tuple[Row, Row] | None:
    """Cuts a pair to a length; None: nothing to prefer is left."""
    pair = truncate_pair(chosen, rejected, max_length)
    if pair is None:
        return None
    one, other = map(without_rest, pair)
    assert one and other
    return None if (one.ids, one.answers) == (other.ids, other.answers) else (one, other)


def _packed(
    pairs: Sequence[tuple[Row, Row] | None], full: Sequence[int], form: DialogueFormat
) -> PackedTexts:
    kept = [(number, pair) for number, pair in enumerate(pairs) if pair is not None]
    sizes = np.array([[len(row.ids) - 1 for row in pair] for _, pair in kept], np.int32)
    sizes = sizes.reshape(-1, 2)
    answer_bytes = [sum(count_answer_bytes(row, form) for row in pair) for _, pair in kept]
    return PackedTexts(
        features={
            IDS: ragged([[*a.ids[:-1], *b.ids[:-1]] for _, (a, b) in kept]),
            TARGETS: ragged([[*a.targets, *b.targets] for _, (a, b) in kept]),
            SIZES: tf.constant(sizes),
            "numbers": tf.constant([number for number, _ in kept], tf.int32),
            "answer_bytes": tf.constant(answer_bytes, tf.int32),
        },
        lengths=sizes.max(axis=1),
        full_lengths=np.array(full, np.int32),
    )
