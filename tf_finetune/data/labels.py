"""Turns the label values of the data into a problem type, label names and arrays."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from tf_finetune.data.problem import Problem, ProblemType
from tf_finetune.errors import UserError

# Whole numbers are class numbers, unless there are more distinct ones than this and each is rare.
MOST_NUMBERED_CLASSES = 100
# The largest regression label. Its square must be finite in float32: the loss is a squared error.
LARGEST = 1e18


def infer_problem_type(
    values: Sequence[Any], label_names: Sequence[str] = (), separator: str = ","
) -> ProblemType:
    """Infers the problem type from the labels of the training data.

    Lists are `multi_label`. Numbers are `regression` if one of them is not whole, or if there are
    more than 100 distinct ones, on average on fewer than ten rows each. Text is `multi_label` only
    if the label names are known and every cell splits into them; otherwise `single_label`: a
    comma alone does not make a cell several labels.

    Args:
        values: The label of each row.
        label_names: The label names, if they are known.
        separator: Between the labels of one text cell.
    """
    if any(isinstance(value, list | tuple) for value in values):
        return "multi_label"
    distinct = _distinct(values)
    if label_names:
        index = _index(label_names, by_index=True)
        if all(_clean(value) in index for value in distinct):
            return "single_label"
        split = all(part in index for value in distinct for part in _split(value, separator))
        return "multi_label" if split else "single_label"
    numbers = [_number(value) for value in distinct if _clean(value)]
    if not numbers or None in numbers:
        return "single_label"
    # NaN and infinity are left to the check of regression labels, which names their line.
    whole = all(number is not None and number.is_integer() for number in numbers)
    many = len(distinct) > MOST_NUMBERED_CLASSES and len(values) < 10 * len(distinct)
    return "single_label" if whole and not many else "regression"


def learn_label_names(
    values: Sequence[Any], problem_type: ProblemType, separator: str = ","
) -> tuple[str, ...]:
    """Returns the distinct labels, whole numbers by value and everything else by alphabet."""
    if problem_type == "multi_label":
        names = {part for value in values for part in _split(value, separator)}
    else:
        names = {_clean(value) for value in _distinct(values)}
    names.discard("")
    try:
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(names))


def encode_labels(
    values: Sequence[Any],
    locations: Sequence[str],
    problem: Problem,
    *,
    by_index: bool = False,
    separator: str = ",",
) -> np.ndarray:
    """Turns label values into an array.

    Args:
        values: The label of each row: text, numbers, or lists of them.
        locations: The location of each row, for error messages.
        problem: Its type and label names.
        by_index: Whether a whole number may stand for the label name of that index; never done
            where the label names are whole numbers themselves.
        separator: Between the labels of one text cell.

    Returns:
        int32 [n] indices, float32 [n, num_labels] zeros and ones, or float32 [n] numbers.

    Raises:
        UserError: An empty or unknown label, or not a finite number.
    """
    if problem.problem_type == "regression":
        return _encode_numbers(values, locations)
    index = _index(problem.label_names, by_index)
    if problem.problem_type == "single_label":
        # Clean each of the few distinct values once.
        table = {value: index.get(_clean(value)) for value in _distinct(values)}
        encoded = [table.get(value) if isinstance(value, Hashable) else None for value in values]
        if None in encoded:
            row = encoded.index(None)
            raise _unknown(_clean(values[row]), locations[row], problem.label_names)
        return np.array(encoded, np.int32)
    hot = np.zeros((len(values), problem.num_outputs), np.float32)
    for row, value in enumerate(values):
        for part in _split(value, separator):
            if part not in index:
                raise _unknown(part, locations[row], problem.label_names)
            hot[row, index[part]] = 1
    return hot


def _encode_numbers(values: Sequence[Any], locations: Sequence[str]) -> np.ndarray:
    numbers = [_number(value) for value in values]
    for number, value, location in zip(numbers, values, locations, strict=True):
        if number is None or not abs(number) <= LARGEST:  # NaN is not.
            raise UserError(
                f"{location}: the label is {str(value)!r:.80}; regression needs a finite number. "
                "Correct or remove the row, or set --problem_type."
            )
    return np.array(numbers, np.float32)


def _distinct(values: Sequence[Any]) -> set[Any]:
    # Lists, which are no single labels, are left out: encode_labels reports them.
    return {value for value in values if isinstance(value, Hashable)}


def _index(label_names: Sequence[str], by_index: bool) -> dict[str, int]:
    index = {name: number for number, name in enumerate(label_names)}
    if by_index and not any(name.lstrip("-").isdigit() for name in label_names):
        index |= {str(number): number for number in range(len(label_names))}
    return index


def _clean(value: Any) -> str:
    """Returns a label as text: 1.0 is the class 1, and space around a name does not count."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace").strip()
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _split(value: Any, separator: str) -> list[str]:
    if isinstance(value, list | tuple):
        return [_clean(part) for part in value]
    text = _clean(value)
    return [part.strip() for part in text.split(separator)] if text else []


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _unknown(label: str, location: str, label_names: Sequence[str]) -> UserError:
    shown = ", ".join(label_names[:10]) + (", ..." if len(label_names) > 10 else "")
    if not label:
        return UserError(f"{location}: the label is empty. The labels are {shown}.")
    return UserError(
        f"{location}: the label {label!r} is not one of the {len(label_names)} labels ({shown}). "
        "Labels come from --label_names, the task, or else the training data: correct this row, "
        "or add the label there."
    )
