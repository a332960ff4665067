"""What is told of the labels before training: guesses that matter, and how to overrule them."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from tf_finetune.data.label_cells import (
    PLACEHOLDERS,
    clean,
    distinct,
    has_names_of_digits,
    is_list,
    number,
    shown_values,
    spelling_key,
)
from tf_finetune.data.label_format import LabelFormat
from tf_finetune.data.labels import LabelIndex, count_spellings
from tf_finetune.data.problem import Problem
from tf_finetune.data.wording import rows_text

# Fewer different numbers than this, not all whole, may be classes.
FEW_NUMBERS = 20
ONE_LABEL = (
    "Every row has exactly one label: --problem_type=single_label learns one of {}, in place of "
    "any number of them."
)


def label_notices(
    values: Sequence[Any],
    locations: Sequence[str],
    problem: Problem,
    form: LabelFormat,
    *,
    is_inferred: bool,
) -> list[str]:
    """Returns notices on the labels of the training data.

    Args:
        values: The label of each row.
        locations: Their locations.
        problem: What is learnt from them.
        form: How they are read.
        is_inferred: Whether the problem type was inferred, not said.
    """
    if form.multi_hot:
        hot = [vector for value in values if (vector := form.vector(value)) is not None]
        if is_inferred and hot and all(sum(vector) == 1 for vector in hot):
            return [ONE_LABEL.format(problem.num_outputs)]
        return []
    counts = count_spellings(values, problem.problem_type, form)
    if problem.problem_type == "regression":
        return _numbers_notice(len(values), list(counts)) if is_inferred else []
    notices = _nothing_notices(values, locations, counts, form)
    if is_inferred and values and all(map(_is_single, map(form.as_list, values))):
        notices.append(ONE_LABEL.format(problem.num_outputs))
    if is_inferred and problem.problem_type == "single_label" and has_names_of_digits(counts):
        notices.append(
            f"Labels such as {_odd_number(counts)!r} are learnt as names, as they are written as "
            "codes or versions are. If they are amounts: --problem_type=regression."
        )
    elif written := _amounts_as_text(counts):
        notices.append(
            f"Labels such as {written!r} are learnt as names. If they are amounts, write them as "
            "numbers with a decimal point."
        )
    elif is_inferred and problem.problem_type == "single_label":
        numbers = [found for name in counts if (found := number(name)) is not None]
        if len(numbers) == len(counts) > FEW_NUMBERS:
            notices.append(
                f"The labels are {len(counts)} different whole numbers and learnt as classes. If "
                "they are amounts: --problem_type=regression."
            )
    return notices + _spelling_notices(values, counts, problem)


def index_notices(
    values: Sequence[Any], problem: Problem, form: LabelFormat, *, is_model: bool
) -> list[str]:
    """Tells where whole numbers are read as indices of label names and that may be wrong.

    Args:
        values: The labels of a file.
        problem: The label names.
        form: How the labels are read.
        is_model: Whether the names are those of a trained model. If not, numbers that begin at 0
            are no surprise.
    """
    if problem.problem_type == "regression" or form.multi_hot:
        return []
    counts = count_spellings(values, problem.problem_type, form)
    numbers = sorted(int(key) for key in set(spelling_key(counts).values()) if key.isdigit())
    names = problem.label_names
    read = [number for number in numbers if number < len(names)]
    index = LabelIndex(names, by_index=True)
    is_read = read and str(read[0]) not in names and index.find(str(read[0])) == read[0]
    if not is_read or (0 in read and not is_model):
        return []
    hint = "" if 0 in read else " No label is 0: if they count from 1, correct them."
    return [
        f"Whole numbers are read as indices of the label names, from 0: {read[0]} is "
        f"{names[read[0]]!r}.{hint}"
    ]


def _nothing_notices(
    values: Sequence[Any],
    locations: Sequence[str],
    counts: dict[str, int],
    form: LabelFormat,
) -> list[str]:
    """Tells which labels may stand for none."""
    found = []
    names = sorted(name for name in counts if _may_be_nothing(name, counts))
    for name in names:
        row = next(row for row, value in enumerate(values) if name in _names(value, form))
        found.append(f"{name!r} ({rows_text(counts[name])}, first {locations[row]})")
    if not found:
        return []
    return [
        f"{', '.join(found)}: learnt as labels. Where it means that there is none: "
        f"--ignore_labels={','.join(names)}."
    ]


def _spelling_notices(values: Sequence[Any], counts: dict[str, int], problem: Problem) -> list[str]:
    keys = spelling_key(counts)
    by_key: dict[str, list[str]] = {}
    for name in counts:
        by_key.setdefault(keys[name], []).append(name)
    found = []
    for key, spelled in sorted(by_key.items()):
        if len(spelled) > 1:
            parts = [f"{name!r} ({rows_text(counts[name])})" for name in sorted(spelled)]
            chosen = next((name for name in problem.label_names if name in spelled), key)
            found.append(f"{' and '.join(parts)} are {chosen!r}")
    notices = [f"Labels of several spellings are one: {'; '.join(found[:3])}."] if found else []
    changed = sorted(name for name in counts if name not in problem.label_names)
    if changed and not found and not _has_indices(counts, problem):
        place = LabelIndex(problem.label_names, by_index=True).find(changed[0])
        if place is not None:
            name = problem.label_names[place]
            notices.append(f"Labels such as {changed[0]!r} are read as {name!r}.")
    written: dict[str, list[str]] = {}
    for value in sorted(value for value in distinct(values) if isinstance(value, str)):
        written.setdefault(clean(value), []).append(value)
    same = [some for name, some in written.items() if len(some) > 1 and name]
    if same:
        notices.append(
            f"Labels that differ in blanks around them, or in their Unicode form, are one, such "
            f"as {' and '.join(map(ascii, same[0][:2]))}."
        )
    return notices


def _has_indices(counts: dict[str, int], problem: Problem) -> bool:
    """Whether labels are written as indices of the label names."""
    return not set(spelling_key(counts).values()) & set(problem.label_names)


def _may_be_nothing(name: str, counts: dict[str, int]) -> bool:
    if name.lower() not in PLACEHOLDERS:
        return False
    if name != "-1":
        return True
    # Beside 1 alone it is a class; beside 0 and 1 it is as often a label that is not known.
    others = [number(other) for other in counts if other != "-1"]
    return (
        bool(others)
        and all(other is not None and other >= 0 for other in others)
        and (set(others) != {1.0})
    )


def _amounts_as_text(names: Collection[str]) -> str | None:
    """Returns a label that is an amount with a comma, a sign or a unit, if all are like it."""
    amounts = [re.fullmatch(r"[-+]?[$€£]?\s?\d+([.,]\d+)*\s?[%€]?", name) for name in names]
    odd = [name for name in names if re.search("[,$€£%]", name)]
    return min(odd) if odd and all(amounts) else None


def _is_single(value: Any) -> bool:
    return is_list(value) and len(value) == 1


def _numbers_notice(num_rows: int, names: Sequence[str]) -> list[str]:
    numbers = [found for name in names if (found := number(name)) is not None]
    if numbers and all(found.is_integer() for found in numbers):
        return [
            f"The labels are {len(numbers):,} different whole numbers, each on "
            f"{num_rows / len(numbers):.1f} rows, and learnt as amounts (regression). If they are "
            "classes: --problem_type=single_label."
        ]
    if len(numbers) <= FEW_NUMBERS and num_rows >= 3 * len(numbers):
        return [
            f"The labels are {len(numbers)} different numbers ({shown_values(sorted(names))}) and "
            "learnt as amounts (regression). If they are classes: --problem_type=single_label."
        ]
    return []


def _odd_number(names: Sequence[str] | dict[str, int]) -> str:
    return next((n for n in sorted(names) if n[:1] == "0" or n[-1:] == "0"), next(iter(names)))


def _names(value: Any, form: LabelFormat) -> list[str]:
    return [clean(value), *form.parts(value)]
