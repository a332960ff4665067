from pathlib import Path

import pytest

from tf_finetune.data.layout import infer_columns, load_layout
from tf_finetune.data.tasks import TASKS, Task
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

SPLITS = ("train", "validation", "test")


def columns(*names: str, **known: object) -> tuple[tuple[str, ...], str | None]:
    layout = infer_columns(Task(**known), lambda: iter([("f:2", dict.fromkeys(names, ""))]))
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


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("train.csv", "train.tsv", "dev.tsv", "unlabelled.tsv"):
        (tmp_path / name).write_text(f"text\tlabel\n{name}\tx\n")
    _, tables, _ = load_layout(DataConfig(data_dir=str(tmp_path)), SPLITS)
    first = {split: next(table())[1]["text"] for split, [table] in tables.items()}
    assert first == {"train": "train.tsv", "validation": "dev.tsv"}
    config = DataConfig(data_dir=str(tmp_path), test_file=str(tmp_path / "unlabelled.tsv"))
    assert list(load_layout(config, SPLITS)[1]) == ["train", "validation", "test"]
    assert list(load_layout(config, ["test"])[1]) == ["test"]


def test_a_flag_counts_before_the_task_and_the_task_before_the_folder(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("x\ny\n")
    folder = str(tmp_path)
    assert load_layout(DataConfig(data_dir=folder), SPLITS)[0].label_names == ("x", "y")
    layout, *_ = load_layout(DataConfig(task_name="cola", data_dir=folder), SPLITS)
    assert layout == TASKS["cola"]
    config = DataConfig(
        task_name="cola",
        data_dir=folder,
        text_columns=("a", "b"),
        label_column="c",
        label_names=("p", "q"),
        problem_type="multi_label",
    )
    layout, *_ = load_layout(config, SPLITS)
    assert (layout.text_columns, layout.label_column) == (("a", "b"), "c")
    assert (layout.label_names, layout.problem_type) == (("p", "q"), "multi_label")
    assert layout.metric_for_best_model == "matthews_correlation"


def test_unknown_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--data_dir=.*none: no such folder"):
        load_layout(DataConfig(task_name="mrpc", data_dir=str(tmp_path / "none")), SPLITS)
