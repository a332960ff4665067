"""The cells of the text columns, the labels and the ids of a split, checked."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from tf_finetune.data.keys import FIRST_ROWS, column_names, find_column, first_keys, listed
from tf_finetune.data.label_cells import is_nested
from tf_finetune.data.splits import Table
from tf_finetune.data.tasks import Layout
from tf_finetune.errors import UserError


@dataclass(frozen=True)
class Columns:
    """The cells of a split before its labels are encoded.

    Attributes:
        texts: For each text column the text of each row.
        labels: The value of each row's label as in the file, None where the row has none; a list
            of them with a column for each label. None if there are no labels.
        locations: The location of each row, as `file:line`.
        ids: The value of the id column for each row; empty: there is no such column.
    """

    texts: tuple[list[str], ...]
    labels: list[Any] | None
    locations: list[str]
    ids: list[Any]

    def __len__(self) -> int:
        return len(self.locations)

    def take(self, rows: Iterable[int]) -> "Columns":
        """Returns some rows."""
        rows = list(rows)

        def taken(column: list[Any]) -> list[Any]:
            return [column[row] for row in rows] if column else column

        labels = None if self.labels is None else taken(self.labels)
        return Columns(
            tuple(map(taken, self.texts)), labels, taken(self.locations), taken(self.ids)
        )


def read_columns(
    tables: Sequence[Table],
    layout: Layout,
    id_column: str | None = None,
    *,
    may_lack_labels: bool = False,
    may_lack_ids: bool = False,
) -> Columns:
    """Reads the texts and label values of a split.

    Args:
        tables: The split's files.
        layout: The columns; its aliases are used where a name is missing. A name with points, such
            as `data.text`, that is no column itself leads into a JSON object.
        id_column: The column of ids; None: there is none.
        may_lack_labels: Whether the label column may be missing, or blank or -1 in every row, as in
            published test sets.
        may_lack_ids: Whether the id column may be missing.

    Returns:
        The cells, column by column.

    Raises:
        UserError: A column is missing, or a cell is not a text; the message says where.
    """
    texts: tuple[list[str], ...] = tuple([] for _ in layout.text_columns)
    labels: list[Any] = []
    locations: list[str] = []
    ids: list[Any] = []
    for table in tables:
        rows = table()
        first = list(itertools.islice(rows, FIRST_ROWS))
        keys = first_keys(row for _, row in first)
        getters = [_getter(column, keys, layout.aliases) for column in layout.text_columns]
        columns = list(zip(getters, layout.text_columns, texts, strict=True))
        get_label = _label_getter(layout, keys, first[0], may_lack_labels)
        get_id = _getter(id_column, keys, {}) if id_column else None
        if get_id and may_lack_ids and find_column(id_column or "", keys, {}) is None:
            get_id = None
        for location, row in itertools.chain(first, rows):
            try:
                for get, name, column in columns:
                    cell = get(row)
                    if type(cell) is not str or "\0" in cell:
                        cell = _to_text(cell, name, location)
                    column.append(cell)
                if get_id:
                    name = id_column or ""
                    ids.append(_to_id(get_id(row)))
            except KeyError:
                flag = "id_column" if name == id_column else "text_columns"
                raise _no_column(location, name, row, flag) from None
            labels.append(get_label(row))
            locations.append(location)
    labels = _checked_labels(labels, locations, layout.label_column or "")
    has_none = not (layout.label_column or layout.label_columns)
    unlabelled = has_none or (may_lack_labels and all(map(is_unlabelled, labels)))
    # Of several files all or none have ids.
    ids = ids if len(ids) == len(locations) else []
    return Columns(texts, None if unlabelled else labels, locations, ids)


def _checked_labels(labels: list[Any], locations: Sequence[str], column: str) -> list[Any]:
    """Returns label values; truth values as text, as Python takes True for 1.

    Raises:
        UserError: One is an object, or a list of them.
    """
    kinds = set(map(type, labels))
    if bool in kinds:
        labels = [str(label).lower() if isinstance(label, bool) else label for label in labels]
    if not kinds.isdisjoint((dict, list, tuple)):
        for label, location in zip(labels, locations, strict=True):
            if is_nested(label):
                inner = column_names({column: label})[0]
                hint = f" Name its part: --label_column={inner}." if inner != column else ""
                raise UserError(
                    f"{location}: the label is {label!r:.80}, an object or a list of them, not a "
                    f"label.{hint}"
                )
    return labels


def is_unlabelled(label: Any) -> bool:
    """Whether a label is what published test sets have in place of one: nothing, or -1."""
    if isinstance(label, list):
        return all(part is None for part in label)
    return label is None or label in ("", b"", -1, "-1")


def _getter(
    name: str, row: Mapping[str, Any], aliases: Mapping[str, Sequence[str]]
) -> Callable[[Mapping[str, Any]], Any]:
    path = find_column(name, row, aliases) or [name]
    if len(path) == 1:
        return itemgetter(path[0])

    def get(row: Any) -> Any:
        for key in path:
            if not isinstance(row, dict):
                raise KeyError(key)
            row = row[key]
        return row

    return get


def _label_getter(
    layout: Layout, keys: Mapping[str, Any], first: tuple[str, Any], may_lack: bool
) -> Callable[[Mapping[str, Any]], Any]:
    names = layout.label_columns or (layout.label_column,)
    getters = []
    for name in filter(None, names):
        path = find_column(name, keys, layout.aliases)
        if path is None and not may_lack:
            flag = "label_columns" if layout.label_columns else "label_column"
            raise _no_column(first[0], name, keys, flag)
        getters.append(_getter(name, keys, layout.aliases))
        if path and len(path) == 1 and not layout.label_columns:
            key = path[0]
            return lambda row: row.get(key)

    def get(row: Mapping[str, Any]) -> Any:
        values = []
        for getter in getters:
            try:
                values.append(getter(row))
            except KeyError:
                values.append(None)
        return values if layout.label_columns else values[0] if values else None

    return get


def _no_column(location: str, name: str, row: Mapping[str, Any], flag: str) -> UserError:
    remedy = f"Correct the file or --{flag}."
    if flag == "id_column":
        remedy += " --id_column= reads no ids."
    if "," in name and all(part in row for part in name.split(",")):
        remedy = f"For a column of 0 and 1 for each label: --label_columns={name}."
    return UserError(
        f"{location}: there is no column {name!r}; the columns are {listed(column_names(row))}. "
        f"{remedy}"
    )


def _to_id(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value if isinstance(value, str | int | float | None) else str(value)


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
