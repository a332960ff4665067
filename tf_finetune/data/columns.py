"""The cells of the text columns and the label column of a split, checked."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_finetune.data.splits import Table
from tf_finetune.errors import UserError


@dataclass(frozen=True)
class Columns:
    """The cells of a split before its labels are encoded.

    Attributes:
        texts: For each text column the text of each row.
        labels: The value of each row's label as in the file; None if there are no labels.
        locations: The location of each row, as `file:line`.
    """

    texts: tuple[list[str], ...]
    labels: list[Any] | None
    locations: list[str]


def read_columns(
    tables: Sequence[Table],
    text_columns: Sequence[str],
    label_column: str | None,
    aliases: Mapping[str, Sequence[str]] | None = None,
    *,
    may_lack_labels: bool = False,
) -> Columns:
    """Reads the texts and label values of a split.

    Args:
        tables: The split's files.
        text_columns: The columns of the texts.
        label_column: The column of the label; None: there is none.
        aliases: Other names for these columns, used where the first name is missing.
        may_lack_labels: Whether the label column may be missing, or blank or -1 in every row, as in
            published test sets.

    Returns:
        The cells, column by column.

    Raises:
        UserError: A column is missing, or a cell is not a text; the message says where.
    """
    texts: tuple[list[str], ...] = tuple([] for _ in text_columns)
    labels: list[Any] = []
    locations: list[str] = []
    for table in tables:
        rows = table()
        first = next(rows)
        text_names = [_present(column, first[1], aliases) for column in text_columns]
        label_name = _present(label_column, first[1], aliases) if label_column else None
        for location, row in itertools.chain([first], rows):
            try:
                for name, column in zip(text_names, texts, strict=True):
                    cell = row[name]
                    if type(cell) is not str or "\0" in cell:
                        cell = _to_text(cell, name, location)
                    column.append(cell)
                if label_name is None or (may_lack_labels and label_name not in row):
                    labels.append(None)
                else:
                    labels.append(row[label_name])
            except KeyError as error:
                flag = "label_column" if error.args[0] == label_name else "text_columns"
                raise UserError(
                    f"{location}: there is no column {error.args[0]!r}; the columns are "
                    f"{', '.join(row)}. Correct the file or --{flag}."
                ) from None
            locations.append(location)
    unlabelled = label_column is None or (may_lack_labels and all(map(_is_blank, labels)))
    return Columns(texts, None if unlabelled else labels, locations)


def _present(
    column: str, row: Mapping[str, Any], aliases: Mapping[str, Sequence[str]] | None
) -> str:
    names = (column, *(aliases or {}).get(column, ()))
    return next((name for name in names if name in row), column)


def _is_blank(label: Any) -> bool:
    return label is None or (not isinstance(label, list) and label in ("", b"", -1, "-1"))


def _to_text(cell: Any, column: str, location: str) -> str:
    if isinstance(cell, bytes):
        try:
            cell = cell.decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{location}: column {column!r} is not UTF-8 at byte {error.start} of the text."
            ) from None
    # JSON and Parquet have numbers: a text such as 42 may have been written without its quotes.
    if isinstance(cell, int | float) and not isinstance(cell, bool) and cell == cell:
        return str(cell)
    if not isinstance(cell, str):
        raise UserError(f"{location}: column {column!r} holds {cell!r:.80}, which is not a text.")
    if "\0" in cell:
        raise UserError(f"{location}: a NUL character in column {column!r}. Remove it.")
    return cell
