"""Rows of an Excel workbook, by openpyxl, which only these need."""

from collections.abc import Iterator
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.files import open_file


def read_workbook(path: str, has_header: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads the rows of a workbook's only sheet; empty ones do not count.

    Args:
        path: The file.
        has_header: Whether the first row names the columns; else they are named 1, 2, ...

    Yields:
        `file:row N` as in the sheet, and the values by column; an empty cell is an empty text.

    Raises:
        UserError: openpyxl is not installed, the file is no workbook, or it has several sheets.
    """
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{path}: reading a workbook needs openpyxl: pip install openpyxl. Or save the sheet "
            "as CSV (UTF-8)."
        ) from None
    try:
        with open_file(path) as file:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheets = {}
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # Some writers leave a wrong size there.
                if rows := [[_plain(cell) for cell in row] for row in sheet.values]:
                    sheets[sheet.title] = rows
    # What a damaged file raises has no common class.
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a workbook ({error!r:.200}).") from None
    if len(sheets) > 1:
        raise UserError(
            f"{path}: the workbook has the sheets {', '.join(sheets)}. Save the one with the rows "
            "in a file of its own."
        )
    rows = next(iter(sheets.values()), [])
    width = max(map(len, rows), default=0)
    columns = [str(number) for number in range(1, width + 1)]
    if has_header and rows:
        columns = [str(cell).strip() for cell in rows[0]]
    while columns and not columns[-1]:
        columns.pop()
    twice = [name for name in columns if name and columns.count(name) > 1]
    if twice:
        raise UserError(f"{path}:row 1: two columns are named {twice[0]!r}. Rename one.")
    for number, row in enumerate(rows[has_header:], 1 + has_header):
        if has_header and row[: len(columns)] == columns and len(columns) > 1:
            raise UserError(f"{path}:row {number}: the column names stand here again. Remove them.")
        if any(cell != "" for cell in row[len(columns) :]):
            raise UserError(f"{path}:row {number}: there is a cell beyond the named columns.")
        if any(cell != "" for cell in row):
            row += [""] * (len(columns) - len(row))
            yield f"{path}:row {number}", dict(zip(columns, row, strict=False))


def _plain(cell: Any) -> Any:
    if cell is None:
        return ""
    return cell if isinstance(cell, str | int | float | bool) else str(cell)
