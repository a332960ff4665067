"""Rows of an Excel workbook, by openpyxl, which only these need."""

from collections.abc import Iterator
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.files import open_file


def read_workbook(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads the rows of a workbook's first sheet, whose first row names the columns.

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
            rows = [[_plain(cell) for cell in row] for row in book.worksheets[0].values]
            sheets = book.sheetnames
    # What a damaged file raises has no common class.
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a workbook ({error!r:.200}).") from None
    if len(sheets) > 1:
        raise UserError(
            f"{path}: the workbook has the sheets {', '.join(sheets)}. Save the one with the rows "
            "in a file of its own."
        )
    columns = [str(cell).strip() for cell in rows[0]] if rows else []
    while columns and not columns[-1]:
        columns.pop()
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise UserError(f"{path}:row 1: two columns are named {twice[0]!r}. Rename one.")
    for number, row in enumerate(rows[1:], 2):
        if any(cell != "" for cell in row[len(columns) :]):
            raise UserError(f"{path}:row {number}: there is a cell beyond the named columns.")
        if any(cell != "" for cell in row):
            row += [""] * (len(columns) - len(row))
            yield f"{path}:row {number}", dict(zip(columns, row, strict=False))


def _plain(cell: Any) -> Any:
    if cell is None:
        return ""
    return cell if isinstance(cell, str | int | float | bool) else str(cell)
