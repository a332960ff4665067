import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from tf_finetune.data.facts import describe, describe_lengths
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


def shown(data: TextData) -> str:
    return data_report(describe(data))


def data(names: tuple[str, ...] = ("no", "yes"), **splits: Examples) -> TextData:
    return of_problem(Problem("single_label", ("text",), names), **splits)


def cells(report: str, first: str) -> list[str]:
    """The cells of the line that begins with `first`."""
    line = next(line for line in report.splitlines() if line.startswith(first))
    return re.split(r" {2,}", line)


def test_rows_empty_texts_and_labels() -> None:
    train = single(["a", "", " \t", "b"], [0, 1, 1, 1])
    report = shown(data(train=train, test=Examples((["c"],))))
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
    report = shown(data(train=train, validation=validation, test=test))
    assert (
        "2 rows of train repeat an earlier row's text, 1 with another label (e.g. f:2 and f:5)."
        in report
    )
    assert "1 row of validation (50.0%) stands in train too." in report
    assert "1 row of test repeats an earlier row's text.\n" in report
    assert "3 rows of test (75.0%) stand in train too." in report
    assert "No row" not in report


def test_pairs_are_duplicates_only_as_pairs() -> None:
    pairs = Examples((["a", "a", "b"], ["x", "y", "x"]), np.array([0, 1, 1], np.int32))
    assert "No row occurs twice." in shown(data(train=pairs))


def test_repetitions_equal_a_slow_count() -> None:
    random = np.random.default_rng(0)
    train, test = ([str(n) for n in random.integers(0, 60, size)] for size in (80, 50))
    report = shown(data(train=single(train, [0] * 80), test=single(test, [1] * 50)))
    repeated = sum(text in train[:row] for row, text in enumerate(train))
    leaked = sum(text in train for text in test)
    assert f"{repeated} rows of train repeat" in report
    assert f"{leaked} rows of test ({leaked / 50:.1%}) stand in train too." in report


def test_many_labels_show_the_ends() -> None:
    labels = [label for label in range(77) for _ in range(label + 1)]
    train = single([str(row) for row in range(len(labels))], labels)
    names = tuple(f"name{label}" for label in range(77))
    report = shown(data(names, train=train, test=train))
    numbers = [int(number) for number in re.findall(r"^name(\d+)", report, re.MULTILINE)]
    assert numbers == [76, 75, 74, 73, 72, 4, 3, 2, 1, 0]
    assert "... 67 more" in report
    assert len(report.splitlines()) <= 25


def test_label_without_rows() -> None:
    report = shown(data(("x", "y", "z"), train=single(["a", "b"], [0, 2])))
    assert "1 of 3 labels never occur in train." in report


def test_multi_label_counts() -> None:
    hot = np.array([[1, 1], [0, 1], [0, 0]], np.float32)
    problem = Problem("multi_label", ("text",), ("x", "y"))
    train = Examples((["a", "b", "a"],), hot, ["f:2", "f:3", "f:4"])
    report = shown(of_problem(problem, train=train))
    assert cells(report, "y") == ["y", "2 (66.7%)"]
    assert "1 row of train has no label." in report
    assert "1 with another label (e.g. f:2 and f:4)" in report


def test_regression_shows_the_range() -> None:
    problem = Problem("regression", ("a", "b"))
    train = Examples((["1", "2"], ["3", "4"]), np.array([1.5, 4.5], np.float32), ["f:2", "f:3"])
    report = shown(of_problem(problem, train=train))
    assert report.startswith("Data: regression on a, b\n")
    assert "train       1.5     3      4.5        1.5" in report


def test_lengths() -> None:
    lengths = {"train": np.arange(1, 101), "test": np.array([8, 8])}
    report = length_report(describe_lengths(lengths, 90))
    assert cells(report, "tokens")[-2:] == ["cut at 90", "tokens lost"]
    # 1 + 2 + ... + 10 of 5050 tokens.
    assert cells(report, "train") == ["train", "50", "90", "99", "100", "10 (10.0%)", "1.1%"]
    assert cells(report, "test") == ["test", "8", "8", "8", "8", "0 (0.0%)", "0.0%"]


@pytest.mark.parametrize(
    ("long_text", "encoder_length", "said"),
    [
        (
            "truncate",
            512,
            "(the encoder reads up to 512): only their beginning is read (--long_text=truncate); "
            "--long_text=window reads all, a higher --max_seq_length more.",
        ),
        (
            "head_tail",
            90,
            "(the encoder reads up to 90): only their beginning and end are read "
            "(--long_text=head_tail); --long_text=window reads all.",
        ),
        (
            "window",
            None,
            ": each is read whole, in overlapping pieces (--long_text=window).",
        ),
    ],
)
def test_what_is_done_with_long_rows(long_text: str, encoder_length: int | None, said: str) -> None:
    lengths = {"train": np.arange(1, 101), "test": np.array([8] * 25)}

    def report(max_seq_length: int, long_text: str | None) -> str:
        facts = describe_lengths(
            lengths, max_seq_length, long_text=long_text, encoder_length=encoder_length
        )
        return " ".join(length_report(facts).split())

    blank = " " if encoder_length else ""
    line = f"8.0% of the rows are longer than 90 tokens{blank}{said}"
    assert report(90, long_text).endswith(line)
    assert "of the rows" not in report(100, long_text) and "of the rows" not in report(90, None)


def test_control_characters_are_escaped() -> None:
    names = ("red\x1b[31m", "b\r\nc\u202e")
    report = shown(data(names, train=single(["a", "b"], [0, 1])))
    assert r"red\x1b[31m" in report and r"b\r\nc\u202e" in report
    assert all(line.isprintable() for line in report.split("\n"))


def test_lines_are_aligned_and_few(shared_data: Path) -> None:
    for task in ("goemotions", "banking77"):
        config = DataConfig(data_dir=str(shared_data / task))
        loaded = load_data(config, LabelConfig(task_name=task))
        lines = shown(loaded).splitlines()
        assert len(lines) <= 30 and max(map(len, lines)) <= 110
        start = next(row for row, line in enumerate(lines) if line.startswith("label"))
        table = [line for line in lines[start : start + 11] if not line.startswith("...")]
        assert len({len(line) for line in table}) == 1


def test_how_many_labels_are_known() -> None:
    train = single(["a", "b", "c", "d"], [0, -1, 1, 0])
    test = single(["e", "f"], [-1, -1])
    report = shown(data(train=train, test=test))
    assert cells(report, "train") == ["train", "4", "0", "3 known"]
    assert cells(report, "test") == ["test", "2", "0", "no"]
    assert cells(report, "label") == ["label", "train"]
    assert cells(report, "no ") == ["no", "2 (66.7%)"]


def test_texts_that_are_nearly_the_same_are_told_with_their_places() -> None:
    train = single(["A good film!", "bad", "x"], [0, 1, 0])
    test = Examples((["a  good film", "bad", "y"],), train.labels, ["d/t:1", "d/t:2", "d/t:3"])
    report = shown(data(train=train, test=test))
    told = "1 row of test (33.3%) stands in train too, 1 more but for case, blanks or outer"
    assert f"{told} punctuation (e.g. f:2 and\n  t:1)." in report
    near = shown(data(train=train, test=single(["BAD"], [1])))
    assert "1 row of test (100.0%) stands in train but for case, blanks or outer" in near


def test_labels_that_are_rare_or_alike() -> None:
    names = ("Good", "good ", "go\u0301od", "bad", "never")
    labels = [0] * 9 + [1] * 2 + [2] + [3] * 20
    report = shown(data(names, train=single([str(n) for n in range(32)], labels)))
    assert "3 labels have fewer than 8 rows in train" not in report
    assert "2 labels have fewer than 8 rows in train: 'go\u0301od' (1), 'good ' (2)." in report
    alike = "equal but for case, accents or blanks: 'go\u0301od' (1) = 'good ' (2) = 'Good' (9)."
    assert alike in report
    assert "1 of 5 labels never occur in train." in report


def test_a_baseline_stands_beside_what_will_be_reached() -> None:
    train = single(["a", "b", "c"], [1, 1, 0])
    report = shown(data(train=train, validation=single(["d", "e", "f", "g"], [1, 0, 1, 1])))
    assert "Always saying 'yes': accuracy 0.7500, macro-F1 0.4286 on validation." in report
    assert "Always saying 'yes': accuracy 0.6667, macro-F1 0.4000 on train." in shown(
        data(train=train)
    )
    assert "Always saying" not in shown(data(test=train))

    numbers = Examples((["a", "b"],), np.array([1, 3], np.float32))
    of_numbers = shown(of_problem(Problem("regression", ("text",)), train=numbers, test=numbers))
    assert "saying 2: mean squared error 1, RMSE 1, MAE 1 on test." in of_numbers


def test_notices_are_few_and_whole() -> None:
    some = dataclasses.replace(
        data(train=single(["a"], [1])), notices=["a\x1b guess " + "of many words " * 20, "two"]
    )
    report = shown(some)
    assert "\nnotice: a\\x1b guess of many" in report and report.endswith("\nnotice: two")
    assert max(map(len, report.splitlines())) <= 110
    many = dataclasses.replace(some, notices=[f"guess {n}" for n in range(30)])
    lines = shown(many).splitlines()
    assert lines[-2:] == ["notice: guess 7", "... 22 more: --data_report=<file>"]


def test_a_sample_is_called_one(tmp_path: Path) -> None:
    rows = "".join(f"text {n}\t{'no' if n % 3 else 'yes'}\n" for n in range(30))
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + rows)
    config = DataConfig(train_file=str(tmp_path / "train.tsv"), streaming="true")
    report = shown(load_data(config, LabelConfig(label_names=("no", "yes"))))
    assert cells(report, "train")[0] == "train (a sample)"
    assert "Always saying 'no', from a sample of train: accuracy" in report
    assert "fewer than" not in report


def test_the_worst_data_have_a_short_report() -> None:
    """Every list is capped, however much there is to tell."""
    names = tuple(f"{'long ' * 9}{letter}{n}" for n in range(30) for letter in "aA")
    texts = [f"text {n}" for n in range(40)] * 2
    labels = [n % 50 - 1 for n in range(80)]
    splits = {
        split: Examples(([*texts, f"{split}!"],), np.array([*labels, 0], np.int32), [place] * 81)
        for split, place in zip(("train", "validation", "test"), ("f" * 99,) * 3, strict=True)
    }
    notices = ["word " * 20] * 20
    lines = shown(dataclasses.replace(data(names, **splits), notices=notices)).splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 110


@pytest.mark.parametrize("labels", [None, np.array([0], np.int32)])
def test_a_single_unplaced_row(labels: np.ndarray | None) -> None:
    assert "rows" in shown(data(test=Examples((["a"],), labels)))
