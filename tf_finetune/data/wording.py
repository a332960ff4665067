"""Words and lines of reports and messages."""

import textwrap
from collections.abc import Sequence

WIDEST_NAME = 40
WIDTH = 110


def rows_text(count: int) -> str:
    """Returns a number of rows in words, such as `1 row` or `1,200 rows`."""
    return f"{count:,} row{'s' * (count != 1)}"


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


def wrapped(sentence: str) -> list[str]:
    """Returns the lines of a sentence; those after the first are indented."""
    return textwrap.wrap(
        sentence,
        WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def shown(text: str) -> str:
    """Returns a name from the data for the screen, escaped and not too wide."""
    name = escaped(text)
    return name if len(name) <= WIDEST_NAME else name[: WIDEST_NAME - 3] + "..."


def escaped(text: str) -> str:
    """Returns a text from the data whose control characters are escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
