"""Checks the texts and labels that a Python caller gives."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_finetune.data.problem import Problem, known_labels
from tf_finetune.errors import UserError


def check_texts(texts: Sequence[Sequence[str]]) -> tuple[Sequence[str], ...]:
    """Returns the text columns of `Examples`, each as a list or tuple.

    Raises:
        UserError: A text is no string, or columns have different lengths.
    """
    if any(isinstance(column, str) or not hasattr(column, "__iter__") for column in texts):
        raise UserError(
            f"texts[0] is {texts[0]!r:.80}; it must be the sequence of strings of a text column. "
            "Write (texts,) for a single column."
        )
    columns = tuple(c if isinstance(c, list | tuple) else list(c) for c in texts)
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise UserError(f"texts holds columns of the lengths {lengths}; they must be equal.")
    for number, column in enumerate(columns):
        if not all(issubclass(kind, str) for kind in set(map(type, column))):
            row = next(row for row, text in enumerate(column) if not isinstance(text, str))
            raise UserError(
                f"texts[{number}][{row}] is {column[row]!r:.80}, not a string. Give '' for a text "
                "that is missing, or leave its row out."
            )
        try:
            deque(map(str.encode, column), maxlen=0)
        except UnicodeEncodeError as error:
            raise UserError(
                f"texts[{number}][{column.index(error.object)}] is not Unicode: it holds half of a "
                f"surrogate pair at character {error.start}."
            ) from None
    return columns


def check_numbers(labels: Any) -> np.ndarray:
    """Returns labels as an array of numbers; what they mean depends on the problem.

    Raises:
        UserError: A label is no number.
    """
    try:
        array = np.atleast_1d(labels)
    except ValueError:  # Lists of different lengths.
        array = np.array([*labels, None], object)[:-1]
    if array.dtype.kind not in "biuf":
        values = [value.item() if isinstance(value, np.generic) else value for value in labels]
        kinds = [np.asarray(value).dtype.kind for value in values]
        row = next((row for row, kind in enumerate(kinds) if kind not in "biuf"), 0)
        raise UserError(
            f"labels[{row}] is {values[row]!r:.80}, not a number. A label is the index of its name "
            "in Problem.label_names; of several labels a row of zeros and ones."
        )
    return array


def check_labels(labels: Any, problem: Problem) -> np.ndarray:
    """Returns labels in the dtype that `Examples.labels` has for the problem.

    Args:
        labels: Numbers, one row for each example; integers may have a floating-point dtype.
        problem: The problem.

    Raises:
        UserError: Another shape, or a value that is no label; the message names its row.
    """
    labels = check_numbers(labels)
    kind, n = problem.problem_type, problem.num_outputs
    needed = {
        "single_label": f"the index of its name, from 0 to {n - 1}; -1 if it is not known",
        "multi_label": f"{n} zeros and ones, one for each name; NaN if they are not known",
        "regression": "a finite number; NaN if it is not known",
    }[kind]
    shape = (len(labels), n) if kind == "multi_label" else (len(labels),)
    if labels.shape != shape:
        raise UserError(
            f"The labels have the shape {labels.shape}, not {shape}. The label of a row is "
            f"{needed}."
        )
    with np.errstate(over="ignore"):  # Of a number that is infinite as float32.
        values: np.ndarray = labels.astype(np.float64 if kind == "single_label" else np.float32)
    unknown = np.isnan(values)
    if kind == "single_label":
        good = (values == np.floor(values)) & (values >= -1) & (values < n)
    elif kind == "regression":
        good = np.isfinite(values)
    else:
        good, unknown = ((values == 0) | (values == 1)).all(axis=1), unknown.all(axis=1)
    wrong = np.flatnonzero(~good & ~unknown)
    if len(wrong):
        raise UserError(
            f"labels[{wrong[0]}] is {labels[wrong[0]]}. The label of a row is {needed}."
        )
    return np.where(unknown, -1, values).astype(np.int32) if kind == "single_label" else values


def check_all_known(labels: np.ndarray) -> None:
    """Checks labels that are trained on.

    Args:
        labels: As `check_labels` returns them.

    Raises:
        UserError: A row has no known label.
    """
    unknown = np.flatnonzero(~known_labels(labels))
    if len(unknown):
        raise UserError(
            f"labels[{unknown[0]}] is {labels[unknown[0]]}: the label is not known, as in "
            f"{len(unknown)} of {len(labels)} rows. Leave these rows out of the training; two "
            "classes have the labels 0 and 1, whatever their names are."
        )
