"""`Dialect`: how a table of text is written: separator, quotes, header line."""

import csv
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tf_finetune.data.paths import extension
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

SEPARATORS = {"\t": "a tab", ",": "','", ";": "';'", "|": "'|'"}
# Flags write these by name: blanks at the end of a value are lost.
NAMED = {"tab": "\t", "space": " ", "comma": ",", "semicolon": ";", "bar": "|"}
# The records that are looked at; a wrong separator or quote shows in few.
_SAMPLE = 200
# A cell at the end of the sample that was opened by a quote has fewer lines than this.
_LONGEST = 50
_LONG_TEXT_WORDS = 5
csv.field_size_limit(2**31 - 1)  # By default a cell of 131,073 characters is an error.


@dataclass(frozen=True)
class Dialect:
    """How a table of text is written.

    Attributes:
        separator: The character between two cells.
        quoted: Whether cells may stand in double quotes, as in RFC 4180.
        skip_blanks: Whether a quote counts after blanks too.
        columns: The names of the columns.
        skipped_lines: The lines before the first row, or before the header record.
        has_header: Whether a header comes before the rows.
        skip_ragged: Whether rows with too few cells are left out.
    """

    separator: str
    quoted: bool
    skip_blanks: bool
    columns: tuple[str, ...]
    skipped_lines: int
    has_header: bool
    skip_ragged: bool = False

    @property
    def separator_name(self) -> str:
        """The separator as a message names it."""
        return SEPARATORS.get(self.separator, repr(self.separator))


def find_dialect(
    path: str,
    lines: Sequence[str],
    config: DataConfig,
    columns: Sequence[str] = (),
    skip_ragged: bool = False,
    *,
    is_cut: bool = False,
) -> tuple[Dialect, list[str]]:
    """Finds out how a table is written.

    Args:
        path: The file, for messages.
        lines: Its first lines, without their ends.
        config: Its `field_separator`, `quoting` and `header`.
        columns: The columns of a table without a header line; see `find_format`.
        skip_ragged: Whether rows with too few cells are left out.
        is_cut: Whether the file has more lines.

    Returns:
        The dialect, and a notice for each way in which it differs from what is usual.

    Raises:
        UserError: The file is empty, its header cannot be used, or there are two ways to read it.
    """
    notices = []
    skipped = 0
    given = NAMED.get(config.field_separator, config.field_separator)
    if given != "auto" and len(given) != 1:
        raise UserError(
            f"--field_separator={given}: allowed are one character, auto, {', '.join(NAMED)}. "
            "Replace a longer separator in the file."
        )
    if lines and (found := re.fullmatch(r'"?sep=(.)"?', lines[0])):
        skipped, lines = 1, lines[1:]
        if given == "auto":
            given = found[1]
            notices.append(f"its first line says that {given!r} separates the cells.")
    if not any(lines[:1]):
        raise UserError(f"{path}: the file is empty. It must begin with a line of column names.")
    usual, quoted = (",", True) if extension(path) == ".csv" else ("\t", False)
    quoted = {"minimal": True, "none": False}.get(config.quoting, quoted)
    separator = given
    if given == "auto":
        separator = _find_separator(path, lines, usual, quoted)
        if separator != usual:
            name = next((n for n, mark in NAMED.items() if mark == separator), separator)
            notices.append(
                f"its cells are separated by {SEPARATORS[separator]}, as its first lines show "
                f"(--field_separator={name} says it, another value overrules it)."
            )
    if config.quoting == "auto":
        quoted, said = _find_quoting(lines, separator, quoted, is_cut)
        notices += said
    skip_blanks = quoted and _is_better_without_blanks(lines, separator)
    if skip_blanks:
        notices.append("blanks around the quotes of cells are dropped.")
    records = _records(lines, separator, quoted, skip_blanks)
    first = records[0] if records else list(lines[:1])
    names = tuple(name.strip() for name in first)
    has_header = True
    if config.header == "none":
        names, has_header = tuple(str(n) for n in range(1, len(first) + 1)), False
    elif len(first) == len(columns) and not set(columns) & set(first):
        names, has_header = tuple(columns), False
    else:
        if list(names) != first:
            blank = next(name for name in first if name != name.strip())
            notices.append(f"blanks around column names are dropped, as in {blank!r}.")
        doubt = ""
        if config.header == "auto" and _looks_like_data(first, records[1:]):
            doubt = (
                f"the first row ({_shown(first)}) was taken for column names, but looks "
                "like the rows below it. If it is one: --header=none, which names the columns "
                "1, 2, ...; if not: --header=first_row."
            )
            notices.append(doubt)
        _check_names(path, names, skipped + 1, doubt)
    dialect = Dialect(separator, quoted, skip_blanks, names, skipped, has_header, skip_ragged)
    return dialect, notices


def _find_separator(path: str, lines: Sequence[str], usual: str, quoted: bool) -> str:
    counts = {
        mark: [len(record) for record in _records(lines, mark, quoted) if any(record)]
        for mark in dict.fromkeys((usual, *SEPARATORS))
    }
    # Where quotes do not end, the records of a separator are not known.
    fitting = {mark: found for mark, found in counts.items() if found and found[0] > 1}
    even = [mark for mark, found in fitting.items() if len(set(found)) == 1]
    if usual in even or not fitting:
        return usual
    if usual in fitting and not (even and len(counts[usual]) > 1):
        return usual
    chosen = even or list(fitting)
    if usual in fitting or len(chosen) > 1:
        marks = dict.fromkeys((*([usual] if usual in fitting else []), *chosen))
        readings = " or ".join(f"{SEPARATORS[m]} ({counts[m][0]} columns)" for m in marks)
        flags = ", ".join(name for name, mark in NAMED.items() if mark in marks)
        raise UserError(
            f"{path}:1: the cells may be separated by {readings}. Say which: --field_separator, "
            f"one of {flags}."
        )
    return chosen[0]


def _find_quoting(
    lines: Sequence[str], separator: str, usual: bool, is_cut: bool
) -> tuple[bool, list[str]]:
    """Returns whether cells are quoted, and what is to be said of it."""
    cells = (
        [line.split(separator) for line in lines if line] if any('"' in x for x in lines) else []
    )
    opened = [cell for row in cells for cell in row if cell.startswith('"')]
    if not opened:
        return usual, []
    wrapped = [cell for cell in opened if len(cell) > 1 and cell.rstrip().endswith('"')]
    if usual:
        # Quotes that open no cell are text: all of them close within, as in: "oh" she said.
        if not wrapped and len(set(map(len, cells))) == 1 and all('"' in c[1:] for c in opened):
            return False, [
                "quotes at the start of cells are read as text, as they close within them "
                "(--quoting=none says it, minimal overrules it)."
            ]
        return True, []
    quoted_rows = _strict_records(lines, separator, is_cut=is_cut)
    if quoted_rows is None:
        return False, []
    # A writer quotes what it must: a cell with a quote, a separator or a line end in it.
    needed = any('""' in cell[1:-1] for cell in wrapped)
    ragged = len(set(map(len, cells))) > 1 and len(set(map(len, quoted_rows))) == 1
    if needed or ragged or all(cell.startswith('"') for cell in cells[0]):
        return True, [
            "cells in quotes are read without them, as quotes, separators or line ends within show "
            "(--quoting=minimal says it, none overrules it)."
        ]
    return False, [
        "cells stand in quotes, which are read as text (--quoting=none says it, minimal removes "
        "them)."
    ]


def _strict_records(
    lines: Sequence[str], separator: str, *, skip_blanks: bool = False, is_cut: bool = False
) -> list[list[str]] | None:
    """Returns the records of quoted lines; None: they are not valid, or of several lengths."""
    reader = quoted_reader(lines, separator, skip_blanks)
    records = []
    lines_read = 0
    try:
        for record in reader:
            lines_read = reader.line_num
            records += [record] if record else []
    except csv.Error as error:
        # The sample may end within the quotes of a cell, but not of many lines.
        at_end = is_cut and "unexpected end" in str(error) and len(lines) - lines_read < _LONGEST
        if not (at_end and records):
            return None
    return records if len(set(map(len, records))) == 1 else None


def quoted_reader(
    lines: Iterable[str], separator: str, skip_blanks: bool, strict: bool = True
) -> Any:
    """Returns a `csv.reader` of lines without their ends.

    Args:
        lines: The lines.
        separator: The character between two cells.
        skip_blanks: Whether blanks may stand around the quotes of a cell.
        strict: Whether quotes that do not pair up are errors.
    """
    if skip_blanks:
        # Of an odd number of quotes the last one ends the cell, the others are doubled.
        after = re.compile(rf'(?<!")("(?:"")*)[ \t]+(?={re.escape(separator)}|$)')
        lines = (after.sub(r"\1", line) for line in lines)
    # The reader needs the line ends: a quoted cell may contain them.
    ended = (line + "\n" for line in lines)
    return csv.reader(ended, delimiter=separator, skipinitialspace=skip_blanks, strict=strict)


def _records(
    lines: Sequence[str], separator: str, quoted: bool, skip_blanks: bool = False
) -> list[list[str]]:
    lines = lines[:_SAMPLE]
    if not quoted:
        return [line.split(separator) for line in lines]
    try:
        return list(quoted_reader(lines, separator, skip_blanks, strict=False))
    except csv.Error:  # A carriage return in a cell: the reading will name its line.
        return [line.split(separator) for line in lines]


def _is_better_without_blanks(lines: Sequence[str], separator: str) -> bool:
    lines = lines[:_SAMPLE]
    if not any(f'{separator} "' in line or f'" {separator}' in line for line in lines):
        return False
    plain = _strict_records(lines, separator, is_cut=True)
    return plain is None and bool(_strict_records(lines, separator, skip_blanks=True, is_cut=True))


def _looks_like_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first record of a table is of the same kind as those below it."""
    rows = [row for row in rows if len(row) == len(first)]
    numbered = [[str(n + start) for n in range(len(first))] for start in (0, 1)]
    if not rows or list(first) in numbered:
        return False
    if len(set(first)) < len(first):
        return True
    for cell, *below in zip(first, *rows, strict=True):
        if cell in below or (_is_number(cell) and all(map(_is_number, below))):
            return True
        words = statistics.median(len(text.split()) for text in below)
        if min(len(cell.split()), words) >= _LONG_TEXT_WORDS:
            return True
    return False


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _check_names(path: str, columns: Sequence[str], line: int, doubt: str) -> None:
    if not any(columns):
        raise UserError(f"{path}: the file is empty. It must begin with a line of column names.")
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        doubt = f" Or {doubt}" if doubt else ""
        raise UserError(f"{path}:{line}: two columns are named {twice[0]!r}. Rename one.{doubt}")


def _shown(cells: Sequence[str]) -> str:
    text = ", ".join(map(repr, cells))
    return text if len(text) <= 60 else text[:57] + "..."
