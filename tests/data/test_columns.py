from collections.abc import Iterator

import pytest

from tf_finetune.data.columns import read_columns
from tf_finetune.data.splits import Table
from tf_finetune.errors import UserError


def table(*rows: dict, name: str = "f") -> Table:
    def read() -> Iterator[tuple[str, dict]]:
        yield from ((f"{name}:{line}", row) for line, row in enumerate(rows, 2))

    return read


def test_cells_of_all_tables_in_order() -> None:
    first = table({"a": "1", "b": "2", "label": "x"}, {"a": "3", "b": "4", "label": "y"})
    second = table({"label": "z", "b": "6", "a": "5", "extra": "7"}, name="g")
    columns = read_columns([first, second], ("b", "a"), "label")
    assert columns.texts == (["2", "4", "6"], ["1", "3", "5"])
    assert columns.labels == ["x", "y", "z"]
    assert columns.locations == ["f:2", "f:3", "g:2"]


def test_aliases_count_where_the_first_name_is_missing() -> None:
    tables = [table({"A": "1", "a": "2"}), table({"A": "3"})]
    assert read_columns(tables, ("a",), None, {"a": ("other", "A")}).texts == (["2", "3"],)


def test_text_of_other_types() -> None:
    rows = [{"text": value} for value in ("é".encode(), 42, 1.5)]
    assert read_columns([table(*rows)], ("text",), None).texts == (["é", "42", "1.5"],)


@pytest.mark.parametrize("value", [None, True, ["a"], {}, float("nan"), b"\xff", "a\0b", b"a\0b"])
def test_cell_that_is_no_text(value: object) -> None:
    rows = table({"text": "fine"}, {"text": value})
    with pytest.raises(UserError, match=r"^f:3: .*'text'"):
        read_columns([rows], ("text",), None)


def test_wrong_column_lists_the_columns() -> None:
    rows = table({"sentence": "a", "gold": "1"})
    message = r"^f:2: there is no column 'text'; the columns are sentence, gold\. .*--text_columns"
    with pytest.raises(UserError, match=message):
        read_columns([rows], ("text",), "gold")
    with pytest.raises(UserError, match=r"there is no column 'label'; .*--label_column"):
        read_columns([rows], ("sentence",), "label")


def test_column_missing_in_one_row() -> None:
    rows = table({"text": "a", "label": 1}, {"text": "b"})
    with pytest.raises(UserError, match=r"^f:3: there is no column 'label'"):
        read_columns([rows], ("text",), "label")


@pytest.mark.parametrize("order", [1, -1])
def test_one_labelled_row_of_test_data_means_that_all_are(order: int) -> None:
    rows = table(*[{"text": "a", "label": 1}, {"text": "b"}][::order])
    labels = read_columns([rows], ("text",), "label", may_lack_labels=True).labels
    assert labels == [1, None][::order]  # None is refused as an empty label, with its line.


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "a"}],
        [{"text": "a", "label": ""}, {"text": "b", "label": None}],
        [{"text": "a", "label": -1}, {"text": "b", "label": -1.0}],
        [{"text": "a", "label": "-1"}],
    ],
)
def test_test_data_may_lack_labels(rows: list[dict]) -> None:
    assert read_columns([table(*rows)], ("text",), "label", may_lack_labels=True).labels is None


def test_labels_are_kept_if_one_row_has_one() -> None:
    rows = table({"text": "a", "label": ""}, {"text": "b", "label": "x"})
    assert read_columns([rows], ("text",), "label", may_lack_labels=True).labels == ["", "x"]
