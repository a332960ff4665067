"""Which rows are held out, by the kind of their labels."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import TextData, load_data
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


def load(path: Path, labels: list[Any], again: bool = False, **flags: Any) -> TextData:
    lines = [f"text {n}\t{label}" for n, label in enumerate(labels)]
    path.write_text("\n".join(["text\tlabel", *lines]) + "\n")
    data = {"train_file": str(path), "validation_fraction": 0.2, "test_fraction": 0.1}
    kind = flags.pop("problem_type", "auto")
    labelled = LabelConfig(problem_type=kind)
    first = load_data(DataConfig(**{**data, **flags}), labelled)
    if not again:
        return first
    config = DataConfig(**{**data, **flags})
    return load_data(config, labelled, problem=first.problem)


def sizes(data: TextData) -> dict[str, int]:
    return {split: len(examples) for split, examples in data.splits.items()}


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([n / 7 for n in range(300)], "auto"),
        ([n % 5 for n in range(300)], "regression"),
        ([n % 5 for n in range(300)], "single_label"),
        (["a,b", "b", "c,a", ""] * 75, "multi_label"),
        (["[1, 0, 0]", "[0, 1, 1]", "[0, 0, 0]"] * 100, "auto"),
    ],
)
def test_labels_of_any_kind_are_held_out(tmp_path: Path, labels: list[Any], kind: str) -> None:
    data = load(tmp_path / "a.tsv", labels, problem_type=kind)
    assert sizes(data) == pytest.approx({"train": 210, "validation": 60, "test": 30}, abs=6)
    assert "divided by a hash of their text" in data.notices[0]
    # A trained model finds the same rows again.
    again = load(tmp_path / "a.tsv", labels, again=True, problem_type=kind)
    assert again.train is None and again.test and again.validation
    assert data.test and again.test.locations == data.test.locations
    assert data.validation and again.validation.texts == data.validation.texts


def test_a_split_that_is_there_already(tmp_path: Path) -> None:
    other = tmp_path / "dev.tsv"
    other.write_text("text\tlabel\na\tx\n")
    with pytest.raises(UserError, match="--test_fraction and --test_file: give one of them"):
        load(tmp_path / "a.tsv", ["x", "y"] * 20, test_file=str(other))
    with pytest.raises(UserError, match="there are validation examples already"):
        load(tmp_path / "train.tsv", ["x", "y"] * 20, train_file=None, data_dir=str(tmp_path))


def test_labels_are_learnt_of_all_rows_before_they_are_divided(tmp_path: Path) -> None:
    labels: list[Any] = [n % 5 for n in range(60)]
    labels[54:56] = [3.5, 3.5]
    data = load(tmp_path / "a.tsv", labels)
    assert data.problem.problem_type == "regression"
    many = [f"a,{'bc'[n % 2]}" for n in range(60)]
    for row in range(len(many)):  # Wherever the rare label falls, it is learnt.
        rare = [*many[:row], "a,rare", *many[row + 1 :]]
        data = load(tmp_path / "a.tsv", rare, problem_type="multi_label")
        assert data.problem.label_names == ("a", "b", "c", "rare")


def test_too_few_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 2 rows falls into validation"):
        load(tmp_path / "a.tsv", ["x", "y"])
    with pytest.raises(UserError, match="leave no row to train on"):
        DataConfig(validation_fraction=0.5, test_fraction=0.5)


def test_fractions_need_all_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--validation_fraction=0\.2 needs all rows"):
        load(tmp_path / "a.tsv", ["x", "y"] * 20, streaming="true")


def test_limits_count_after_the_division(tmp_path: Path) -> None:
    data = load(tmp_path / "a.tsv", ["x", "y"] * 100, max_train_samples=10, max_eval_samples=5)
    assert sizes(data) == {"train": 10, "validation": 5, "test": 20}
    assert data.train and Counter(data.train.labels.tolist()) == {0: 5, 1: 5}
