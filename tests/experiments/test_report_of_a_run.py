"""A run that ends with its report, on a tiny encoder."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import run_classifier
from tf_finetune.classification.config import Config
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.experiments.report import main
from tf_finetune.experiments.untuned import embed, nearest_mean
from tf_finetune.runs.settings import replaced

pytestmark = pytest.mark.report
WORDS = {"good": ("great", "good", "plot"), "bad": ("bad", "boring", "not")}


def write(path: Path, rows: int) -> None:
    lines = ["text\tlabel\tsource"]
    for place in range(rows):
        label = ("good", "bad")[place % 2]
        word = WORDS[label][place % 3]
        lines.append(f"a {word} film {place}\t{label}\t{'paper' if place % 3 else 'web'}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def command(tmp_path, tiny_bert_dir) -> list[str]:
    for name, rows in (("train", 40), ("dev", 10), ("test", 12)):
        write(tmp_path / f"{name}.tsv", rows)
    return [
        "run_classifier.py",
        f"--encoder={tiny_bert_dir}",
        f"--train_file={tmp_path}/train.tsv",
        f"--validation_file={tmp_path}/dev.tsv",
        f"--test_file={tmp_path}/test.tsv",
        f"--model_dir={tmp_path}/out",
        *("--max_seq_length=16", "--train_batch_size=8", "--max_steps=10", "--log_steps=2"),
        *("--do_train", "--do_eval", "--label_column=label"),
    ]


def test_a_run_ends_with_its_report(command, tmp_path, capfd):
    assert run_classifier.main([*command, "--slice_columns=source"]) == 0
    said = capfd.readouterr()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert f"report     {tmp_path}/out/report.html: {report['headline']}" in said.out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    ours = report["comparison"]["models"]
    assert set(ours) == {"tuned", "tfidf", "untuned", "majority"} and ours["tuned"]["rows"] == 12
    for name in ("accuracy", "macro_f1", "matthews_correlation", "f1"):
        expected = metrics["test"][name]
        assert ours["tuned"]["scores"][name]["value"] == pytest.approx(expected)
    assert ours["majority"]["scores"]["accuracy"]["value"] == 0.5
    parts = report["by_column"]["source"]["parts"]
    assert {part["value"]: part["rows"] for part in parts} == {"paper": 8, "web": 4}
    assert report["cost"]["trained_weights"] == report["cost"]["weights"] > 1_000
    assert report["cost"]["peak_memory_bytes"] > 1e8
    assert {point["split"] for point in report["curves"]} == {"train", "validation"}
    assert report["data"]["lengths"]["splits"]["train"]["rows"] == 40
    # Rows 1 to 12 of the test are those of the training.
    assert report["duplicates"]["equal"]["rows"] == 12
    assert main([f"{tmp_path}/out", "--slice_columns=no"]) == 2
    assert "--slice_columns=no: no such column. There are label, source, text" in (
        capfd.readouterr().err
    )


def test_without_the_extra_a_run_says_so_and_goes_well(command, tmp_path, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *package: None if name == "matplotlib" else found(name, *package),
    )
    assert run_classifier.main(command) == 0
    line = "report     not written: matplotlib is not installed: pip install 'tf-finetune[report]'"
    assert line in capsys.readouterr().out.splitlines()
    assert not (tmp_path / "out" / "report.html").exists()
    evaluated = (tmp_path / "out" / "evaluated.jsonl").read_text().splitlines()
    assert [json.loads(line)["split"] for line in evaluated] == ["test"] * 12
    # Not asked for, nothing is left for it.
    other = [*command, f"--model_dir={tmp_path}/other", "--nodo_report", "--max_steps=1"]
    assert run_classifier.main(other) == 0
    assert "report     " not in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "other").glob("*.jsonl")] in ([], ["log.jsonl"])


def test_embeddings_are_those_of_the_untuned_encoder(tiny_bert_dir, bert_forward, read_bert):
    config = replaced(Config(), encoder=str(tiny_bert_dir), max_seq_length=16, precision="float32")
    config = replaced(config, pooling="mean")
    problem = Problem("single_label", ("text",), ("bad", "good"))
    (found,) = embed(config, problem, [Examples((["the film is good"],))])
    ids = [[2, *(_id(tiny_bert_dir, word) for word in ["the", "film", "is", "good"]), 3]]
    inputs = {name: np.array(ids) for name in ("input_word_ids", "input_mask", "input_type_ids")}
    inputs["input_mask"], inputs["input_type_ids"] = np.ones_like(ids), np.zeros_like(ids)
    _, sequence = bert_forward(read_bert(tiny_bert_dir), inputs, heads=2)
    np.testing.assert_allclose(found, np.mean(sequence, axis=1), atol=1e-5)


def _id(folder: Path, word: str) -> int:
    return (folder / "vocab.txt").read_text().split("\n").index(word)


def test_the_nearest_mean_is_as_by_hand():
    train = np.array([[2.0, 0], [3, 0.1], [0, 1], [0.1, 5]])
    rows = np.array([[9.0, 1], [1, 9]])
    problem = Problem("single_label", ("text",), ("a", "b", "never"))
    said = nearest_mean(train, np.array([0, 0, 1, 1]), rows, problem)
    np.testing.assert_array_equal(said, [[1, 0, 0], [0, 1, 0]])
    problem = Problem("multi_label", ("text",), ("a", "none"))
    labels = np.array([[1.0, 0], [1, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(nearest_mean(train, labels, rows, problem), [[1, 0], [0, 0]])
