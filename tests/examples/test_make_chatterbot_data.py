import csv
import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import load_data
from tf_finetune.runs.config import DataConfig

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "make_chatterbot_data.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_chatterbot_data", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    pytest.importorskip("chatterbot_corpus", reason="pip install --no-deps chatterbot-corpus")
    folder = tmp_path_factory.mktemp("chatterbot") / "data"
    run = subprocess.run(
        [sys.executable, str(SCRIPT), f"--output_dir={folder}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return folder, run.stdout


def read(path: Path) -> list[tuple[str, ...]]:
    with path.open(encoding="utf-8", newline="\n") as stream:
        return [tuple(line.rstrip("\n").split("\t")) for line in stream][1:]


def test_splits_share_no_text_and_hold_every_topic_alike(made: tuple[Path, str]) -> None:
    splits = {name: read(made[0] / f"{name}.tsv") for name in ("train", "validation", "test")}
    texts = [text.casefold() for rows in splits.values() for text, _ in rows]
    assert len(texts) == len(set(texts)) > 1000
    sizes = Counter(topic for rows in splits.values() for _, topic in rows)
    assert len(sizes) > 5 and min(sizes.values()) >= 40
    for name, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        counts = Counter(topic for _, topic in splits[name])
        for topic, size in sizes.items():
            assert abs(counts[topic] - share * size) <= 1


def test_files_load(made: tuple[Path, str]) -> None:
    folder, output = made
    data = load_data(
        DataConfig(data_dir=str(folder)), LabelConfig(text_columns=("text",), label_column="topic")
    )
    assert data.train and data.validation and data.test
    assert {"trivia", "coding"} < set(data.problem.label_names)
    last = next(line for line in output.splitlines() if line.startswith("all "))
    counts = [len(data.train), len(data.validation), len(data.test)]
    assert [int(cell.replace(",", "")) for cell in last.split()[1:]] == counts


def test_the_same_every_time(made: tuple[Path, str], script: ModuleType, tmp_path: Path) -> None:
    assert script.main([f"--output_dir={tmp_path}"]) == 0
    for name in ("train.tsv", "validation.tsv", "test.tsv"):
        assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes()


def test_rows_are_whole_lines(made: tuple[Path, str]) -> None:
    for path in made[0].iterdir():
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        assert rows[0] == ["text", "topic"]
        assert all(len(row) == 2 and all(row) for row in rows)


def test_duplicates(script: ModuleType) -> None:
    rows = [("Hi", "a"), ("hi", "a"), ("Yes", "a"), ("yes", "b"), ("", "b"), ("No", "b")]
    assert script.drop_duplicates(rows) == [("Hi", "a"), ("No", "b")]


def test_small_topics_are_left_out(script: ModuleType) -> None:
    rows = [("1", "a"), ("2", "a"), ("3", "b")]
    assert script.keep_big_topics(rows, 2) == rows[:2]


def test_split_does_not_depend_on_the_order_of_rows(script: ModuleType) -> None:
    rows = [(f"text {number}", "ab"[number % 2]) for number in range(100)]
    splits = script.split_rows(rows)
    assert splits == script.split_rows(rows[::-1])
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 70,
        "validation": 10,
        "test": 20,
    }


def test_missing_package(script: ModuleType, monkeypatch, capsys) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert script.main([]) == 2
    assert "chatterbot-corpus" in capsys.readouterr().err
