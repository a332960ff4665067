"""A short account of the data for the screen: what there is, and what may be wrong with it."""

from collections.abc import Mapping, Sequence

import numpy as np

from tf_finetune.data.labelled import Examples, TextData

# With more labels than this, only the most and the least frequent are shown.
MOST_LABELS = 10
WIDEST_NAME = 40


def data_report(data: TextData) -> str:
    """Describes all splits: rows, empty texts, labels, duplicates, and rows in several splits.

    Args:
        data: The examples.

    Returns:
        At most some 25 lines. Control characters of the data are escaped.
    """
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    splits = {split: examples for split, examples in named.items() if examples is not None}
    problem = data.problem
    kind: str = problem.problem_type
    if kind != "regression":
        kind += f" ({problem.num_outputs} labels)"
    columns = ", ".join(map(_shown, problem.text_columns))
    parts = [f"Data: {kind} on {columns}", *_row_table(splits)]
    labelled = {split: rows.labels for split, rows in splits.items() if rows.labels is not None}
    if labelled:
        numeric = problem.problem_type == "regression"
        parts += _number_table(labelled) if numeric else _label_table(labelled, problem.label_names)
    parts += _repetitions(splits)
    return "\n".join(parts)


def length_report(lengths: Mapping[str, np.ndarray], max_seq_length: int) -> str:
    """Describes how long the rows are, and how many are cut.

    Args:
        lengths: The tokens of each row before truncation, int [n], by split.
        max_seq_length: Where rows are cut.

    Returns:
        A table with a line per split.
    """
    lines = [["tokens", "median", "90 %", "99 %", "longest", f"cut at {max_seq_length}"]]
    for split, values in lengths.items():
        marks = np.percentile(values, (50, 90, 99, 100)) if len(values) else np.zeros(4)
        cut = int(np.count_nonzero(values > max_seq_length))
        share = cut / max(1, len(values))
        lines.append([split, *(f"{mark:.0f}" for mark in marks), f"{cut:,} ({share:.1%})"])
    return "\n".join(aligned(lines))


def _row_table(splits: Mapping[str, Examples]) -> list[str]:
    lines = [["", "rows", "empty texts", "labels"]]
    for split, rows in splits.items():
        empty = sum(not text.strip() for column in rows.texts for text in column)
        labelled = "no" if rows.labels is None else "yes"
        lines.append([split, f"{len(rows):,}", f"{empty:,}", labelled])
    return aligned(lines)


def _number_table(labelled: Mapping[str, np.ndarray]) -> list[str]:
    lines = [["label", "smallest", "mean", "largest", "std. dev."]]
    for split, values in labelled.items():
        numbers = (values.min(), values.mean(), values.max(), values.std())
        lines.append([split, *(f"{number:.4g}" for number in numbers)])
    return aligned(lines)


def _label_table(labelled: Mapping[str, np.ndarray], names: Sequence[str]) -> list[str]:
    counts = {
        split: np.bincount(labels, minlength=len(names))
        if labels.ndim == 1
        else labels.sum(axis=0).astype(int)
        for split, labels in labelled.items()
    }
    first = next(iter(counts.values()))
    order = np.argsort(-first, kind="stable")
    lines = [["label", *counts]]
    for place, label in enumerate(order):
        hidden = len(order) - MOST_LABELS if len(order) > MOST_LABELS else 0
        if hidden and place == MOST_LABELS // 2:
            lines.append([f"... {hidden} more", *("" for _ in counts)])
        if not hidden or not MOST_LABELS // 2 <= place < MOST_LABELS // 2 + hidden:
            cells = (
                f"{count[label]:,} ({count[label] / len(labelled[split]):.1%})"
                for split, count in counts.items()
            )
            lines.append([_shown(names[label]), *cells])
    table = aligned(lines)
    missing = int(np.count_nonzero(first == 0))
    if missing:
        table.append(f"{missing} of {len(names)} labels never occur in {next(iter(counts))}.")
    for split, labels in labelled.items():
        without = np.count_nonzero(labels.sum(axis=1) == 0) if labels.ndim == 2 else 0
        if without:
            table.append(f"{without:,} rows of {split} have no label.")
    return table


def _repetitions(splits: Mapping[str, Examples]) -> list[str]:
    """Counts rows whose texts stood before: in the same split, and in the training data."""
    lines = []
    trained: dict[tuple[str, ...], int] = {}
    for split, rows in splits.items():
        seen: dict[tuple[str, ...], int] = {}
        repeated, conflicts, leaked = 0, [], 0
        for row, texts in enumerate(zip(*rows.texts, strict=True)):
            earlier = seen.setdefault(texts, row)
            leaked += texts in trained
            if earlier != row:
                repeated += 1
                if rows.labels is not None and np.any(rows.labels[earlier] != rows.labels[row]):
                    conflicts.append((earlier, row))
        if repeated:
            line = f"{repeated:,} rows of {split} repeat an earlier row's text"
            if conflicts:
                first, second = conflicts[0]
                where = f"e.g. {_place(rows, first)} and {_place(rows, second)}"
                line += f", {len(conflicts):,} with another label ({where})"
            lines.append(line + ".")
        if leaked:
            share = leaked / len(rows)
            lines.append(f"{leaked:,} rows of {split} ({share:.1%}) stand in train too.")
        if split == "train":
            trained = seen
    return lines or ["No row occurs twice."]


def _place(rows: Examples, row: int) -> str:
    return rows.locations[row] if rows.locations else f"row {row + 1}"


def _shown(text: str) -> str:
    escaped = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return escaped if len(escaped) <= WIDEST_NAME else escaped[: WIDEST_NAME - 3] + "..."


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table: its first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
