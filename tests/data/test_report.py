import re
from pathlib import Path

import numpy as np
import pytest

from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import ExampleReader, Examples, TextData, load_data
from tf_finetune.data.problem import Problem
from tf_finetune.data.report import data_report, length_report
from tf_finetune.data.tasks import Layout
from tf_finetune.runs.config import DataConfig


def single(texts: list[str], labels: list[int]) -> Examples:
    locations = [f"f:{line}" for line in range(2, len(texts) + 2)]
    return Examples((texts,), np.array(labels, np.int32), locations)


def of_problem(problem: Problem, **splits: Examples) -> TextData:
    every = {"train": None, "validation": None, "test": None} | splits
    read = ExampleReader(Layout(), problem)
    return TextData(**every, read=read, metric_for_best_model="")  # type: ignore[arg-type]


def data(names: tuple[str, ...] = ("no", "yes"), **splits: Examples) -> TextData:
    return of_problem(Problem("single_label", ("text",), names), **splits)


def cells(report: str, first: str) -> list[str]:
    """The cells of the line that begins with `first`."""
    line = next(line for line in report.splitlines() if line.startswith(first))
    return re.split(r" {2,}", line)


def test_rows_empty_texts_and_labels() -> None:
    train = single(["a", "", " \t", "b"], [0, 1, 1, 1])
    report = data_report(data(train=train, test=Examples((["c"],))))
    assert report.startswith("Data: single_label (2 labels) on text\n")
    assert cells(report, "train") == ["train", "4", "2", "yes"]
    assert cells(report, "test") == ["test", "1", "0", "no"]
    assert cells(report, "yes") == ["yes", "3 (75.0%)"]
    assert cells(report, "no ") == ["no", "1 (25.0%)"]
    assert "No row occurs twice." in report


def test_duplicates_conflicts_and_leaks() -> None:
    train = single(["a", "b", "a", "a", "c"], [0, 0, 0, 1, 1])
    validation = single(["x", "c"], [1, 0])
    test = single(["a", "b", "b", "y"], [1, 1, 1, 0])
    report = data_report(data(train=train, validation=validation, test=test))
    assert (
        "2 rows of train repeat an earlier row's text, 1 with another label (e.g. f:2 and f:5)."
        in report
    )
    assert "1 rows of validation (50.0%) stand in train too." in report
    assert "1 rows of test repeat an earlier row's text.\n" in report
    assert "3 rows of test (75.0%) stand in train too." in report
    assert "No row" not in report


def test_pairs_are_duplicates_only_as_pairs() -> None:
    pairs = Examples((["a", "a", "b"], ["x", "y", "x"]), np.array([0, 1, 1], np.int32))
    assert "No row occurs twice." in data_report(data(train=pairs))


def test_repetitions_equal_a_slow_count() -> None:
    random = np.random.default_rng(0)
    train, test = ([str(n) for n in random.integers(0, 60, size)] for size in (80, 50))
    report = data_report(data(train=single(train, [0] * 80), test=single(test, [1] * 50)))
    repeated = sum(text in train[:row] for row, text in enumerate(train))
    leaked = sum(text in train for text in test)
    assert f"{repeated} rows of train repeat" in report
    assert f"{leaked} rows of test ({leaked / 50:.1%}) stand in train too." in report


def test_many_labels_show_the_ends() -> None:
    labels = [label for label in range(77) for _ in range(label + 1)]
    train = single([str(row) for row in range(len(labels))], labels)
    names = tuple(f"name{label}" for label in range(77))
    report = data_report(data(names, train=train, test=train))
    shown = [int(number) for number in re.findall(r"^name(\d+)", report, re.MULTILINE)]
    assert shown == [76, 75, 74, 73, 72, 4, 3, 2, 1, 0]
    assert "... 67 more" in report
    assert len(report.splitlines()) <= 25


def test_label_without_rows() -> None:
    report = data_report(data(("x", "y", "z"), train=single(["a", "b"], [0, 2])))
    assert "1 of 3 labels never occur in train." in report


def test_multi_label_counts() -> None:
    hot = np.array([[1, 1], [0, 1], [0, 0]], np.float32)
    problem = Problem("multi_label", ("text",), ("x", "y"))
    train = Examples((["a", "b", "a"],), hot, ["f:2", "f:3", "f:4"])
    report = data_report(of_problem(problem, train=train))
    assert cells(report, "y") == ["y", "2 (66.7%)"]
    assert "1 rows of train have no label." in report
    assert "1 with another label (e.g. f:2 and f:4)" in report


def test_regression_shows_the_range() -> None:
    problem = Problem("regression", ("a", "b"))
    train = Examples((["1", "2"], ["3", "4"]), np.array([1.5, 4.5], np.float32), ["f:2", "f:3"])
    report = data_report(of_problem(problem, train=train))
    assert report.startswith("Data: regression on a, b\n")
    assert "train       1.5     3      4.5        1.5" in report


def test_lengths() -> None:
    lengths = {"train": np.arange(1, 101), "test": np.array([8, 8])}
    report = length_report(lengths, 90)
    assert cells(report, "tokens")[-1] == "cut at 90"
    assert cells(report, "train") == ["train", "50", "90", "99", "100", "10 (10.0%)"]
    assert cells(report, "test") == ["test", "8", "8", "8", "8", "0 (0.0%)"]


def test_control_characters_are_escaped() -> None:
    names = ("red\x1b[31m", "b\r\nc\u202e")
    report = data_report(data(names, train=single(["a", "b"], [0, 1])))
    assert r"red\x1b[31m" in report and r"b\r\nc\u202e" in report
    assert all(line.isprintable() for line in report.split("\n"))


def test_lines_are_aligned_and_few(shared_data: Path) -> None:
    for task in ("goemotions", "banking77"):
        config = DataConfig(data_dir=str(shared_data / task))
        loaded = load_data(config, LabelConfig(task_name=task))
        lines = data_report(loaded).splitlines()
        assert len(lines) <= 25
        start = next(row for row, line in enumerate(lines) if line.startswith("label"))
        table = [line for line in lines[start : start + 11] if not line.startswith("...")]
        assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize("labels", [None, np.array([0], np.int32)])
def test_a_single_unplaced_row(labels: np.ndarray | None) -> None:
    assert "rows" in data_report(data(test=Examples((["a"],), labels)))
