"""Files to rows: `(location, {column: value})` pairs, one after the other, never all at once.

Text formats are read as bytes and decoded line by line, so that every error can name its line.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tf_finetune.data.file_format import FileFormat, Kind, find_format
from tf_finetune.data.json_rows import parse_json, read_json
from tf_finetune.data.lines import read_lines
from tf_finetune.data.quoting import quoted_reader
from tf_finetune.data.records import read_parquet, read_tfrecord
from tf_finetune.data.table_dialect import Dialect
from tf_finetune.data.text_folders import read_folder, read_text
from tf_finetune.data.workbooks import read_workbook
from tf_finetune.errors import UserError

Row = tuple[str, dict[str, Any]]


def read_file(file: FileFormat | str) -> Iterator[Row]:
    """Reads the rows of one file.

    Args:
        file: From `find_format`, or the path.

    Yields:
        The row's location, and its values by column.

    Raises:
        UserError: An empty or damaged file; or see `find_format`.
    """
    if isinstance(file, str):
        file = find_format(file)
    empty = True
    for row in _READERS[file.kind](file):
        yield row
        empty = False
    if empty:
        raise UserError(
            f"{file.path}: the file has no rows. Give a file with at least one example."
        )


def read_label_names(path: str) -> tuple[str, ...]:
    """Reads the label names of a `labels.txt`, one a line in order of their index.

    Raises:
        UserError: A name occurs twice, or there is none.
    """
    names: list[str] = []
    for number, line in read_lines(path):
        if line.strip() in names:
            raise UserError(f"{path}:{number}: the label {line.strip()!r} stands here twice.")
        names += [line.strip()] if line.strip() else []
    if not names:
        raise UserError(f"{path}: the file is empty. It must hold label names, one a line.")
    return tuple(names)


def _read_table(file: FileFormat) -> Iterator[Row]:
    dialect = file.dialect
    assert dialect
    lines = read_lines(file.path, file.line_end)
    for _ in range(dialect.skipped_lines):
        next(lines)
    if dialect.quoted:
        yield from _read_quoted(file.path, lines, dialect)
        return
    if dialect.has_header:
        next(lines)
    for number, line in lines:
        location = f"{file.path}:{number}"
        row = parse_cells(line, location, dialect)
        if row is not None:
            yield location, row


def _read_quoted(path: str, lines: Iterator[tuple[int, str]], dialect: Dialect) -> Iterator[Row]:
    reader = quoted_reader((line for _, line in lines), dialect.separator, dialect.skip_blanks)
    columns = dialect.columns
    before = dialect.skipped_lines + 1
    start = before
    header = dialect.has_header
    try:
        for cells in reader:
            location, start = f"{path}:{start}", reader.line_num + before
            if header:
                header = False
            elif len(cells) == len(columns):
                _check_no_header(cells, location, dialect)
                yield location, dict(zip(columns, cells, strict=True))
            elif not cells and len(columns) == 1:
                yield location, {columns[0]: ""}
            elif cells and not (dialect.skip_ragged and len(cells) < len(columns)):
                raise _ragged(location, dialect, cells)
    except csv.Error as error:
        raise UserError(
            f"{path}:{start}: the row that begins here is not valid CSV ({error}). A cell with a "
            'separator, a quote or a line end is written "in quotes", a quote in it doubled. If '
            "quotes are a part of the texts: --quoting=none."
        ) from None


def _read_jsonl(file: FileFormat) -> Iterator[Row]:
    for number, line in read_lines(file.path, file.line_end):
        location = f"{file.path}:{number}"
        row = parse_json(line, location)
        if row is not None:
            yield location, row


_READERS: dict[Kind, Callable[[FileFormat], Iterator[Row]]] = {
    "table": _read_table,
    "jsonl": _read_jsonl,
    "json": lambda file: read_json(file.path, file.line_end),
    "parquet": lambda file: read_parquet(file.path),
    "tfrecord": lambda file: read_tfrecord(file.path),
    "workbook": lambda file: read_workbook(file.path, file.has_header),
    "text": lambda file: read_text(file.path),
    "folder": lambda file: read_folder(file.path),
}


def parse_cells(line: str, location: str, dialect: Dialect) -> dict[str, Any] | None:
    """Returns the row of a line of an unquoted table; None if it holds none.

    Raises:
        UserError: It has more or fewer cells than there are columns.
    """
    cells, columns = line.split(dialect.separator), dialect.columns
    if len(cells) == len(columns):
        _check_no_header(cells, location, dialect)
        return dict(zip(columns, cells, strict=True))
    # A blank line is a row only in a file of one column: an empty cell.
    if not line or (dialect.skip_ragged and len(cells) < len(columns)):
        return None
    raise _ragged(location, dialect, cells)


def _check_no_header(cells: Sequence[str], location: str, dialect: Dialect) -> None:
    columns = dialect.columns
    # The first cell alone is looked at in nearly all rows.
    is_header = len(columns) > 1 and dialect.has_header and columns[0] in cells[0]
    if is_header and [cell.strip("\ufeff \t") for cell in cells] == list(columns):
        raise UserError(
            f"{location}: the column names stand here again, as where files were joined. Remove "
            "this line."
        )


def _ragged(location: str, dialect: Dialect, cells: Sequence[str]) -> UserError:
    hint = ""
    if not dialect.quoted and any(cell.startswith('"') for cell in cells):
        hint = " If cells stand in quotes: --quoting=minimal."
    return UserError(
        f"{location}: {len(cells)} columns found, {len(dialect.columns)} expected "
        f"({', '.join(dialect.columns)}). Look for {dialect.separator_name} too many or missing."
        f"{hint}"
    )
