"""Labels and probabilities for texts, and the file that holds them."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tf_finetune.classification.metrics import choose_labels, probabilities
from tf_finetune.data.batches import (
    TokenizedExamples,
    eval_order,
    make_eval_dataset,
    tokenize,
)
from tf_finetune.data.labelled import Examples
from tf_finetune.data.tasks import Problem
from tf_finetune.errors import UserError
from tf_finetune.files import write_text_atomic
from tf_finetune.text.preprocessor import TextPreprocessor
from tf_finetune.training.forward import LogitsFn, predict_logits


@dataclass(frozen=True)
class Predictions:
    """What a model says of some texts, in the order of the texts.

    Attributes:
        logits: float32 [n, num_outputs].
        probabilities: float32 [n, num_labels]; [n, 0] for a regression.
        values: float32 [n], a regression's predictions; [0] otherwise.
        labels: The names of each row's labels: one; any number for multi_label, in the order of
            `Problem.label_names`; none for a regression.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    values: np.ndarray
    labels: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.logits)


def predict(
    model: keras.Model | LogitsFn,
    preprocessor: TextPreprocessor,
    problem: Problem,
    texts: Sequence[str] | Sequence[Sequence[str]],
    *,
    max_seq_length: int = 128,
    batch_size: int = 32,
    threshold: float = 0.5,
) -> Predictions:
    """Predicts labels of texts; rows of similar length share a batch.

    Args:
        model: The model, or its function from `make_logits_fn`.
        preprocessor: The encoder's.
        problem: What the model has learnt.
        texts: One sequence of strings for each text column, of equal lengths; with a single column
            the strings alone will do.
        max_seq_length: Longer texts are cut to this many tokens.
        batch_size: Texts per batch, over all replicas.
        threshold: A multi-label row gets the labels of at least this probability.

    Returns:
        The predictions, in the order of `texts`.

    Raises:
        UserError: Another number of text columns than the model was trained on, or columns of
            different lengths.
    """
    columns = _columns(texts, problem)
    if not columns[0]:
        return read_logits(np.zeros((0, problem.num_outputs), np.float32), problem, threshold)
    rows = tokenize(Examples(columns, None), preprocessor, max_seq_length)
    return read_logits(predict_rows(model, rows, batch_size), problem, threshold)


def predict_rows(
    model: keras.Model | LogitsFn,
    examples: TokenizedExamples,
    batch_size: int = 32,
    *,
    buckets: Sequence[int] | None = None,
) -> np.ndarray:
    """Returns the logits of tokenized examples, float32 [n, num_outputs], in their order.

    Args:
        model: The model, or its function from `make_logits_fn`.
        examples: From `tokenize`.
        batch_size: Rows per batch, over all replicas.
        buckets: See `make_eval_dataset`.
    """
    dataset = make_eval_dataset(examples, batch_size, buckets=buckets)
    by_length, _ = predict_logits(model, dataset)
    logits = np.empty_like(by_length)
    logits[eval_order(examples.lengths)] = by_length
    return logits


def read_logits(logits: np.ndarray, problem: Problem, threshold: float = 0.5) -> Predictions:
    """Turns logits, float32 [n, num_outputs], into predictions; see `predict`."""
    if problem.problem_type == "regression":
        return Predictions(logits, logits[:, :0], logits[:, 0], ((),) * len(logits))
    shares = probabilities(logits, problem)
    if problem.problem_type == "multi_label":
        chosen = choose_labels(shares, threshold)
    else:
        chosen = logits.argmax(axis=1)[:, None] == np.arange(problem.num_outputs)
    names = np.array(problem.label_names, object)
    labels = tuple(tuple(names[row]) for row in chosen)
    return Predictions(logits, shares, np.zeros(0, np.float32), labels)


def write_predictions(
    path: str | os.PathLike[str],
    predictions: Predictions,
    texts: Sequence[str] | Sequence[Sequence[str]],
    problem: Problem,
) -> None:
    r"""Writes predictions as unquoted TSV, one line a row, whole or not at all.

    The header is `row`, the text columns, `prediction`, and `probability_<label>` for each label.
    `row` counts from 1. A multi-label prediction is the label names joined by commas, possibly
    none. A regression has no probabilities; its prediction is the number. Numbers have as many
    digits as give the float32 back.

    In texts and names a backslash, a tab and a line end are written `\\`, `\t`, `\n` and `\r`, and
    other control characters and line separators `\x1b` or `\u2028`; `unescape` reads them back.

    Args:
        path: The file.
        predictions: From `predict`.
        texts: The texts given to `predict`.
        problem: The problem given to `predict`.

    Raises:
        UserError: The texts do not belong to the predictions.
        OSError: The file cannot be written; one that was there is as it was.
    """
    columns = _columns(texts, problem)
    if len(columns[0]) != len(predictions):
        raise UserError(f"{len(predictions)} predictions were given for {len(columns[0])} texts.")
    lines = _lines(predictions, columns, problem)
    write_text_atomic(path, "".join("\t".join(map(escape, line)) + "\n" for line in lines))


# Everything that some reader takes for the end of a line or of a file, and what a terminal obeys;
# surrogates cannot be written as UTF-8.
_SPECIAL = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPED = re.compile(r"\\(?:([\\tnr])|x([0-9a-f]{2})|u([0-9a-f]{4}))")


def escape(text: str) -> str:
    """Writes a text so that it fits into one field of a TSV file; see `write_predictions`."""

    def write(match: re.Match[str]) -> str:
        code = ord(match[0])
        return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return _SPECIAL.sub(write, text)


def unescape(field: str) -> str:
    """Reads a text back from what `escape` made of it."""

    def read(match: re.Match[str]) -> str:
        if match[1]:
            return {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}[match[1]]
        return chr(int(match[2] or match[3], 16))

    return _ESCAPED.sub(read, field)


def _lines(
    predictions: Predictions, columns: tuple[Sequence[str], ...], problem: Problem
) -> Iterator[Sequence[str]]:
    yield (
        "row",
        *problem.text_columns,
        "prediction",
        *(f"probability_{name}" for name in problem.label_names),
    )
    regression = problem.problem_type == "regression"
    for row, texts in enumerate(zip(*columns, strict=True)):
        shares = predictions.probabilities[row]
        said = str(predictions.values[row]) if regression else ",".join(predictions.labels[row])
        # str of a float32 scalar is the shortest text that gives it back.
        yield str(row + 1), *texts, said, *map(str, shares)


def _columns(
    texts: Sequence[str] | Sequence[Sequence[str]], problem: Problem
) -> tuple[Sequence[str], ...]:
    """Returns one sequence of strings for each text column of the problem."""
    names = problem.text_columns
    if len(names) == 1 and (not texts or isinstance(texts[0], str)):
        return (texts,)  # type: ignore[return-value]
    lengths = [len(column) for column in texts]
    if len(texts) != len(names) or isinstance(texts[0], str) or len(set(lengths)) != 1:
        raise UserError(
            f"The model takes the text columns {', '.join(names)}: give one list of strings for "
            f"each, of equal lengths; given were lists of lengths {lengths}."
        )
    return tuple(texts)
