"""What is said of labels before training: several spellings, placeholders, numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.data.label_cells import clean, spelling_key
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import TextData, load_data
from tf_finetune.data.labels import LabelIndex
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


def write(path: Path, values: list[Any]) -> str:
    rows = ({"text": f"text {n}", "label": value} for n, value in enumerate(values))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def load(folder: Path, values: list[Any], **flags: Any) -> TextData:
    return load_data(DataConfig(train_file=write(folder / "a.jsonl", values)), LabelConfig(**flags))


def labels(data: TextData) -> Any:
    assert data.train and data.train.labels is not None
    return data.train.labels.tolist()


@pytest.mark.parametrize(
    ("values", "names", "encoded", "said"),
    [
        (["1.0", "0.0"], ("0", "1"), [1, 0], "'0.0' are read as '0'"),
        (["10.0", "9.0", "2"], ("2", "9", "10"), [2, 1, 0], "are read as"),
        (["1", "1.0", "0"], ("0", "1"), [1, 1, 0], "'1' (1 row) and '1.0' (1 row) are '1'"),
        ([1, 1.0, 0.0, "1.0"], ("0", "1"), [1, 1, 0, 1], "are '1'"),
        (["True", "true", "True", "False"], ("False", "True"), [1, 1, 1, 0], "are 'True'"),
        ([True, "TRUE", False], ("false", "TRUE"), [1, 1, 0], "are 'TRUE'"),
        (["1", "True", "false"], ("0", "1"), [1, 1, 0], "'1' (1 row) and 'True' (1 row) are '1'"),
        (["caf\u00e9", "cafe\u0301", "x"], ("caf\u00e9", "x"), [0, 0, 1], "Unicode form"),
        (["a", " a", "b"], ("a", "b"), [0, 0, 1], "blanks around"),
    ],
)
def test_several_spellings_are_one_label(
    tmp_path: Path, values: list[Any], names: tuple[str, ...], encoded: list[int], said: str
) -> None:
    data = load(tmp_path, values)
    assert sorted(data.problem.label_names) == sorted(names)
    order = [names[label] for label in encoded]
    assert [data.problem.label_names[label] for label in labels(data)] == order
    assert any(said in notice for notice in data.notices), data.notices


@pytest.mark.parametrize(
    "values",
    [
        ["1.0", "1.1", "2.0"],
        ["v1", "v1.0", "true"],
        ["01", "1", "2"],
        ["a", "A", "b"],
        ["1", "1.0", "yes"],
    ],
)
def test_names_that_are_not_the_same_stay_apart(tmp_path: Path, values: list[str]) -> None:
    data = load(tmp_path, values, problem_type="single_label")
    assert sorted(data.problem.label_names) == sorted(values)


@pytest.mark.parametrize(
    ("train", "other"),
    [
        (["1.0", "0.0"], ["1", "0"]),
        (["1", "0"], ["1.0", "0.0"]),
        (["1", "0"], [1.0, False]),
        (["True", "False"], ["true", "FALSE"]),
        (["True", "False"], [True, 0]),
        (["caf\u00e9", "x"], ["cafe\u0301", " x "]),
    ],
)
def test_another_file_may_spell_the_labels_otherwise(
    tmp_path: Path, train: list[Any], other: list[Any]
) -> None:
    config = DataConfig(
        train_file=write(tmp_path / "a.jsonl", train),
        validation_file=write(tmp_path / "b.jsonl", other),
    )
    data = load_data(config, LabelConfig())
    assert data.validation and data.validation.labels is not None
    assert data.validation.labels.tolist() == labels(data)


def test_floats_stand_for_the_indices_of_names(tmp_path: Path) -> None:
    data = load(tmp_path, ["1.0", "0.0"], label_names=("no", "yes"))
    assert labels(data) == [1, 0] and not data.notices
    with pytest.raises(UserError, match=r"a\.jsonl:2: the label '2.0' is not one of the 2"):
        load(tmp_path, ["1.0", "2.0"], label_names=("no", "yes"))


def test_indices_that_seem_to_count_from_one(tmp_path: Path) -> None:
    data = load(tmp_path, ["1", "2", "1"], label_names=("bad", "ok", "good"))
    assert labels(data) == [1, 2, 1]
    assert "from 0: 1 is 'ok'. No label is 0" in data.notices[0]
    assert not load(tmp_path, ["0", "2", "1"], label_names=("bad", "ok", "good")).notices
    config = DataConfig(test_file=write(tmp_path / "b.jsonl", [1, 2]))
    data = load_data(config, LabelConfig(), problem=data.problem)
    assert "from 0: 1 is 'ok'" in data.notices[0]


@pytest.mark.parametrize("value", ["-", "?", "N/A", "null", "None", "nan", "unlabelled"])
def test_placeholders_are_named_and_left_out_by_a_flag(tmp_path: Path, value: str) -> None:
    data = load(tmp_path, ["a", "b", value, "a", value])
    [notice] = data.notices
    assert f"{value!r} (2 rows, first {tmp_path}/a.jsonl:3)" in notice
    assert f"--ignore_labels={value}" in notice and len(data.problem.label_names) == 3
    data = load(tmp_path, ["a", "b", value, "a", value], ignore_labels=(value,))
    assert data.problem.label_names == ("a", "b") and labels(data) == [0, 1, 0]
    [notice] = data.notices
    assert notice.startswith(f"2 rows of train with the label {value!r} left out (first")


@pytest.mark.parametrize(
    ("values", "is_told"),
    [([0, 1, 2, -1], True), (["0", "1", "-1"], True), ([1, -1], False), (["-1", "a"], False)],
)
def test_a_class_minus_one(tmp_path: Path, values: list[Any], is_told: bool) -> None:
    data = load(tmp_path, values, problem_type="single_label")
    assert any("--ignore_labels=-1" in notice for notice in data.notices) == is_told


def test_placeholders_among_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.jsonl:3: the label is 'N/A'.*--ignore_labels"):
        load(tmp_path, ["1.5", "2.5", "N/A"])
    data = load(tmp_path, ["1.5", "2.5", "N/A", None], ignore_labels=("N/A",))
    assert labels(data) == [1.5, 2.5] and len(data.notices) == 2


@pytest.mark.parametrize("values", [["a,-", "b", "a"], [["a", "-"], ["b"], ["a"]]])
def test_ignored_labels_of_several(tmp_path: Path, values: list[Any]) -> None:
    data = load(tmp_path, values, ignore_labels=("-",), problem_type="multi_label")
    assert data.problem.label_names == ("a", "b") and labels(data) == [[0, 1], [1, 0]]
    texts = [str(value) for value in values]
    if texts[0].startswith("["):
        assert labels(load(tmp_path, texts, ignore_labels=("-",))) == [[0, 1], [1, 0]]
    else:
        data = load(tmp_path, texts, ignore_labels=("-",))  # Of one label a comma is a part.
        assert data.problem.label_names == ("a", "a,-", "b")


def test_ignored_labels_of_another_spelling_and_of_no_row(tmp_path: Path) -> None:
    data = load(tmp_path, ["1", "2", "9.0"], ignore_labels=("9",))
    assert data.problem.label_names == ("1", "2") and "the label '9' left out" in data.notices[0]
    data = load(tmp_path, ["1", "2", "true"], ignore_labels=("1", "zz"))
    assert data.problem.label_names == ("2", "true")
    assert data.notices[-1] == "--ignore_labels=zz: no row has this label."


@pytest.mark.parametrize(
    ("names", "values", "encoded"),
    [
        (("1.0", "2.0", "3.0"), ["1", "2", "3.0"], [0, 1, 2]),
        (("True", "False"), ["1", "0", "true"], [0, 1, 0]),
    ],
)
def test_numbers_that_spell_a_name_are_no_index(
    tmp_path: Path, names: tuple[str, ...], values: list[str], encoded: list[int]
) -> None:
    assert labels(load(tmp_path, values, label_names=names)) == encoded


def test_indices_are_told_of_a_model(tmp_path: Path) -> None:
    problem = load(tmp_path, ["no", "yes"]).problem
    config = DataConfig(test_file=write(tmp_path / "b.jsonl", [0, 1]))
    data = load_data(config, LabelConfig(), problem=problem)
    assert data.test and data.test.labels is not None and data.test.labels.tolist() == [0, 1]
    assert data.notices == [
        "Whole numbers are read as indices of the label names, from 0: 0 is 'no'."
    ]


def test_ignored_labels_of_a_test_file_are_predicted(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", ["a", "b", "?"])
    config = DataConfig(train_file=train, test_file=write(tmp_path / "b.jsonl", ["?", "b"]))
    data = load_data(config, LabelConfig(ignore_labels=("?",)))
    assert data.test and data.test.labels is not None and data.test.labels.tolist() == [-1, 1]
    with pytest.raises(UserError, match="No row of train is left"):
        load_data(DataConfig(train_file=train), LabelConfig(ignore_labels=("?", "a", "b")))


@pytest.mark.parametrize(
    ("values", "problem_type", "said"),
    [
        ([str(n) for n in range(150)] * 2, "regression", "--problem_type=single_label"),
        ([f"{n:03}" for n in range(150)], "single_label", "--problem_type=regression"),
        (["3.9", "3.10", "3.11"] * 3, "single_label", "--problem_type=regression"),
        (["1.2.3", "1.2.4"] * 3, "single_label", ""),
        (["0.0", "0.5", "1.0"] * 4, "regression", "--problem_type=single_label"),
        (["4.50", "3.75", "2.00"] * 4, "regression", "--problem_type=single_label"),
        ([str(n) for n in range(30)] * 20, "single_label", "--problem_type=regression"),
        ([n / 7 for n in range(200)], "regression", ""),
        (["0", "1"] * 5, "single_label", ""),
        (["1,5", "2,5"] * 5, "single_label", "decimal point"),
        (["6.850", *(f"{n / 8}" for n in range(1, 300))], "regression", ""),
    ],
)
def test_numbers_that_may_be_classes(
    tmp_path: Path, values: list[Any], problem_type: str, said: str
) -> None:
    data = load(tmp_path, values)
    assert data.problem.problem_type == problem_type
    assert [said in notice for notice in data.notices] == ([True] if said else [])
    if problem_type == "regression" and said:
        data = load(tmp_path, values, problem_type="single_label")
        assert not any("--problem_type" in notice for notice in data.notices)
        assert len(data.problem.label_names) == len(set(values))


NAMES = st.sampled_from(
    [
        *("", "N/A", "e\u0301", "\u00e9", "yes", "a", "A", "True", "true", "FALSE"),
        *("0", "1", "2", "-1", "+1", "1.0", "1.", "1.10", "1.1", "00", "007"),
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=6))
def test_every_name_that_is_learnt_is_found(names: list[str]) -> None:
    """Keys part the labels, and the index finds each by its own name."""
    keys = spelling_key(map(clean, names))
    learnt = sorted(set(keys.values()) - {""})
    index = LabelIndex(learnt)
    for name in names:
        if clean(name):
            found = index.find(clean(name))
            assert found is not None and learnt[found] == keys[clean(name)], (name, learnt)
