"""Turns a classifier's examples into token ids and batches."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.data.checks import check_all_known, check_labels
from tf_finetune.data.labelled import ExampleReader, Examples
from tf_finetune.data.problem import Problem
from tf_finetune.data.readers import Row
from tf_finetune.data.tokenized import Batch, TokenizedRows, pack_texts_cached
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.runs.paths import expand_path
from tf_finetune.text.long_texts import pack_long
from tf_finetune.text.preprocessor import TextPreprocessor, TokenPreprocessor

# The columns of `TokenizedRows` that are no features. PIECE is there if texts are cut into pieces:
# int32 [n, 2], the number of each piece in its text, and of the text's pieces.
# TEACHER is there if a teacher's logits are learnt: float32 [n, num_outputs].
LABEL = "label"
PIECE = "piece"
TEACHER = "teacher"


@dataclass(frozen=True)
class ClassifierCollate:
    """Makes batches of features, labels and one weight a row; see `Collate`.

    The pieces of a text have its label, and share its weight of 1.

    Attributes:
        preprocessor: Pads the features.
    """

    preprocessor: TextPreprocessor

    def __call__(self, columns: Mapping[str, Any], real: tf.Tensor, length: tf.Tensor) -> Batch:
        """Returns int32 [batch, length] features, the labels, and float32 [batch] weights.

        With a teacher the labels are a pair, of the labels and the teacher's logits.
        """
        others = (LABEL, PIECE, TEACHER)
        packed = {name: value for name, value in columns.items() if name not in others}
        features, weights = self.preprocessor.pad(packed, length), tf.cast(real, tf.float32)
        if PIECE in columns:
            weights /= tf.cast(columns[PIECE][:, 1], tf.float32)
        labels = columns.get(LABEL, tf.zeros_like(real, tf.int32))
        if TEACHER in columns:
            labels = (labels, columns[TEACHER])
        return features, labels, weights

    def count_tokens(self, features: Any, labels: Any, weights: tf.Tensor) -> tf.Tensor:
        """Returns the tokens of the rows with a weight, as float32 []."""
        if "input_mask" not in features:
            return tf.constant(0.0)  # The encoder reads text; only it knows its tokens.
        real = tf.cast(weights > 0, tf.float32)[:, tf.newaxis]
        return tf.reduce_sum(tf.cast(features["input_mask"], tf.float32) * real)

    def check_training(self, columns: Mapping[str, Any]) -> None:
        """Refuses rows whose label is not known, unless a teacher knows it."""
        if LABEL in columns and TEACHER not in columns:
            labels = columns[LABEL].numpy()
            if PIECE in columns:
                labels = labels[columns[PIECE].numpy()[:, 0] == 0]
            check_all_known(labels)


def tokenize(
    examples: Examples,
    preprocessor: TextPreprocessor,
    max_seq_length: int,
    cache_dir: str | None = None,
    long_text: str = "truncate",
) -> TokenizedRows:
    """Turns examples into token ids, once for the whole run.

    Args:
        examples: Texts, and labels if there are any; the batches of unlabelled ones have zeros.
        preprocessor: The encoder's.
        max_seq_length: Longest row in tokens, special tokens included.
        cache_dir: Folder that keeps the ids for later runs on the same texts; None: no cache.
        long_text: What rows are made of longer texts: `truncate`, `head_tail` or `window`; see
            `pack_long`.

    Returns:
        The rows, kept in memory (4 bytes a token and feature).

    Raises:
        UserError: No examples, a `max_seq_length` that is too small or too large; or see
            `pack_long`.
    """
    cache_dir = expand_path(cache_dir, "cache_dir") if cache_dir else None
    packed = pack_texts_cached(examples.texts, preprocessor, max_seq_length, cache_dir, long_text)
    columns, labels = dict(packed.features), examples.labels
    rows = TokenizedRows(
        columns,
        packed.lengths,
        packed.full_lengths,
        max_seq_length,
        ClassifierCollate(preprocessor),
        pieces=packed.pieces,
    )
    if rows.pieces is not None:
        numbers = np.arange(len(rows)) - np.repeat(rows.first_rows, rows.pieces)
        counts = np.repeat(rows.pieces, rows.pieces)
        columns[PIECE] = tf.constant(np.stack([numbers, counts], axis=1), tf.int32)
        labels = None if labels is None else np.repeat(labels, rows.pieces, axis=0)
    if labels is not None:
        columns[LABEL] = tf.constant(labels)
    return rows


def table_rows(encoder: Encoder, rows: TokenizedRows | None) -> dict[str, np.ndarray]:
    """Returns which rows of an encoder's table of token embeddings the rows of a training use.

    Args:
        encoder: The encoder.
        rows: The texts of the whole training; None: they are not known beforehand.

    Returns:
        The variable's path and its rows, int [rows]; nothing if they are not known, or if the
        network has no such table.
    """
    table = getattr(getattr(encoder.network, "embeddings", None), "token", None)
    if rows is None or table is None or not isinstance(encoder.preprocessor, TokenPreprocessor):
        return {}
    ids = rows.columns["input_word_ids"].flat_values.numpy()
    return {table.path: np.union1d(ids, [encoder.preprocessor.pad_id])}


def check_examples(examples: Examples, problem: Problem) -> Examples:
    """Returns examples with their labels in the dtype that the problem's have.

    Raises:
        UserError: Another number of text columns than the problem's, or a label that it has not.
    """
    names = problem.text_columns
    if len(examples.texts) != len(names):
        raise UserError(
            f"The examples have {len(examples.texts)} text columns, the problem {len(names)}: "
            f"{', '.join(names)}."
        )
    if examples.labels is None:
        return examples
    return dataclasses.replace(examples, labels=check_labels(examples.labels, problem))


@dataclass(frozen=True)
class ExampleTokenizer:
    """Turns streamed rows into the columns of `tokenize`; see `RowTokenizer`.

    Attributes:
        read_examples: Turns rows into examples.
        preprocessor: The encoder's.
        max_seq_length: Longest row in tokens, special tokens included.
        long_text: See `tokenize`; not `window`, for which all rows must be known beforehand.
    """

    read_examples: ExampleReader
    preprocessor: TextPreprocessor
    max_seq_length: int
    long_text: str = "truncate"

    def __post_init__(self) -> None:
        if self.long_text == "window":
            raise UserError(
                "long_text=window: rows that are streamed cannot be cut into pieces, whose number "
                "is not known beforehand. Read all rows into memory, or use head_tail."
            )

    @property
    def signature(self) -> Mapping[str, tf.TypeSpec]:
        """The texts, string [columns, n], and the labels [n, ...]."""
        columns = len(self.read_examples.problem.text_columns)
        labels = self._no_labels
        return {
            "texts": tf.TensorSpec((columns, None), tf.string),
            LABEL: tf.TensorSpec((None, *labels.shape[1:]), labels.dtype),
        }

    def read(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Checks rows and returns their texts and labels."""
        if not rows:
            columns = len(self.read_examples.problem.text_columns)
            return {"texts": np.full((columns, 1), "", object), LABEL: self._no_labels}
        examples = self.read_examples(rows)
        return {"texts": np.array(examples.texts, object), LABEL: examples.labels}

    def tokenize(self, arrays: Mapping[str, Any]) -> tuple[dict[str, Any], tf.Tensor]:
        """Packs the texts, in a graph."""
        tokens = self.preprocessor.tokenize(tf.unstack(arrays["texts"]))
        lengths = tf.minimum(self.preprocessor.packed_lengths(tokens), self.max_seq_length)
        columns, _ = pack_long(self.preprocessor, tokens, self.max_seq_length, self.long_text)
        return {**columns, LABEL: arrays[LABEL]}, lengths

    @cached_property
    def _no_labels(self) -> np.ndarray:
        """The labels of one filling row."""
        problem = self.read_examples.problem
        if problem.problem_type == "single_label":
            return np.zeros(1, np.int32)
        shape = (1,) if problem.problem_type == "regression" else (1, problem.num_outputs)
        return np.zeros(shape, np.float32)
