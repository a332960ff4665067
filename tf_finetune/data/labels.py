"""Turns the label values of the data into a problem type, label names and arrays."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tf_finetune.data.label_cells import (
    PLACEHOLDERS,
    clean,
    has_lists,
    has_names_of_digits,
    is_list,
    number,
    spelling_key,
)
from tf_finetune.data.label_format import LabelFormat
from tf_finetune.data.problem import Problem, ProblemType
from tf_finetune.errors import UserError

# Whole numbers are class numbers, unless there are more distinct ones than this and each is rare.
MOST_NUMBERED_CLASSES = 100
# The largest regression label. Its square must be finite in float32: the loss is a squared error.
LARGEST = 1e18


def infer_problem_type(
    values: Sequence[Any],
    label_names: Sequence[str] = (),
    form: LabelFormat = LabelFormat(),
) -> ProblemType:
    """Infers the problem type from the labels of the training data.

    Lists are `multi_label`. Numbers are `regression` if one of them is not whole, or if there are
    more than 100 distinct ones, on average on fewer than ten rows each; numbers that are written as
    codes or versions are (007; 3.9 and 3.10) are names. Text is `multi_label` only if the label
    names are known and every cell splits into them; otherwise `single_label`: a comma alone does
    not make a cell several labels.

    Args:
        values: The label of each row.
        label_names: The label names, if they are known.
        form: How the cells are read.
    """
    if form.multi_hot or form.literal or has_lists(values):
        return "multi_label"
    names = count_spellings(values, "single_label", form)
    if label_names:
        index = LabelIndex(label_names, by_index=True)
        if all(index.find(name) is not None for name in names):
            return "single_label"
        split = all(index.find(part) is not None for name in names for part in form.parts(name))
        return "multi_label" if split else "single_label"
    numbers = _numbers(names)
    if not numbers or has_names_of_digits(names):
        return "single_label"
    # NaN and infinity are left to the check of regression labels, which names their line.
    whole = all(found.is_integer() for found in numbers)
    many = len(numbers) > MOST_NUMBERED_CLASSES and len(values) < 10 * len(numbers)
    return "single_label" if whole and not many else "regression"


def learn_label_names(
    values: Sequence[Any], problem_type: ProblemType, form: LabelFormat = LabelFormat()
) -> tuple[str, ...]:
    """Returns the distinct labels, numbers by value and everything else by alphabet.

    Of several spellings of one label (see `spelling_key`) a whole number is written plainly; of
    others the most frequent one counts.
    """
    if form.multi_hot:
        length = next((len(vector) for v in values if (vector := form.vector(v)) is not None), 0)
        return tuple(map(str, range(length)))
    found = count_spellings(values, problem_type, form)
    keys = spelling_key(found)
    names = set(keys.values())
    if all(map(_is_boolean, keys)):
        spelled: dict[str, list[str]] = {}
        for name in sorted(found):
            spelled.setdefault(keys[name], []).append(name)
        names = {max(some, key=lambda name: found[name]) for some in spelled.values()}
    numbers = {name: number(name) for name in names}
    if None not in numbers.values() and not any(v != v for v in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(sorted(names))


def count_spellings(
    values: Sequence[Any], problem_type: ProblemType, form: LabelFormat
) -> Counter[str]:
    """Counts the rows of each label as it is written; empty ones are left out."""
    found: Counter[str] = Counter()
    if problem_type == "multi_label":
        for value, count in _counted(values).items():
            for part in form.parts(value):
                found[part] += count
    else:
        for value, count in _counted(values).items():
            found[clean(_single(value))] += count
    del found[""]
    return found


@dataclass(frozen=True)
class LabelIndex:
    """Finds the index of a label, however it is spelled.

    Attributes:
        names: The label names.
        by_index: Whether a whole number may stand for the label name of that index; never done
            where the label names are whole numbers themselves.
    """

    names: Sequence[str]
    by_index: bool = False

    @cached_property
    def _exact(self) -> dict[str, int]:
        index = {clean(name): place for place, name in enumerate(self.names)}
        keys = spelling_key(index).values()
        if self.by_index and not any(key.lstrip("-").isdigit() for key in keys):
            index |= {str(place): place for place in range(len(self.names))}
        return index

    @cached_property
    def _spelled(self) -> dict[str, int]:
        """The keys of `spelling_key` that belong to one name only."""
        keys = spelling_key(map(clean, self.names))
        counts = Counter(keys.values())
        return {key: self._exact[name] for name, key in keys.items() if counts[key] == 1}

    def find(self, label: str) -> int | None:
        """Returns the index of a label, as `clean` returns it; None: it is unknown."""
        found = self._exact.get(label)
        if found is None and label:
            key = spelling_key([label])[label]
            found = self._spelled.get(key, self._exact.get(key))
        return found


@dataclass(frozen=True)
class Encoded:
    """Labels as an array.

    Attributes:
        labels: int32 [n] indices, float32 [n, num_labels] zeros and ones, or float32 [n] numbers;
            -1 or NaN where the label is missing or unknown.
        unknown: The unknown labels: text to the row in which it stands first.
        num_unknown: The number of rows with an unknown label.
    """

    labels: np.ndarray
    unknown: dict[str, int] = field(default_factory=dict)
    num_unknown: int = 0


def encode_labels(
    values: Sequence[Any],
    problem: Problem,
    form: LabelFormat = LabelFormat(),
    *,
    by_index: bool = False,
) -> Encoded:
    """Turns label values into an array.

    Args:
        values: The label of each row: text, numbers, lists of them, or None.
        problem: Its type and label names.
        form: How the cells are read.
        by_index: See `LabelIndex`.
    """
    index = LabelIndex(problem.label_names, by_index)
    unknown: dict[str, int] = {}
    known: dict[Any, Any] = {}
    nothing: Any = -1 if problem.problem_type == "single_label" else np.nan
    rows: list[Any] = []
    num_unknown = 0

    for row, value in enumerate(values):
        key = tuple(value) if is_list(value) else value
        try:
            found = known.get(key, known)
        except TypeError:  # A list in a list.
            key, found = str(value), known
        if found is known:
            found = known[key] = _encode(value, problem, form, index)
        if isinstance(found, str):
            unknown.setdefault(found, row)
            num_unknown += 1
            found = None
        rows.append(nothing if found is None else found)
    if problem.problem_type != "multi_label":
        kind: Any = np.int32 if problem.problem_type == "single_label" else np.float32
        return Encoded(np.array(rows, kind), unknown, num_unknown)
    hot = np.zeros((len(rows), problem.num_outputs), np.float32)
    for row, found in enumerate(rows):
        hot[row, found if isinstance(found, list) else slice(None)] = (
            1 if isinstance(found, list) else np.nan
        )
    return Encoded(hot, unknown, num_unknown)


def _encode(
    value: Any, problem: Problem, form: LabelFormat, index: LabelIndex
) -> int | float | list[int] | str | None:
    """Returns the index, the number or the indices of a label; its text, if it is unknown."""
    if problem.problem_type == "regression":
        found = number(value)
        if found is None or not abs(found) <= LARGEST:  # NaN is not.
            return _nothing_or(value)
        return found
    if form.multi_hot:
        vector = form.vector(value)
        if is_list(value) and not any(map(clean, value)):
            return None
        if vector is None or len(vector) != problem.num_outputs:
            return _nothing_or(value)
        places = [place for place, hot in enumerate(vector) if hot]
        if problem.problem_type == "multi_label":
            return places
        return places[0] if len(places) == 1 else str(value)
    if problem.problem_type == "multi_label":
        # A cell that is there but empty says that the row has no label.
        if value is None or value != value:
            return None
        if not is_list(value) and (place := index.find(clean(value))) is not None:
            return [place]  # A name may have brackets or the separator in it.
        places = []
        for part in form.parts(value):
            place = index.find(part)
            if place is None:
                return part or str(value)
            places.append(place)
        return places
    value = _single(value)
    if is_list(value):
        return str(value)
    place = index.find(clean(value))
    return _nothing_or(value) if place is None else place


def _single(value: Any) -> Any:
    """Returns the one label of a list of one, and any other value as it is."""
    return value[0] if is_list(value) and len(value) == 1 else value


def _nothing_or(value: Any) -> str | None:
    """Returns a label as text; None, if it is missing."""
    return str(value) if is_list(value) else clean(value) or None


def unknown_label(label: str, location: str, problem: Problem, form: LabelFormat) -> UserError:
    """Returns the error for a label that the problem does not have."""
    if form.multi_hot:
        return UserError(
            f"{location}: the label is {label:.80}; it must be a 0 or 1 for each of the "
            f"{problem.num_outputs} labels ({', '.join(problem.label_names[:10])}), and for "
            "single_label exactly one 1. Correct the row (of lists, --label_format says another "
            "reading)."
        )
    if problem.problem_type == "regression":
        return UserError(
            f"{location}: the label is {label!r:.80}; regression needs a finite number. Correct or "
            "remove the row, leave such rows out (--ignore_labels), or set --problem_type."
        )
    names = problem.label_names
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return UserError(
        f"{location}: the label {label!r:.80} is not one of the {len(names)} labels ({shown}). "
        "Labels come from --label_names, the task, or else the training data: correct this row, "
        "add the label there, or leave such rows out (--ignore_labels)."
    )


def _numbers(names: Iterable[str]) -> list[float]:
    """Returns labels as numbers, placeholders left out; an empty list, if one is none."""
    real = {name for name in names if name.lower() not in PLACEHOLDERS - {"-1"}}
    found = [value for name in real if (value := number(name)) is not None]
    return found if len(found) == len(real) else []


def _counted(values: Sequence[Any]) -> Counter[Any]:
    try:
        return Counter(values)
    except TypeError:
        return Counter(tuple(value) if is_list(value) else value for value in values)


def _is_boolean(name: str) -> bool:
    return name.lower() in ("true", "false")
