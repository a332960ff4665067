"""JSON of every form that people have rows in."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.data.readers import read_file
from tf_finetune.errors import UserError

ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
LINES = "\n".join(map(json.dumps, ROWS))


def read(path: Path, content: str) -> list[tuple[str, dict]]:
    path.write_text(content, "utf-8")
    return list(read_file(str(path)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.JSON", "a.NDJSON"])
@pytest.mark.parametrize("content", [LINES, json.dumps(ROWS), json.dumps(ROWS, indent=1)])
def test_lines_and_arrays_under_any_name(tmp_path: Path, name: str, content: str) -> None:
    assert [row for _, row in read(tmp_path / name, content)] == ROWS


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"version": 1, "data": ROWS}),
        json.dumps({"columns": ["text", "label"], "data": ROWS}),
        json.dumps({"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}),
        json.dumps({"0": ROWS[0], "1": ROWS[1]}),
        json.dumps({"text": ["a", "b"], "label": ["x", "y"]}),
        '{"columns": ["text", "label"], "index": [0, 1], "data": [["a", "x"], ["b", "y"]]}',
        "\n\n".join(json.dumps(row, indent=2) for row in ROWS),
        "\ufeff" + json.dumps(ROWS),
    ],
)
def test_tables_and_objects_one_after_the_other(tmp_path: Path, content: str) -> None:
    assert [row for _, row in read(tmp_path / "a.json", content)] == ROWS


def test_one_object_is_one_row(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "a", "labels": ["x", "y"]}, {"data": {}}]
    rows += [{"columns": 3, "data": [["a", "x"]]}, {"columns": ["text"], "data": None}]
    for row in rows:
        assert [row for _, row in read(tmp_path / "a.json", json.dumps(row))] == [row]


def test_rows_have_the_lines_where_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    found = read(path, '[\n  {"text":\n  "a"},\n\n{"text": "b"}, {"text": "c"}\n]\n')
    assert [location for location, _ in found] == [f"{path}:{line}" for line in (2, 5, 5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"},\n{"text": }]', "a.json:2: not valid JSON"),
        ('[{"text": "a"}\n', "a.json:1: not valid JSON (the array does not end)"),
        ('[{"text": "a"}] more', "a.json:1: not valid JSON ('more' after the end)"),
        ('[["a", "x"]]', "a.json:1: a JSON list; each row must be an object"),
        ('{"text": "a"}\n7', "a.json:2: a JSON int; each row must be an object"),
        ('{"a": [{"t": 1}], "b": [{"t": 1}]}', "several arrays of rows, a, b"),
        ('{"a": ["x", "y"], "b": ["z"]}', "'b' has other rows than 'a' (1 and 2)"),
        ('{"a": {"0": "x"}, "b": {"1": "z"}}', "'b' has other rows than 'a'"),
        ('{"columns": ["a"], "data": [[1, 2]]}', "has not a value for each of 'columns'"),
        ('{"columns": ["a", "a"], "data": [[1, 2]]}', "two columns are named 'a'"),
        ('[{"a": 1},, {"a": 2}]', "a.json:1: not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no rows"),
        ("", "no rows"),
        (r'[{"text": "\ud83d"}]', "a.json:1: half of a surrogate pair"),
    ],
)
def test_what_is_no_table_of_rows(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.json", content)
    assert message in str(caught.value)


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=3)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text(), VALUES, max_size=3), min_size=2, max_size=5),
    indent=st.sampled_from([None, 0, 2]),
    as_array=st.booleans(),
)
def test_any_rows_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict], indent: int | None, as_array: bool
) -> None:
    parts = [json.dumps(row, indent=indent) for row in rows]
    content = json.dumps(rows, indent=indent) if as_array else "\n".join(parts)
    path = tmp_path_factory.mktemp("json") / "a.json"
    assert [row for _, row in read(path, content)] == rows
