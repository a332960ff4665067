"""Rows of JSON: one object a line, an array of objects, or a table by columns or by rows."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tf_finetune.data.lines import read_lines
from tf_finetune.errors import UserError

_EXAMPLE = 'an object such as {"text": "...", "label": "..."}'
# Between two rows one comma may stand.
_BETWEEN = re.compile(r"\s*,?\s*")


def parse_json(line: str, location: str) -> dict[str, Any] | None:
    """Returns the row of a line of a `.jsonl`; None if it is blank.

    Raises:
        UserError: It is not a JSON object.
    """
    if not line.strip():
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{location}: not valid JSON ({error}).") from None
    if "\\ud" in line.lower():
        _check_unicode(row, location)
    if not isinstance(row, dict):
        raise UserError(f"{location}: a JSON {type(row).__name__}; each line must be {_EXAMPLE}.")
    return row


def read_json(path: str, line_end: bytes = b"\n") -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads the rows of a JSON file, which is kept in memory whole.

    It is one of: an array of objects; objects one after the other; an object of one such array; or
    what pandas' `to_json` writes by columns (`{"text": {"0": ...}}`), by rows (`{"0": {...}}`) or
    as lists (`{"text": [...]}`).

    Yields:
        `file:line` of the row, or of the table's beginning; and the values by column.

    Raises:
        UserError: Not JSON, or of another form.
    """
    text = "\n".join(line for _, line in read_lines(path, line_end))
    place = _Place(path, text)
    start = len(text) - len(text.lstrip())
    if text.startswith("[", start):
        yield from _objects(text, start + 1, "]", place)
        return
    found = list(_objects(text, start, "", place))
    if len(found) == 1:
        location, row = found[0]
        found = [(location, part) for part in _rows_of_table(row, location)]
    yield from found


class _Place:
    """Line numbers of increasing positions in a text."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.line, self.position = 1, 0

    def __call__(self, position: int) -> str:
        self.line += self.text.count("\n", self.position, position)
        self.position = position
        return f"{self.path}:{self.line}"


def _objects(
    text: str, position: int, end: str, place: _Place
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the objects from a position to the end of an array, or of the text."""
    decode = json.JSONDecoder().raw_decode
    escapes = re.search(r"\\u[dD]", text) is not None
    while True:
        between = _BETWEEN.match(text, position)
        position = between.end() if between else position
        if position == len(text) or (end and text.startswith(end, position)):
            break
        location = place(position)
        try:
            row, position = decode(text, position)
        except (ValueError, RecursionError) as error:
            message = getattr(error, "msg", error)
            line = place(getattr(error, "pos", position))
            raise UserError(f"{line}: not valid JSON ({message}).") from None
        if not isinstance(row, dict):
            raise UserError(
                f"{location}: a JSON {type(row).__name__}; each row must be {_EXAMPLE}."
            )
        if escapes:
            _check_unicode(row, location)
        yield location, row
    rest = text[position + len(end) :].strip()
    if position == len(text) and end:
        raise UserError(f"{place(position)}: not valid JSON (the array does not end).")
    if rest:
        raise UserError(f"{place(position)}: not valid JSON ({rest[:20]!r} after the end).")


def _rows_of_table(table: Mapping[str, Any], location: str) -> list[dict[str, Any]]:
    """Returns the rows of a single object; itself, if it is one row."""
    values = list(table.values())
    names, rows = (table.get(key) or () for key in ("columns", "data"))
    is_split = isinstance(names, list) and isinstance(rows, list)
    if is_split and all(map(_is_scalar, names)) and all(isinstance(row, list) for row in rows):
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(f"{location}: two columns are named {twice[0]!r}. Rename one.")
        if not all(isinstance(row, list) and len(row) == len(names) for row in rows):
            raise UserError(f"{location}: a row of 'data' has not a value for each of 'columns'.")
        return [dict(zip(map(str, names), row, strict=True)) for row in rows]
    arrays = [v for v in values if isinstance(v, list) and v and isinstance(v[0], dict)]
    if len(arrays) == 1 and all(isinstance(row, dict) for row in arrays[0]):
        return arrays[0]
    if len(arrays) > 1:
        names = [name for name, value in table.items() if any(value is a for a in arrays)]
        raise UserError(
            f"{location}: an object of several arrays of rows, {', '.join(names)}. Write each into "
            "a file of its own."
        )
    if values and all(isinstance(value, dict) for value in values):
        if all(name.isdigit() for name in table):
            return values
        if any(name.isdigit() for name in values[0]):
            return _transposed(
                {name: list(value.items()) for name, value in table.items()}, location
            )
    if len(values) > 1 and all(isinstance(value, list) for value in values):
        return _transposed(
            {name: list(enumerate(value)) for name, value in table.items()}, location
        )
    return [dict(table)]


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _transposed(
    columns: Mapping[str, list[tuple[Any, Any]]], location: str
) -> list[dict[str, Any]]:
    keys = {name: [key for key, _ in cells] for name, cells in columns.items()}
    first = next(iter(keys))
    for name in keys:
        if keys[name] != keys[first]:
            raise UserError(
                f"{location}: the column {name!r} has other rows than {first!r} "
                f"({len(keys[name])} and {len(keys[first])}). Write one object a row."
            )
    cells = ([cell for _, cell in column] for column in columns.values())
    return [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]


def _check_unicode(row: Any, location: str) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(f"{location}: half of a surrogate pair (\\ud800...). Correct it.") from None
