from pathlib import Path

import pytest

from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.layout import find_tfds, fit_to_model, infer_columns, open_splits
from tf_finetune.data.problem import Problem
from tf_finetune.data.tasks import TASKS, Layout
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


def columns(*names: str, **known: object) -> tuple[tuple[str, ...], str | None]:
    layout = infer_columns(Layout(**known), lambda: iter([("f:2", dict.fromkeys(names, ""))]))
    return layout.text_columns, layout.label_column


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["label", "text"], (("text",), "label")),
        (["id", "sentence", "labels"], (("sentence",), "labels")),
        (["sentence2", "label", "sentence1"], (("sentence1", "sentence2"), "label")),
        (["text"], (("text",), None)),
    ],
)
def test_obvious_columns(names: list[str], expected: tuple) -> None:
    assert columns(*names) == expected


def test_what_is_known_is_kept() -> None:
    assert columns("body", "label", text_columns=("body",)) == (("body",), "label")
    assert columns("text", "topic", label_column="topic") == (("text",), "topic")
    assert columns("other", text_columns=("a",), label_column="b") == (("a",), "b")


@pytest.mark.parametrize("names", [("body", "label"), ("text", "sentence", "label")])
def test_text_column_that_is_not_obvious(names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=rf"^f:2: .*--text_columns .*{', '.join(names)}"):
        columns(*names)


@pytest.mark.parametrize("names", [("text", "topic"), ("text", "label", "labels")])
def test_label_column_that_is_not_obvious(names: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=rf"^f:2: .*--label_column .*{', '.join(names[1:])}"):
        columns(*names)


def test_a_column_is_not_text_and_label_at_once() -> None:
    for known in ({"label_column": "text"}, {"text_columns": ("text",), "label_column": "text"}):
        with pytest.raises(UserError, match="--label_column=text: this is a text column too"):
            columns("text", "other", **known)


def test_tables_and_paths_of_the_splits_that_are_there(tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(f"text\tlabel\n{name}\tx\n")
    data = DataConfig(data_dir=str(tmp_path))
    layout, tables, files = open_splits(data, LabelConfig())
    assert layout == Layout()
    paths = {split: [file.path for file in found] for split, found in files.items()}
    assert paths == {"train": [f"{tmp_path}/train.tsv"], "validation": [f"{tmp_path}/dev.tsv"]}
    first = {split: next(table())[1]["text"] for split, [table] in tables.items()}
    assert first == {"train": "train.tsv", "validation": "dev.tsv"}
    assert list(open_splits(data, LabelConfig(), ["validation"])[1]) == ["validation"]


def test_a_flag_counts_before_the_task_and_the_task_before_the_folder(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("x\ny\n")
    data = DataConfig(data_dir=str(tmp_path))
    assert open_splits(data, LabelConfig())[0].label_names == ("x", "y")
    layout, *_ = open_splits(data, LabelConfig(task_name="cola"))
    assert layout == TASKS["cola"]
    labels = LabelConfig(
        task_name="cola",
        text_columns=("a", "b"),
        label_column="c",
        label_names=("p", "q"),
        problem_type="multi_label",
    )
    layout, *_ = open_splits(data, labels)
    assert (layout.text_columns, layout.label_column) == (("a", "b"), "c")
    assert (layout.label_names, layout.problem_type) == (("p", "q"), "multi_label")
    assert layout.metric_for_best_model == "matthews_correlation"


def test_unknown_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--data_dir=.*none: no such folder"):
        open_splits(DataConfig(data_dir=str(tmp_path / "none")), LabelConfig(task_name="mrpc"))


def test_a_task_without_files_names_a_tensorflow_data_set() -> None:
    mrpc = LabelConfig(task_name="mrpc")
    assert find_tfds(DataConfig(), mrpc) == "glue/mrpc"
    assert find_tfds(DataConfig(test_file="a.tsv"), mrpc) is None
    assert find_tfds(DataConfig(tfds_name="own:1.0.0"), LabelConfig()) == "own:1.0.0"
    assert find_tfds(DataConfig(), LabelConfig(task_name="banking77")) is None


def test_the_layout_that_a_model_needs() -> None:
    problem = Problem("single_label", ("question", "answer"), ("no", "yes"))
    layout = fit_to_model(Layout(label_column="gold"), problem)
    assert layout.text_columns == ("question", "answer") and layout.label_column == "gold"
    assert layout.label_names == ("no", "yes")
    assert fit_to_model(Layout(("a", "b")), problem).text_columns == ("a", "b")
    with pytest.raises(UserError, match=r"--text_columns=id: .* 2 text column\(s\), question, ans"):
        fit_to_model(Layout(("id",)), problem)
