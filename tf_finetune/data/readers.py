"""Files to rows: `(location, {column: value})` pairs, one after the other, never all at once.

Text formats are read as bytes and decoded line by line, so that every error can name its line.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from tf_finetune.data.paths import name_of_set
from tf_finetune.data.records import read_parquet, read_tfrecord
from tf_finetune.errors import UserError
from tf_finetune.files import open_file

Row = tuple[str, dict[str, Any]]
_TEXT = (".tsv", ".csv", ".jsonl")
EXTENSIONS = (*_TEXT, *(name + ".gz" for name in _TEXT), ".parquet", ".tfrecord", ".tfrecords")


def read_file(path: str, header: Sequence[str] = (), skip_ragged: bool = False) -> Iterator[Row]:
    """Reads the rows of one file, in the format that its extension names.

    Args:
        path: A `.tsv` (never quoted), `.csv` (quoted as in RFC 4180), `.jsonl`, each also with
            `.gz`; `.parquet`; or `.tfrecord` of `tf.train.Example`.
        header: Columns of a `.tsv` that has no header line. A first line that contains one of these
            names, or another number of cells, is taken for a header line nevertheless.
        skip_ragged: Leave out rows of a `.tsv` that have too few columns.

    Yields:
        The row's location, and its values by column.

    Raises:
        UserError: An unknown extension; an empty or damaged file.
    """
    name = name_of_set(path)
    found = [known for known in EXTENSIONS if name.endswith(known)]
    if not found:
        raise UserError(
            f"{path}: unknown file extension {Path(name).suffix!r}. Known are "
            f"{', '.join(EXTENSIONS)}."
        )
    extension = max(found, key=len)
    rows: Iterator[Row]
    if extension.startswith(".tsv"):
        rows = _read_tsv(path, header, skip_ragged)
    elif extension.startswith(".csv"):
        rows = _read_csv(path)
    elif extension.startswith(".jsonl"):
        rows = _read_jsonl(path)
    else:
        rows = read_parquet(path) if extension == ".parquet" else read_tfrecord(path)
    empty = True
    for row in rows:
        yield row
        empty = False
    if empty:
        raise UserError(f"{path}: the file has no rows. Give a file with at least one example.")


def read_label_names(path: str) -> tuple[str, ...]:
    """Reads the label names of a `labels.txt`, one a line in order of their index.

    Raises:
        UserError: A name occurs twice, or there is none.
    """
    names: list[str] = []
    for number, line in _read_lines(path):
        if line.strip() in names:
            raise UserError(f"{path}:{number}: the label {line.strip()!r} stands here twice.")
        names += [line.strip()] if line.strip() else []
    if not names:
        raise UserError(f"{path}: the file is empty. It must hold label names, one a line.")
    return tuple(names)


def _read_tsv(path: str, header: Sequence[str], skip_ragged: bool) -> Iterator[Row]:
    columns, is_line = read_header(path, header)
    lines = _read_lines(path)
    if is_line:
        next(lines)
    for number, line in lines:
        location = f"{path}:{number}"
        row = parse_cells(line, location, columns, skip_ragged)
        if row is not None:
            yield location, row


def _read_csv(path: str) -> Iterator[Row]:
    # csv.reader needs the line ends: a quoted cell may contain them.
    csv.field_size_limit(2**31 - 1)  # By default a cell of 131,073 characters is an error.
    reader = csv.reader((line + "\n" for _, line in _read_lines(path)), strict=True)
    columns: list[str] = []
    start = 1
    try:
        for cells in reader:
            location, start = f"{path}:{start}", reader.line_num + 1
            if not columns:
                columns = cells
                _check_header(path, columns)
            elif len(cells) == len(columns):
                yield location, dict(zip(columns, cells, strict=True))
            elif not cells and len(columns) == 1:
                yield location, {columns[0]: ""}
            elif cells:
                raise _ragged(location, columns, cells, "comma")
    except csv.Error as error:
        raise UserError(
            f"{path}:{start}: the row that begins here is not valid CSV ({error}). A cell with a "
            'comma, a quote or a line end is written "in quotes", a quote in it doubled.'
        ) from None
    _check_header(path, columns)


def _read_jsonl(path: str) -> Iterator[Row]:
    for number, line in _read_lines(path):
        location = f"{path}:{number}"
        row = parse_json(line, location)
        if row is not None:
            yield location, row


def read_header(path: str, header: Sequence[str] = ()) -> tuple[Sequence[str], bool]:
    """Returns the columns of a `.tsv`, and whether its first line names them; see `read_file`."""
    _, first = next(_read_lines(path), (0, ""))
    columns = first.split("\t")
    if len(columns) == len(header) and not set(header) & set(columns):
        columns = list(header)
        return columns, False
    _check_header(path, columns)
    return columns, True


def parse_cells(
    line: str, location: str, columns: Sequence[str], skip_ragged: bool = False
) -> dict[str, Any] | None:
    """Returns the row of a line of a `.tsv`; None if it holds none.

    Raises:
        UserError: It has more or fewer cells than there are columns.
    """
    cells = line.split("\t")
    if len(cells) == len(columns):
        return dict(zip(columns, cells, strict=True))
    # A blank line is a row only in a file of one column: an empty cell.
    if not line or (skip_ragged and len(cells) < len(columns)):
        return None
    raise _ragged(location, columns, cells, "tab")


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
    if "\\ud" in line.lower() and not _is_unicode(row):
        raise UserError(f"{location}: half of a surrogate pair (\\ud800...). Correct it.")
    if not isinstance(row, dict):
        raise UserError(
            f"{location}: a JSON {type(row).__name__}; each line must be an object such "
            'as {"text": "...", "label": "..."}.'
        )
    return row


def _is_unicode(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yields line numbers from 1 and lines without their ends."""
    offset = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                text = decode_line(line, f"{path}:{number}", offset)
                offset += len(line)
                yield number, text.removesuffix("\n").removesuffix("\r")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None


def decode_line(line: bytes, location: str, offset: int) -> str:
    """Decodes the line at a byte offset of its file; drops the byte order mark at offset 0.

    Raises:
        UserError: It is not UTF-8, or holds a NUL byte.
    """
    if b"\0" in line:
        raise UserError(
            f"{location}: a NUL byte at byte {offset + line.index(0)} of the file. Is it UTF-16, "
            "or not text? Save it as UTF-8."
        )
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{location}: not UTF-8 at byte {offset + error.start} of the file "
            f"(0x{line[error.start]:02x}). Save the file as UTF-8."
        ) from None
    return text if offset else text.removeprefix("\ufeff")


def _open(path: str) -> BinaryIO:
    file = open_file(path)
    return cast(BinaryIO, gzip.open(file)) if path.endswith(".gz") else file


def _check_header(path: str, columns: Sequence[str]) -> None:
    if not any(columns):
        raise UserError(f"{path}: the file is empty. It must begin with a line of column names.")
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise UserError(f"{path}:1: two columns are named {twice[0]!r}. Rename one.")


def _ragged(location: str, columns: Sequence[str], cells: Sequence[str], mark: str) -> UserError:
    return UserError(
        f"{location}: {len(cells)} columns found, {len(columns)} expected "
        f"({', '.join(columns)}). Look for a {mark} too many or a missing one."
    )
