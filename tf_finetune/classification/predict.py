"""A model's predictions for texts, labels and probabilities, and their metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.classification.metrics import (
    choose_labels,
    compute_metrics,
    is_sure,
    probabilities,
)
from tf_finetune.classification.tokenize import tokenize
from tf_finetune.data.batches import make_eval_dataset
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import UNSURE, Problem
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig
from tf_finetune.text.preprocessor import TextPreprocessor
from tf_finetune.training.forward import Forward


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for texts, in the order of the texts.

    Attributes:
        logits: float32 [n, num_outputs].
        probabilities: float32 [n, num_labels]; [n, 0] for a regression.
        values: float32 [n], a regression's predictions; [0] otherwise.
        labels: The names of each row's labels: one, or `UNSURE` where its probability is below
            `Problem.reject_below`; any number for multi_label, in the order of
            `Problem.label_names`; none for a regression.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    values: np.ndarray
    labels: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.logits)


def evaluate(forward: Forward, dataset: tf.data.Dataset, problem: Problem) -> dict[str, Any]:
    """Computes a model's metrics over the labelled rows of a dataset, each counted once.

    Args:
        forward: The model's forward pass, from `make_forward`.
        dataset: Batches `(features, labels, weights)`, as of `make_eval_dataset`; rows of weight 0
            fill a batch up and do not count. Of texts in pieces each piece would count: see
            `Classifier.evaluate`.
        problem: The model's problem.

    Returns:
        See `compute_metrics`. The batch size changes nothing.

    Raises:
        UserError: No label is known, or the model's outputs are not finite.
    """
    logits, labels = forward(dataset)
    return compute_metrics(logits, labels, problem)


def predict(
    forward: Forward,
    preprocessor: TextPreprocessor,
    problem: Problem,
    texts: Sequence[str] | Sequence[Sequence[str]],
    *,
    max_seq_length: int,
    long_text: str = "truncate",
    batch_size: int = DataConfig.predict_batch_size,
) -> Predictions:
    """Predicts labels of texts; rows of similar length share a batch.

    Args:
        forward: The model's forward pass, from `make_forward`.
        preprocessor: The encoder's.
        problem: The model's problem.
        texts: One sequence of strings for each text column, of equal lengths; for a single column
            the strings alone suffice.
        max_seq_length: The most tokens of a row.
        long_text: What rows are made of longer texts; see `tokenize`.
        batch_size: Texts per batch, over all replicas.

    Returns:
        The predictions, in the order of `texts`.

    Raises:
        UserError: One string in place of several; or other text columns than the model's.
    """
    columns = text_columns(texts, problem)
    if not columns[0]:
        return to_predictions(np.zeros((0, problem.num_outputs), np.float32), problem)
    rows = tokenize(Examples(columns), preprocessor, max_seq_length, long_text=long_text)
    return to_predictions(predict_rows(forward, rows, batch_size), problem)


def predict_rows(
    forward: Forward,
    rows: TokenizedRows,
    batch_size: int = DataConfig.predict_batch_size,
) -> np.ndarray:
    """Returns the logits of tokenized texts, float32 [n, num_outputs], in their order.

    Those of a text that was cut into pieces are the mean over its pieces.

    Args:
        forward: The model's forward pass, from `make_forward`.
        rows: From `tokenize`.
        batch_size: Rows per batch, over all replicas.

    Raises:
        UserError: `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: must be >= 1.")
    by_length, _ = forward(make_eval_dataset(rows, batch_size))
    logits = np.empty_like(by_length)
    logits[rows.order] = by_length
    return rows.mean_by_example(logits)


def to_predictions(logits: np.ndarray, problem: Problem) -> Predictions:
    """Turns logits, float32 [n, num_outputs], into predictions; see `predict`."""
    if problem.problem_type == "regression":
        return Predictions(logits, logits[:, :0], logits[:, 0], ((),) * len(logits))
    label_probabilities = probabilities(logits, problem)
    if problem.problem_type == "multi_label":
        chosen = choose_labels(label_probabilities, problem)
    else:
        chosen = logits.argmax(axis=1)[:, None] == np.arange(problem.num_outputs)
    names = np.array(problem.label_names, object)
    labels = tuple(tuple(names[row]) for row in chosen)
    if problem.reject_below:
        sure = is_sure(label_probabilities, problem)
        labels = tuple(
            said if known else (UNSURE,) for said, known in zip(labels, sure, strict=True)
        )
    return Predictions(logits, label_probabilities, np.zeros(0, np.float32), labels)


def text_columns(
    texts: Sequence[str] | Sequence[Sequence[str]], problem: Problem
) -> tuple[Sequence[str], ...]:
    """Returns one sequence of strings for each text column of the problem.

    Args:
        texts: Such sequences; for a problem with one column its strings alone suffice.
        problem: The model's problem.

    Raises:
        UserError: One string in place of several, another number of columns, or columns of
            different lengths.
    """
    names = problem.text_columns
    if isinstance(texts, str | bytes):
        raise UserError(f"One text is given as a list of one: [{texts!r:.80}].")
    texts = list(texts)
    columns = [
        text for text in texts if hasattr(text, "__len__") and not isinstance(text, str | bytes)
    ]
    if len(names) == 1 and not columns:
        return (texts,)  # type: ignore[return-value]
    lengths = [len(column) for column in columns]
    if len(columns) != len(texts) or len(columns) != len(names) or len(set(lengths)) != 1:
        raise UserError(
            f"The model takes the text columns {', '.join(names)}: give one list of strings for "
            f"each, of equal lengths; given were {len(texts)} values, of which {len(columns)} are "
            f"lists, of lengths {lengths[:9]}."
        )
    return tuple(map(list, columns))
