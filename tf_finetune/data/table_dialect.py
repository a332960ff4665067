"""`Dialect`: how a table of text is written: separator, quotes, header line."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tf_finetune.data.paths import extension
from tf_finetune.data.quoting import find_quoting, has_blanks_around_quotes, sample_records
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

MARKS = {"\t": "a tab", ",": "','", ";": "';'", "|": "'|'"}
# A row with one of these names the columns.
_USUAL_NAMES = {
    *("text", "sentence", "sentence1", "label", "labels", "category", "class", "target", "topic"),
    *("sentiment", "id"),
}
# Flags write these by name: blanks at the end of a value are lost.
NAMED = {"tab": "\t", "space": " ", "comma": ",", "semicolon": ";", "bar": "|"}
_LONG_TEXT_WORDS = 5


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
        may_be_quoted: Whether cells stand in quotes that are read as text, but need not be.
    """

    separator: str
    quoted: bool
    skip_blanks: bool
    columns: tuple[str, ...]
    skipped_lines: int
    has_header: bool
    skip_ragged: bool = False
    may_be_quoted: bool = False

    @property
    def separator_name(self) -> str:
        """The separator as a message names it."""
        return MARKS.get(self.separator, repr(self.separator))


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
        raise UserError(
            f"{path}: the file is empty, or its first line is. It must begin with column names."
        )
    if re.match(r'\s*(\[\s*\{|\{\s*")', lines[0]):
        raise UserError(
            f"{path}: this looks like JSON. Name it .jsonl (an object a line) or .json."
        )
    usual, quoted = (",", True) if extension(path) == ".csv" else ("\t", False)
    quoted = {"minimal": True, "none": False}.get(config.quoting, quoted)
    separator = given
    if given == "auto":
        separator = _find_separator(path, lines, usual, quoted)
        if separator != usual:
            name = next((n for n, mark in NAMED.items() if mark == separator), separator)
            notices.append(
                f"its cells are separated by {MARKS[separator]}, as its first lines show "
                f"(--field_separator={name} says it, another value overrules it)."
            )
    may_be_quoted = False
    if config.quoting == "auto":
        quoted, may_be_quoted, said = find_quoting(path, lines, separator, quoted, is_cut)
        notices += said
    skip_blanks = quoted and has_blanks_around_quotes(lines, separator)
    if skip_blanks:
        notices.append("blanks around the quotes of cells are dropped.")
    records = sample_records(lines, separator, quoted, skip_blanks) or [list(lines[:1])]
    names, has_header, said = _find_columns(
        f"{path}:{skipped + 1}", records, config.header, columns
    )
    dialect = Dialect(
        separator, quoted, skip_blanks, names, skipped, has_header, skip_ragged, may_be_quoted
    )
    return dialect, [*notices, *said]


def _find_columns(
    location: str, records: Sequence[Sequence[str]], header: str, columns: Sequence[str]
) -> tuple[tuple[str, ...], bool, list[str]]:
    """Returns the columns, whether the first record names them, and what is to be said of it."""
    first = list(records[0])
    if header == "none":
        notices = []
        if _looks_like_names(first, records[1:]):
            notices.append(
                f"the first row ({_shown(first)}) is read as data, but looks like column names. If "
                "it names the columns: --header=first_row."
            )
        return tuple(str(n) for n in range(1, len(first) + 1)), False, notices
    if len(first) == len(columns) and not set(columns) & set(first):
        return tuple(columns), False, []
    names = tuple(name.strip() for name in first)
    notices = []
    if list(names) != first:
        blank = next(name for name in first if name != name.strip())
        notices.append(f"blanks around column names are dropped, as in {blank!r}.")
    doubt = ""
    if header == "auto" and _looks_like_data(first, records[1:]):
        doubt = (
            f"the first row ({_shown(first)}) was taken for column names, but looks like the rows "
            "below it. If it is one: --header=none, which names the columns 1, 2, ...; if not: "
            "--header=first_row."
        )
        notices.append(doubt)
    if not any(names):
        raise UserError(f"{location}: the line is empty. It must name the columns.")
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        doubt = f" Or {doubt}" if doubt else ""
        raise UserError(f"{location}: two columns are named {twice[0]!r}. Rename one.{doubt}")
    return names, True, notices


def _find_separator(path: str, lines: Sequence[str], usual: str, quoted: bool) -> str:
    counts = {
        mark: [len(record) for record in sample_records(lines, mark, quoted) if any(record)]
        for mark in dict.fromkeys((usual, *MARKS))
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
        readings = " or ".join(f"{MARKS[m]} ({counts[m][0]} columns)" for m in marks)
        flags = ", ".join(name for name, mark in NAMED.items() if mark in marks)
        raise UserError(
            f"{path}:1: the cells may be separated by {readings}. Say which: --field_separator, "
            f"one of {flags}."
        )
    return chosen[0]


def _looks_like_data(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first record of a table is of the same kind as those below it."""
    rows = [row for row in rows if len(row) == len(first)]
    numbered = [[str(n + start) for n in range(len(first))] for start in (0, 1)]
    if not rows or list(first) in numbered:
        return False
    named = [cell for cell in first if cell.strip()]
    if {cell.strip().casefold() for cell in named} & _USUAL_NAMES:
        return False
    if len(set(named)) < len(named):
        return True
    for cell, *below in zip(first, *rows, strict=True):
        if (cell.strip() and cell in below) or (_is_number(cell) and all(map(_is_number, below))):
            return True
        words = statistics.median(len(text.split()) for text in below)
        if min(len(cell.split()), words) >= _LONG_TEXT_WORDS:
            return True
    return False


def _looks_like_names(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a record has a usual name of a column, or something else above numbers."""
    if {cell.strip().casefold() for cell in first} & _USUAL_NAMES:
        return True
    rows = [row for row in rows if len(row) == len(first)]
    return bool(rows) and any(
        cell and not _is_number(cell) and all(map(_is_number, below))
        for cell, *below in zip(first, *rows, strict=True)
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _shown(cells: Sequence[str]) -> str:
    text = ", ".join(map(repr, cells))
    return text if len(text) <= 60 else text[:57] + "..."
