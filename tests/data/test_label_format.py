"""How label cells are read, by themselves and as flags say; every guess is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.data.label_cells import parse_list
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import TextData, load_data
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


def load(folder: Path, values: list[Any], kind: str = "jsonl", **flags: Any) -> TextData:
    """Loads rows whose labels have these values."""
    path = folder / f"train.{kind}"
    rows = [{"text": f"text {n}", "label": value} for n, value in enumerate(values)]
    if kind == "tsv":
        lines = ["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in rows)]
    else:
        lines = list(map(json.dumps, rows))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return load_data(DataConfig(train_file=str(path)), LabelConfig(**flags))


def complaint(folder: Path, values: list[Any], kind: str = "jsonl", **flags: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, values, kind, **flags)
    return str(caught.value)


def labels(data: TextData) -> Any:
    assert data.train and data.train.labels is not None
    return data.train.labels.tolist()


@pytest.mark.parametrize(
    "values",
    [
        [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]],
        [[0, 1, 0], [1, 0, 1]],
        [[False, True, False], [True, False, True]],
        [["0", "1", "0"], ["1", "0", "1"]],
        ["[0, 1, 0]", "[1, 0, 1]"],
        ["[0 1 0]", "[1 0 1]"],
        ["[0. 1. 0.]", "[1. 0. 1.]"],
        ["[False, True, False]", "[True, False, True]"],
    ],
)
def test_vectors_of_zeros_and_ones(tmp_path: Path, values: list[Any]) -> None:
    data = load(tmp_path, values)
    assert data.problem.problem_type == "multi_label" and data.problem.label_names == tuple("012")
    assert labels(data) == [[0, 1, 0], [1, 0, 1]]
    assert any("--label_names" in n and "--label_format=list" in n for n in data.notices)
    data = load(tmp_path, values, label_names=("a", "b", "c"))
    assert data.problem.label_names == ("a", "b", "c") and labels(data) == [[0, 1, 0], [1, 0, 1]]


def test_vectors_in_parquet_and_tfrecord(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet
    import tensorflow as tf

    vectors = [[0, 1, 0], [1, 0, 1]]
    table = pyarrow.table({"text": ["a", "b"], "label": vectors})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with tf.io.TFRecordWriter(f"{tmp_path}/a.tfrecord") as writer:
        for vector in vectors:
            example = tf.train.Example()
            example.features.feature["text"].bytes_list.value.append(b"a")
            example.features.feature["label"].float_list.value.extend(vector)
            writer.write(example.SerializeToString())
    for kind in ("parquet", "tfrecord"):
        data = load_data(DataConfig(train_file=f"{tmp_path}/a.{kind}"), LabelConfig())
        assert labels(data) == vectors


def test_vectors_that_may_be_class_numbers_are_refused(tmp_path: Path) -> None:
    values = [[0, 1], [1, 0]]
    message = complaint(tmp_path, values)
    assert "train.jsonl:1: the label is [0, 1]" in message
    assert "--label_format=multi_hot or --label_format=list" in message
    assert labels(load(tmp_path, values, label_format="multi_hot")) == values
    assert labels(load(tmp_path, values, label_format="list")) == [[1, 1], [1, 1]]
    # One of them that repeats a number is no list of class numbers.
    assert labels(load(tmp_path, [*values, [1, 1]])) == [*values, [1, 1]]


def test_lists_of_numbers_that_are_neither(tmp_path: Path) -> None:
    message = complaint(tmp_path, [[1, 0], [0.25, 0.75]])
    assert "train.jsonl:2: the label is [0.25, 0.75], neither" in message
    message = complaint(tmp_path, [[0, 1, 1], [1, 0]])
    assert "train.jsonl:1: the label is [0, 1, 1], neither" in message
    message = complaint(tmp_path, [[0, 1, 1], [1, 0, 2], [1]], label_format="multi_hot")
    assert "train.jsonl:2" in message and "a 0 or 1 for each of the 3 labels" in message


def test_class_numbers_are_class_numbers(tmp_path: Path) -> None:
    data = load(tmp_path, [[0], [10, 2], [2, 0]])
    assert data.problem.label_names == ("0", "2", "10")
    assert labels(data) == [[1, 0, 0], [0, 1, 1], [1, 1, 0]]
    data = load(tmp_path, [[0], [1], [0, 1]], label_names=("no", "yes", "so"))
    assert labels(data) == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]


def test_vectors_with_exactly_one_label(tmp_path: Path) -> None:
    values = [[0, 1, 0], [1, 0, 0]]
    data = load(tmp_path, values)
    assert any("--problem_type=single_label learns one of 3" in n for n in data.notices)
    data = load(tmp_path, values, problem_type="single_label", label_format="multi_hot")
    assert labels(data) == [1, 0] and data.problem.label_names == ("0", "1", "2")
    values.append([1, 1, 0])
    message = complaint(tmp_path, values, problem_type="single_label", label_format="multi_hot")
    assert "train.jsonl:3" in message and "exactly one 1" in message


@pytest.mark.parametrize(
    "values",
    [
        ["['joy', 'a']", "['a']", "[]"],
        ['["joy", "a"]', '["a"]', "[]"],
        ["('joy', 'a')", "('a',)", "()"],
        ["{'joy', 'a'}", "{'a'}", "[]"],
        ["[joy, a]", "[a]", "[ ]"],
        [["joy", "a"], ["a"], []],
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
def test_lists_of_any_spelling(tmp_path: Path, values: list[Any], kind: str) -> None:
    data = load(tmp_path, values, kind)
    assert data.problem.label_names == ("a", "joy")
    assert labels(data) == [[1, 1], [1, 0], [0, 0]]
    if isinstance(values[0], str):
        assert any("are read as lists" in notice for notice in data.notices)
        data = load(tmp_path, values, kind, problem_type="single_label")
        assert data.problem.label_names == tuple(sorted(value.strip() for value in values))


def test_arrays_of_texts_as_numpy_writes_them(tmp_path: Path) -> None:
    data = load(tmp_path, ["['x' 'y z']", "['x']", "['it\\'s' \"y z\"]"], "tsv")
    assert data.problem.label_names == ("it's", "x", "y z")
    assert labels(data) == [[0, 1, 1], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
@pytest.mark.parametrize(
    "value",
    [
        {"x": 0.3, "y": 0.7},
        [{"id": 18, "name": "Drama"}],
        [[0, 5, "PER"]],
    ],
)
def test_objects_are_no_labels(tmp_path: Path, value: Any, kind: str) -> None:
    written = value if kind == "jsonl" else json.dumps(value)
    message = complaint(tmp_path, [written, written], kind, label_column="label")
    assert "an object or a list of them" in message
    if kind == "jsonl":
        assert "train.jsonl:1: the label is" in message
        assert ("--label_column=label.x" in message) == isinstance(value, dict)


def test_brackets_of_several_names_are_no_list(tmp_path: Path) -> None:
    data = load(tmp_path, ["(a),(b)", "(a)", "c"], "tsv", problem_type="multi_label")
    assert data.problem.label_names == ("(a)", "(b)", "c")
    assert labels(data) == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    data = load(tmp_path, ["[O]", "x", "[O],x"], "tsv", label_names=("[O]", "x"))
    assert labels(data) == [[1, 0], [0, 1], [1, 1]]


def test_empty_parts_are_no_labels(tmp_path: Path) -> None:
    data = load(tmp_path, ["x;y;", "x;;z", ";x;"], "tsv", problem_type="multi_label")
    assert data.problem.label_names == ("x", "y", "z")
    assert labels(data) == [[1, 1, 0], [1, 0, 1], [1, 0, 0]]
    assert labels(load(tmp_path, [["a", None, ""], ["b"]])) == [[1, 0], [0, 1]]


def test_one_unknown_label_does_not_undo_the_separator(tmp_path: Path) -> None:
    problem = Problem("multi_label", ("text",), ("x", "y"))
    (tmp_path / "test.tsv").write_text("text\tlabel\na\tx;y\nb\ty;zzz\nc\t['x', 'y']\n")
    data = load_data(DataConfig(test_file=f"{tmp_path}/test.tsv"), LabelConfig(), problem=problem)
    assert data.test and data.test.labels is not None
    assert data.test.labels[[0, 2]].tolist() == [[1, 1], [1, 1]]
    assert np.isnan(data.test.labels[1]).all() and "1 row with a label" in data.notices[-1]


@pytest.mark.parametrize("names", [("false", "true"), ("False", "True")])
def test_truth_values_of_any_spelling_are_those_of_a_model(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": "a", "label": v}) + "\n" for v in (True, "TRUE", "False", 1))
    )
    problem = Problem("single_label", ("text",), names)
    data = load_data(DataConfig(test_file=f"{tmp_path}/a.jsonl"), LabelConfig(), problem=problem)
    assert data.test and data.test.labels is not None
    assert data.test.labels.tolist() == [1, 1, 0, 1]


def test_brackets_in_some_cells_only(tmp_path: Path) -> None:
    data = load(tmp_path, ["[a]", "b", "c"])
    assert data.problem.label_names == ("[a]", "b", "c") and not data.notices
    data = load(tmp_path, ["[a]", "[b]", "c"])
    assert data.problem.label_names == ("[a]", "[b]", "c") and "kept as names" in data.notices[0]
    data = load(tmp_path, ["[a]", "b", "a,b"], problem_type="multi_label")
    assert data.problem.label_names == ("a", "b") and labels(data) == [[1, 0], [0, 1], [1, 1]]


@pytest.mark.parametrize("mark", [",", ";", "|"])
def test_separators_of_labels(tmp_path: Path, mark: str) -> None:
    values = [f"a{mark}b", "a", f"b {mark} c", ""]
    data = load(tmp_path, values, "tsv", problem_type="multi_label")
    assert labels(data) == [[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert any("--label_separator" in notice for notice in data.notices) == (mark != ",")
    data = load(tmp_path, values, "tsv", label_names=("a", "b", "c"))
    assert data.problem.problem_type == "multi_label"
    # Alone it is no sign of several labels, but it is told where labels are others joined.
    data = load(tmp_path, [f"a{mark}b", "a", "b"])
    assert data.problem.label_names == ("a", f"a{mark}b", "b")
    assert f"--problem_type=multi_label --label_separator='{mark}'" in data.notices[0]
    assert not load(tmp_path, [f"a{mark}b", "x", "y"]).notices


def test_two_separators_of_labels_are_refused(tmp_path: Path) -> None:
    values = ["Food, drinks|Travel", "Travel"]
    message = complaint(tmp_path, values, problem_type="multi_label")
    assert "',' (as in 'Food, drinks|Travel') or '|'" in message and "--label_separator" in message
    data = load(tmp_path, values, problem_type="multi_label", label_separator="|")
    assert data.problem.label_names == ("Food, drinks", "Travel")


def test_lists_of_one_label_may_be_one_label(tmp_path: Path) -> None:
    data = load(tmp_path, [["a"], ["b"]])
    assert data.problem.problem_type == "multi_label"
    assert "--problem_type=single_label learns one of 2" in data.notices[0]
    data = load(tmp_path, [["a"], ["b"]], problem_type="single_label")
    assert labels(data) == [0, 1]
    message = complaint(tmp_path, [["a"], ["b", "a"]], problem_type="single_label")
    assert "train.jsonl:2: the label" in message


def test_a_column_of_zeros_and_ones_for_each_label(tmp_path: Path) -> None:
    def of(rows: str, **flags: Any) -> TextData:
        (tmp_path / "a.csv").write_text(f"id,body,toxic,threat\n{rows}")
        config = DataConfig(train_file=f"{tmp_path}/a.csv", id_column="id")
        return load_data(
            config, LabelConfig(text_columns=("body",), label_columns=("toxic", "threat"), **flags)
        )

    data = of("1,a,0,1\n2,b,1,1\n3,c,0.0,False\n")
    assert data.problem.label_names == ("toxic", "threat")
    assert labels(data) == [[0, 1], [1, 1], [0, 0]] and data.train and data.train.ids == [*"123"]
    with pytest.raises(UserError, match=r"a\.csv:3: the label is .*2.* a 0 or 1 for each of the 2"):
        of("1,a,0,1\n2,b,2,1\n")
    with pytest.raises(UserError, match=r"a\.csv:3: the label"):
        of("1,a,0,1\n2,b,,1\n")
    data = of("1,a,0,1\n2,b,1,0\n3,c,,\n", problem_type="single_label")
    assert labels(data) == [1, 0] and "1 row of train without a label" in data.notices[-1]


def test_label_columns_are_matched_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,toxic,obscene\na,1,0\nb,0,1\n")
    config = DataConfig(test_file=f"{tmp_path}/a.csv")
    problem = Problem("multi_label", ("text",), ("toxic", "obscene"))
    for columns in (("toxic", "obscene"), ("obscene", "toxic")):
        data = load_data(config, LabelConfig(label_columns=columns), problem=problem)
        assert data.test and data.test.labels is not None and not data.notices
        assert data.test.labels.tolist() == [[1, 0], [0, 1]]
    problem = Problem("multi_label", ("text",), ("x", "y"))
    data = load_data(config, LabelConfig(label_columns=("toxic", "obscene")), problem=problem)
    assert "toxic is 'x', obscene is 'y'" in data.notices[0]
    problem = Problem("multi_label", ("text",), ("x", "y", "z"))
    with pytest.raises(UserError, match="2 columns for the 3 labels"):
        load_data(config, LabelConfig(label_columns=("toxic", "obscene")), problem=problem)


def test_label_columns_that_cannot_be_meant() -> None:
    with pytest.raises(UserError, match="give one of them"):
        LabelConfig(label_column="a", label_columns=("a", "b"))
    with pytest.raises(UserError, match="--label_column=a"):
        LabelConfig(label_columns=("a",))
    with pytest.raises(UserError, match="a regression learns one"):
        LabelConfig(label_columns=("a", "b"), problem_type="regression")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS | st.integers() | st.booleans(), max_size=5))
def test_lists_come_back_from_their_texts(values: list[Any]) -> None:
    assert parse_list(repr(values)) == values
    assert parse_list(json.dumps(values)) == values
    assert parse_list(repr(tuple(values))) == values


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), max_size=6))
def test_arrays_come_back_from_their_texts(values: list[float]) -> None:
    array = np.array(values, np.float32)
    np.testing.assert_allclose(parse_list(str(array)) or [], values, rtol=1e-5, atol=1e-5)
