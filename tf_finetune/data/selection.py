"""Which rows of each split are used: not those of ignored labels, and some are held out."""

import re
from collections.abc import Sequence
from typing import Any

from tf_finetune.data.columns import Columns
from tf_finetune.data.held_out import held_out_rows
from tf_finetune.data.label_cells import clean, is_list, rows_text
from tf_finetune.data.label_format import LabelFormat
from tf_finetune.data.problem import ProblemType
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


def without_labels(cells: Columns, ignored: Sequence[str], split: str) -> tuple[Columns, list[str]]:
    """Leaves out the rows of some labels; of the test split only their labels, not the rows.

    Args:
        cells: Those of the split.
        ignored: The labels.
        split: Its name.

    Returns:
        The remaining cells, and a notice for each label that was found.
    """
    names = {clean(label) for label in ignored}
    if cells.labels is None:
        return cells, []
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(cells.labels):
        for part in value if is_list(value) else [value]:
            if (name := clean(part)) in names:
                rows.setdefault(name, []).append(row)
                break
    gone = {row for found in rows.values() for row in found}
    what = "count as without a label" if split == "test" else "left out"
    notices = [
        f"{rows_text(len(found))} of {split} with the label {name!r} {what} "
        f"(first {cells.locations[found[0]]}), as --ignore_labels says."
        for name, found in rows.items()
    ]
    if not gone:
        return cells, []
    if split == "test":
        labels = [None if row in gone else value for row, value in enumerate(cells.labels)]
        return Columns(cells.texts, labels, cells.locations, cells.ids), notices
    if len(gone) == len(cells):
        raise UserError(f"{notices[0]} No row of {split} is left.")
    return cells.take(row for row in range(len(cells)) if row not in gone), notices


def hold_out(
    splits: dict[str, Columns], config: DataConfig, problem_type: ProblemType
) -> tuple[dict[str, Columns], list[str]]:
    """Divides the training rows as `validation_fraction` and `test_fraction` say.

    Each class gives its share; of rows with several labels the first one counts, and amounts are
    one class. Rows without a label are not held out.

    Args:
        splits: The cells of each split.
        config: The fractions.
        problem_type: What the labels are.

    Returns:
        The cells of each split now, and a notice.

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
        classes = [None if value is None else _first_label(value) for value in values]
    else:
        amounts = problem_type == "regression"
        classes = [("amount" if amounts else name) if (name := clean(v)) else None for v in values]
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
    return {**splits, **{split: train.take(found) for split, found in rows.items()}}, [notice]


def _first_label(value: Any) -> str:
    if vector := LabelFormat().vector(value):
        return str(vector.index(1)) if 1 in vector else ""
    parts = map(clean, value) if is_list(value) else re.split("[,;|]", clean(value))
    return min(parts, default="")
