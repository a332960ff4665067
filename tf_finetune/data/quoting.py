"""Whether the cells of a table stand in quotes, and the records of its lines."""

import csv
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tf_finetune.errors import UserError

# The records that are looked at; a wrong separator or quote shows in few.
_SAMPLE = 200
# A cell at the end of the sample that was opened by a quote has fewer lines than this.
_LONGEST = 50
csv.field_size_limit(2**31 - 1)  # By default a cell of 131,073 characters is an error.


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


def find_quoting(
    path: str, lines: Sequence[str], separator: str, usual: bool, is_cut: bool
) -> tuple[bool, bool, list[str]]:
    """Finds out whether the cells of a table are quoted.

    Args:
        path: The file, for messages.
        lines: Its first lines.
        separator: The character between two cells.
        usual: Whether tables of its name are.
        is_cut: Whether the table has more lines.

    Returns:
        Whether they are; whether they may be, where nothing shows it; what is to be said of it.

    Raises:
        UserError: Both readings are valid, and have other rows.
    """
    cells = (
        [line.split(separator) for line in lines if line] if any('"' in x for x in lines) else []
    )
    opened = [cell for row in cells for cell in row if cell.startswith('"')]
    if not opened:
        return usual, False, []
    wrapped = [cell for cell in opened if len(cell) > 1 and cell.rstrip().endswith('"')]
    quoted_rows = _strict_records(lines, separator, is_cut=is_cut)
    is_even = len(set(map(len, cells))) == 1 < len(cells[0])
    if usual:
        if quoted_rows and len(quoted_rows) < len(cells) and is_even:
            raise UserError(
                f"{path}: a line end within quotes, as in a row of several lines; or quotes that "
                f"are text, as each line has {len(cells[0])} cells too. Say which: "
                "--quoting=minimal or --quoting=none."
            )
        # Quotes that open no cell are text: all of them close within, as in: "oh" she said.
        within = not wrapped and all('"' in cell[1:] for cell in opened)
        if quoted_rows is None and is_even and within:
            return (
                False,
                False,
                [
                    "quotes at the start of cells are read as text, as they close within them "
                    "(--quoting=none says it, minimal overrules it)."
                ],
            )
        return True, False, []
    named_in_quotes = all(cell.startswith('"') for cell in cells[0])
    if quoted_rows is None:
        if named_in_quotes or len(wrapped) > len(cells) / 2:
            return (
                False,
                False,
                [
                    "cells stand in quotes, which are read as text, as they do not pair up in all "
                    "(--quoting=none says it)."
                ],
            )
        return False, False, []
    # A writer quotes what it must: a cell with a quote, a separator or a line end in it.
    needed = any('""' in cell[1:-1] for cell in wrapped)
    ragged = len(set(map(len, cells))) > 1 and len(set(map(len, quoted_rows))) == 1
    if needed or ragged or named_in_quotes:
        return (
            True,
            False,
            [
                "cells in quotes are read without them, as these pair up and some are needed "
                "(--quoting=minimal says it, none overrules it)."
            ],
        )
    return (
        False,
        True,
        [
            "cells stand in quotes, which are read as text (--quoting=none says it, minimal "
            "removes them)."
        ],
    )


def has_blanks_around_quotes(lines: Sequence[str], separator: str) -> bool:
    """Whether blanks stand around the quotes of cells, and do not count."""
    lines = lines[:_SAMPLE]
    if not any(f'{separator} "' in line or f'" {separator}' in line for line in lines):
        return False
    if not _strict_records(lines, separator, skip_blanks=True, is_cut=True):
        return False
    plain = _strict_records(lines, separator, is_cut=True)
    if plain is None:
        return True
    return any(re.fullmatch(r'\s+".*"\s*', cell, re.S) for row in plain for cell in row)


def sample_records(
    lines: Sequence[str], separator: str, quoted: bool, skip_blanks: bool = False
) -> list[list[str]]:
    """Returns the records of the first lines; see `quoted_reader`."""
    lines = lines[:_SAMPLE]
    if not quoted:
        return [line.split(separator) for line in lines]
    try:
        return list(quoted_reader(lines, separator, skip_blanks, strict=False))
    except csv.Error:  # A carriage return in a cell: the reading will name its line.
        return [line.split(separator) for line in lines]


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
