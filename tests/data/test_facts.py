"""Facts of the data: JSON, and numbers as scikit-learn computes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from tf_finetune.data.facts import describe, describe_lengths
from tf_finetune.data.facts_file import write_facts
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import ExampleReader, Examples, TextData, load_data
from tf_finetune.data.problem import Problem
from tf_finetune.data.tasks import Layout
from tf_finetune.runs.config import DataConfig


def of(problem: Problem, **splits: np.ndarray | None) -> TextData:
    """Data of these labels; every text is another."""
    made = {
        split: Examples(
            tuple(
                [f"{split} {row}" for row in range(12 if labels is None else len(labels))]
                for _ in problem.text_columns
            ),
            labels,
        )
        for split, labels in splits.items()
    }
    every = {"train": None, "validation": None, "test": None} | made
    read = ExampleReader(Layout(), problem)
    return TextData(**every, read=read, metric_for_best_model="")  # type: ignore[arg-type]


def single(*labels: int) -> np.ndarray:
    return np.array([*labels, *[-1] * (12 - len(labels))], np.int32)


FOUR = Problem("single_label", ("text",), ("a", "b", "c", "d"))
MULTI = Problem("multi_label", ("text",), ("a", "b", "c", "d"))
REGRESSION = Problem("regression", ("one", "two"))


def test_counts_are_of_known_labels() -> None:
    facts = describe(of(FOUR, train=single(1, 1, 0), validation=None, test=single()))
    assert facts["splits"]["train"] == {
        **{"rows": 12, "empty_texts": 0, "known_labels": 3},
        "labels": {"a": 1, "b": 2, "c": 0, "d": 0},
    }
    for split in ("validation", "test"):
        assert facts["splits"][split] == {"rows": 12, "empty_texts": 0, "known_labels": 0}
    assert facts["rare_labels"] == {"a": 1, "b": 2, "c": 0, "d": 0}
    assert facts["train_is_sample"] is False and facts["notices"] == []


@pytest.mark.parametrize("test", [(1, 1, 0, 3), (0, 0, 2), (1, 1)])
def test_baseline_of_single_label_equals_sklearn(test: tuple[int, ...]) -> None:
    baseline = describe(of(FOUR, train=single(1, 2, 1, 0), test=single(*test)))["baseline"]
    said = [1] * len(test)
    assert baseline == {
        "says": "b",
        "splits": {
            "test": {
                "accuracy": pytest.approx(sk.accuracy_score(test, said)),
                "macro_f1": pytest.approx(sk.f1_score(test, said, average="macro")),
            }
        },
    }


@pytest.mark.parametrize(("share", "says"), [(0.6, ["a", "c"]), (0.3, ["c"]), (0.0, [])])
def test_baseline_of_multi_label_equals_sklearn(share: float, says: list[str]) -> None:
    ones = {0.6: (7, 1, 9, 0), 0.3: (3, 1, 5, 0), 0.0: (0, 0, 0, 0)}[share]
    train = np.stack([np.arange(12) < count for count in ones], axis=1).astype(np.float32)
    test = np.random.default_rng(0).integers(0, 2, (12, 4)).astype(np.float32)
    test[3] = np.nan
    baseline = describe(of(MULTI, train=train, validation=test))["baseline"]
    known = np.delete(test, 3, axis=0)
    said = np.broadcast_to([name in says for name in "abcd"], known.shape).astype(float)
    expected = sk.f1_score(known, said, average="micro", zero_division=0)
    assert baseline == {
        "says": says,
        "splits": {"validation": {"micro_f1": pytest.approx(expected)}},
    }


def test_baseline_of_regression_equals_sklearn() -> None:
    train = np.array([1, 2, 4.5, np.nan], np.float32)
    test = np.array([0.5, np.nan, 3], np.float32)
    facts = describe(of(REGRESSION, train=train, test=test))
    truth, said = [0.5, 3.0], [2.5, 2.5]
    assert facts["baseline"] == {
        "says": 2.5,
        "splits": {
            "test": {
                "mean_squared_error": pytest.approx(sk.mean_squared_error(truth, said)),
                "root_mean_squared_error": pytest.approx(sk.root_mean_squared_error(truth, said)),
                "mean_absolute_error": pytest.approx(sk.mean_absolute_error(truth, said)),
            }
        },
    }
    marks = {"smallest": 1.0, "mean": 2.5, "largest": 4.5, "std_dev": pytest.approx(1.4719601)}
    assert facts["splits"]["train"]["labels"] == marks
    assert facts["rare_labels"] == {} and facts["alike_labels"] == []


@pytest.mark.parametrize(
    "names",
    [
        ("Good", "good"),
        ("new york", "New_York", "new-york", "NewYork"),
        ("café", "cafe", "CAFE\u0301"),
        ("covid 19", "Covid-19", "covid19"),
    ],
)
def test_labels_that_are_alike(names: tuple[str, ...]) -> None:
    problem = Problem("single_label", ("text",), (*names, "other"))
    facts = describe(of(problem, train=single(0, 0, 1, len(names))))
    assert facts["alike_labels"] == [dict(zip(names, [2, 1, 0, 0], strict=False))]


@pytest.mark.parametrize(
    "names", [("-1", "1"), ("1-2", "12"), ("1_2", "1 2"), ("A", "A-"), ("-", "_"), ("C", "C++")]
)
def test_labels_that_are_not_alike(names: tuple[str, ...]) -> None:
    problem = Problem("single_label", ("text",), names)
    assert describe(of(problem, train=single(0, 1)))["alike_labels"] == []


def test_lengths() -> None:
    lengths = {"train": np.array([3, 10, 12], np.int32), "test": np.array([5], np.int32)}
    facts = describe_lengths(lengths, 8)
    assert facts["max_seq_length"] == 8
    train = facts["splits"]["train"]
    assert (train["rows"], train["median"], train["longest"]) == (3, 10, 12)
    assert (train["cut_rows"], train["tokens"], train["tokens_lost"]) == (2, 25, 6)
    assert facts["splits"]["test"]["cut_rows"] == facts["splits"]["test"]["tokens_lost"] == 0
    whole = describe_lengths(lengths, 8, long_text="window", encoder_length=64)
    assert (whole["long_text"], whole["encoder_length"]) == ("window", 64)
    train = whole["splits"]["train"]
    assert (train["cut_rows"], train["tokens"], train["tokens_lost"]) == (2, 25, 0)


def test_facts_are_json(tmp_path: Path) -> None:
    problem = Problem("single_label", ("text",), ("a\x1b", "ü"))
    data = of(problem, train=single(0, 1), test=single(1))
    assert data.train is not None
    rows = Examples((["x"] * 12,), data.train.labels, ["\udcff:1"] * 12)
    facts = describe(TextData(rows, rows, None, data.read, "", notices=("a guess",)))
    path = tmp_path / "new" / "facts.json"
    lengths = describe_lengths({"train": np.array([3])}, 8)
    write_facts(str(path), {**facts, "lengths": lengths})
    assert json.loads(path.read_bytes().decode("utf-8")) == {**facts, "lengths": lengths}
    assert "ü" in path.read_text("utf-8")


@pytest.mark.parametrize("task", ["goemotions", "mrpc", "sick_relatedness"])
def test_facts_of_real_data(shared_data: Path, task: str) -> None:
    folder = str(shared_data / task.split("_")[0])
    data = load_data(DataConfig(data_dir=folder), LabelConfig(task_name=task))
    facts = describe(data)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    for split, examples in data.splits.items():
        assert facts["splits"][split]["known_labels"] == len(examples)
