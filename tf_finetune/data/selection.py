"""Which rows of each split are used: not those of ignored labels, and some are held out."""

import re
from typing import Any

from tf_finetune.data.columns import Columns
from tf_finetune.data.held_out import held_out_rows
from tf_finetune.data.label_cells import clean, is_list, number, parse_list, spelling_key
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.label_format import LabelFormat
from tf_finetune.data.problem import ProblemType
from tf_finetune.data.wording import rows_text
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


def labelled_rows(cells: Columns) -> tuple[list[Any], list[str]]:
    """Returns the labels that are there, and their locations."""
    if cells.labels is None:
        return [], []
    if None not in cells.labels:
        return cells.labels, cells.locations
    rows = [row for row, value in enumerate(cells.labels) if value is not None]
    found = cells.take(rows)
    return found.labels or [], found.locations


def without_labels(cells: Columns, config: LabelConfig, split: str) -> tuple[Columns, list[str]]:
    """Leaves out the rows of `ignore_labels`.

    Args:
        cells: Those of the split.
        config: The labels, and how several of one row are written.
        split: The split's name.

    Returns:
        The remaining cells, and a notice for each label that was found.

    Raises:
        UserError: No row remains.
    """
    gone, notices = _find_ignored(cells, config, split, "left out")
    if gone and len(gone) == len(cells):
        raise UserError(f"{notices[0]} No row of {split} is left.")
    if not gone:
        return cells, notices
    return cells.take(row for row in range(len(cells)) if row not in gone), notices


def unlabel(cells: Columns, config: LabelConfig, split: str) -> tuple[Columns, list[str]]:
    """Leaves out some labels, but not their rows; see `without_labels`."""
    gone, notices = _find_ignored(cells, config, split, "count as without a label")
    if not gone or cells.labels is None:
        return cells, notices
    labels = [None if row in gone else value for row, value in enumerate(cells.labels)]
    return Columns(cells.texts, labels, cells.locations, cells.ids), notices


def _find_ignored(
    cells: Columns, config: LabelConfig, split: str, what: str
) -> tuple[set[int], list[str]]:
    """Returns the rows that have one of the labels, and a notice for each label."""
    ignored = {_key(clean(label)): label for label in config.ignore_labels}
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(cells.labels or ()):
        if found := ignored.keys() & map(_key, (clean(value), *_parts(value, config))):
            rows.setdefault(ignored[min(found)], []).append(row)
    notices = [
        f"{rows_text(len(found))} of {split} with the label {name!r} {what} "
        f"(first {cells.locations[found[0]]}), as --ignore_labels says."
        for name, found in rows.items()
    ]
    return {row for found in rows.values() for row in found}, notices


def hold_out(
    splits: dict[str, Columns], config: DataConfig, labels: LabelConfig, problem_type: ProblemType
) -> tuple[dict[str, Columns], list[str]]:
    """Divides the training rows as `validation_fraction` and `test_fraction` say.

    Each class gives its share; of rows with several labels the first by alphabet counts, and
    amounts are one class. Rows without a label are not held out.

    Args:
        splits: The cells of each split.
        config: The fractions.
        labels: How several labels of one row are written.
        problem_type: What the labels are.

    Returns:
        The cells of `train` now and of those that were held out, and a notice.

    Raises:
        UserError: A split is there already, or one would be empty.
    """
    shares = {"validation": config.validation_fraction, "test": config.test_fraction}
    for split, share in shares.items():
        if share and split in splits:
            raise UserError(
                f"--{split}_fraction={share}: there are {split} examples already "
                f"({splits[split].locations[0]}). Leave one of them out."
            )
    train = splits["train"]
    values = train.labels or [None] * len(train)
    classes: list[str | None]
    if problem_type == "multi_label":
        classes = [
            None if value is None or value != value else _first_label(value, labels)
            for value in values
        ]
    else:
        amounts = problem_type == "regression"
        classes = [("amount" if amounts else name) if (name := clean(v)) else None for v in values]
    if not any(name is not None for name in classes):
        raise UserError(f"{train.locations[0]}: no row has a label to be divided by. Add labels.")
    rows = held_out_rows(train.texts, classes, config.validation_fraction, config.test_fraction)
    for split, found in rows.items():
        if not found:
            raise UserError(
                f"--{split}_fraction: none of the {len(train)} rows falls into {split}. Choose "
                "another share, or give more rows."
            )
    counts = ", ".join(f"{len(found):,} for {split}" for split, found in rows.items())
    notice = (
        f"The training rows are divided by a hash of their text: {counts}. Rows of one text stay "
        "together, and rows that are added at the end move none; split.tsv in the model directory "
        "lists what was held out."
    )
    return {split: train.take(found) for split, found in rows.items()}, [notice]


def _key(name: str) -> str:
    """Returns one spelling of a label: 9.0 is 9."""
    return name if number(name) is None else spelling_key([name])[name]


def _parts(value: Any, config: LabelConfig) -> list[str]:
    """Returns the labels of a cell that may hold several."""
    if isinstance(value, str) and (found := parse_list(value)) is not None:
        value = found
    if is_list(value):
        return list(map(clean, value))
    if config.problem_type != "multi_label":
        return []
    marks = re.escape(config.separator) if config.separator else "[,;|]"
    return [part.strip() for part in re.split(marks, clean(value))]


def _first_label(value: Any, config: LabelConfig) -> str:
    if vector := LabelFormat().vector(value):
        return str(vector.index(1)) if 1 in vector else ""
    return min(_parts(value, config), default=clean(value))
