from collections.abc import Iterator

import pytest

from tf_finetune.data.columns import Columns, read_columns
from tf_finetune.data.splits import Table
from tf_finetune.data.tasks import Layout
from tf_finetune.errors import UserError


def table(*rows: dict, name: str = "f") -> Table:
    def read() -> Iterator[tuple[str, dict]]:
        yield from ((f"{name}:{line}", row) for line, row in enumerate(rows, 2))

    return read


def read(tables: list[Table], texts: tuple[str, ...], label: str | None, **more: bool) -> Columns:
    return read_columns(tables, Layout(texts, label), **more)


def test_cells_of_all_tables_in_order() -> None:
    first = table({"a": "1", "b": "2", "label": "x"}, {"a": "3", "b": "4", "label": "y"})
    second = table({"label": "z", "b": "6", "a": "5", "extra": "7"}, name="g")
    columns = read([first, second], ("b", "a"), "label")
    assert columns.texts == (["2", "4", "6"], ["1", "3", "5"])
    assert columns.labels == ["x", "y", "z"]
    assert columns.locations == ["f:2", "f:3", "g:2"]


def test_aliases_count_where_the_first_name_is_missing() -> None:
    tables = [table({"A": "1", "a": "2"}), table({"A": "3"})]
    assert read_columns(tables, Layout(("a",), aliases={"a": ("other", "A")})).texts == (
        ["2", "3"],
    )


def test_text_of_other_types() -> None:
    rows = [{"text": value} for value in ("é".encode(), 42, 1.5)]
    assert read([table(*rows)], ("text",), None).texts == (["é", "42", "1.5"],)


@pytest.mark.parametrize("value", [None, True, ["a"], {}, float("nan"), b"\xff", "a\0b", b"a\0b"])
def test_cell_that_is_no_text(value: object) -> None:
    rows = table({"text": "fine"}, {"text": value})
    with pytest.raises(UserError, match=r"^f:3: .*'text'"):
        read([rows], ("text",), None)


def test_wrong_column_lists_the_columns() -> None:
    rows = table({"sentence": "a", "gold": "1"})
    message = r"^f:2: there is no column 'text'; the columns are sentence, gold\. .*--text_columns"
    with pytest.raises(UserError, match=message):
        read([rows], ("text",), "gold")
    with pytest.raises(UserError, match=r"there is no column 'label'; .*--label_column"):
        read([rows], ("sentence",), "label")


def test_a_text_that_is_missing_in_one_row_is_an_error_and_a_label_is_not() -> None:
    rows = table({"text": "a", "label": 1}, {"text": "b"}, {"label": 1})
    with pytest.raises(UserError, match=r"^f:4: there is no column 'text'"):
        read([rows], ("text",), "label")
    rows = table({"text": "a"}, {"text": "b", "label": 1})
    assert read([rows], ("text",), "label").labels == [None, 1]


def test_a_label_column_that_is_in_no_row_is_an_error() -> None:
    rows = table({"text": "a"}, {"text": "b", "labl": 1})
    with pytest.raises(UserError, match=r"^f:2: there is no column 'label'; .* text, labl"):
        read([rows], ("text",), "label")


def test_values_within_objects() -> None:
    rows = table(*[{"data": {"text": t, "meta": {"topic": t * 2}}, "a.b": t} for t in "xy"])
    columns = read([rows], ("data.text", "a.b"), "data.meta.topic")
    assert columns.texts == (["x", "y"], ["x", "y"]) and columns.labels == ["xx", "yy"]
    with pytest.raises(UserError, match=r"no column 'data.title'; .* data.text, data.meta.topic"):
        read([rows], ("data.title",), None)
    cut = table({"data": {"text": "x"}}, {"data": "y"})
    with pytest.raises(UserError, match=r"^f:3: there is no column 'data.text'"):
        read([cut], ("data.text",), None)


def test_blanks_around_the_name_of_a_column_do_not_count() -> None:
    rows = table({"text ": "a", " label": "x"})
    columns = read([rows], ("text",), "label")
    assert columns.texts == (["a"],) and columns.labels == ["x"]


def test_ids() -> None:
    rows = table({"text": "a", "id": 7}, {"text": "b", "id": b"x"}, {"text": "c", "id": None})
    columns = read_columns([rows], Layout(("text",)), "id")
    assert columns.ids == [7, "x", None]
    with pytest.raises(UserError, match=r"no column 'uuid'; .*--id_column"):
        read_columns([rows], Layout(("text",)), "uuid")


def test_a_column_for_each_label() -> None:
    rows = table({"text": "a", "x": 0, "y": "1"}, {"text": "b", "x": None, "y": None})
    layout = Layout(("text",), label_columns=("x", "y"))
    assert read_columns([rows], layout).labels == [[0, "1"], [None, None]]
    with pytest.raises(UserError, match=r"no column 'z'; .*--label_columns"):
        read_columns([rows], Layout(("text",), label_columns=("x", "z")))
    with pytest.raises(UserError, match=r"--label_columns=x,y"):
        read([rows], ("text",), "x,y")


def test_truth_values_are_not_numbers() -> None:
    rows = table(*[{"text": "a", "label": value} for value in (1, True, 0, False)])
    assert read([rows], ("text",), "label").labels == [1, "true", 0, "false"]


@pytest.mark.parametrize("order", [1, -1])
def test_one_labelled_row_of_test_data_means_that_all_are(order: int) -> None:
    rows = table(*[{"text": "a", "label": 1}, {"text": "b"}][::order])
    labels = read([rows], ("text",), "label", may_lack_labels=True).labels
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
    assert read([table(*rows)], ("text",), "label", may_lack_labels=True).labels is None


def test_labels_are_kept_if_one_row_has_one() -> None:
    rows = table({"text": "a", "label": ""}, {"text": "b", "label": "x"})
    assert read([rows], ("text",), "label", may_lack_labels=True).labels == ["", "x"]
