"""Excel workbooks."""

import datetime
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tf_finetune.data.file_format import find_format
from tf_finetune.data.readers import read_file
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")


def write(path: Path, *rows: list[Any], sheets: int = 1) -> str:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for _ in range(sheets - 1):
        book.create_sheet().append(["more"])
    book.save(path)
    return str(path)


def test_rows_of_a_sheet(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.xlsx",
        ["text ", "label", "when", None],
        ['a,\n"b"', 1, datetime.date(2024, 1, 2), None],
        [None, None, None, None],
        ["c", None, True, None],
    )
    assert list(read_file(path)) == [
        (f"{path}:row 2", {"text": 'a,\n"b"', "label": 1, "when": "2024-01-02 00:00:00"}),
        (f"{path}:row 4", {"text": "c", "label": "", "when": True}),
    ]


@pytest.mark.parametrize(
    ("rows", "sheets", "message"),
    [
        ([["text"], ["a"]], 2, "has the sheets Sheet, Sheet1"),
        ([["text", "text"], ["a", "b"]], 1, "two columns are named 'text'"),
        ([["text"], ["a", "b"]], 1, "row 2: there is a cell beyond the named columns"),
        ([["text"]], 1, "no rows"),
        ([], 1, "no rows"),
    ],
)
def test_sheets_that_cannot_be_used(
    tmp_path: Path, rows: list[list[str]], sheets: int, message: str
) -> None:
    path = write(tmp_path / "a.xlsx", *rows, sheets=sheets)
    with pytest.raises(UserError) as caught:
        list(read_file(path))
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no workbook", b"PK\x03\x04 and so on"])
def test_damaged_workbooks(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a workbook"):
        list(read_file(str(path)))


def test_empty_sheets_do_not_count_and_a_header_may_be_missing(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["a", "x"])
    book.active.append(["b", "y"])
    book.create_sheet("Sheet2")
    book.save(tmp_path / "a.xlsx")
    file = find_format(f"{tmp_path}/a.xlsx", DataConfig(header="none"))
    assert [row for _, row in read_file(file)] == [{"1": "a", "2": "x"}, {"1": "b", "2": "y"}]


def test_a_wrong_size_in_the_file_loses_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    write(path, ["text"], ["a"], ["b"], ["c"])
    parts = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            parts[name] = archive.read(name)
    sheet = "xl/worksheets/sheet1.xml"
    assert b'ref="A1:A4"' in parts[sheet]
    parts[sheet] = parts[sheet].replace(b'ref="A1:A4"', b'ref="A1:A2"')
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    assert [row["text"] for _, row in read_file(str(path))] == ["a", "b", "c"]


def test_without_openpyxl_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.xlsx", ["text"], ["a"])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r"pip install openpyxl\. Or save the sheet as CSV"):
        list(read_file(path))
