"""Whole runs through the command line's `main`, on a tiny encoder and real files."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import run_classifier
from tests.programs import Program
from tf_finetune.classification.config import Config
from tf_finetune.classification.prepare import can_be_evaluated, prepare
from tf_finetune.classification.run import run
from tf_finetune.runs.cluster import EXAMPLE
from tf_finetune.runs.flags import parse_flags

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD, BAD = ("a good film", "great plot", "very good"), ("bad movie", "boring plot", "not good")


def write_rows(path: Path, rows: int, header: str = "text\tlabel") -> None:
    lines = [header]
    for i in range(rows):
        text, label = ((GOOD, "good"), (BAD, "bad"))[i % 2]
        lines.append(f"{text[i % 3]} {i}\t{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


ROWS = {"train": 40, "dev": 11, "test": 13}


@pytest.fixture
def files(tmp_path):
    for name, rows in ROWS.items():
        write_rows(tmp_path / f"{name}.tsv", rows)
    return tmp_path


def arguments(files: Path, encoder: Path, *more: str) -> list[str]:
    return [
        "run_classifier.py",
        f"--encoder={encoder}",
        f"--train_file={files}/train.tsv",
        f"--validation_file={files}/dev.tsv",
        f"--test_file={files}/test.tsv",
        f"--model_dir={files}/out",
        "--max_seq_length=32",
        "--train_batch_size=8",
        "--learning_rate=3e-3",
        "--num_train_epochs=6",
        *more,
    ]


def test_one_command_leaves_a_whole_model_directory(files, tiny_bert_dir, capsys):
    # So few steps teach the toy from most first heads, not from all.
    everything = ("--seed=1", "--do_train", "--do_eval", "--do_predict", "--do_export")
    command = arguments(files, tiny_bert_dir, *everything, "--num_train_epochs=12")
    assert run_classifier.main(command) == 0
    out = files / "out"
    shown = capsys.readouterr().out
    assert "accuracy" in shown and "-> " in shown and "next:" in shown

    assert (out / "labels.txt").read_text() == "bad\ngood\n"
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {"train", "eval", "test", "versions"}
    names = "steps epochs seconds examples_per_second steady_examples_per_second"
    names += " tokens_per_second first_step_seconds"
    assert set(names.split()) <= set(metrics["train"])
    assert metrics["train"]["steps"] == 60 and metrics["train"]["epochs"] == 12
    assert metrics["eval"]["accuracy"] > 0.8 and metrics["test"]["accuracy"] > 0.8
    assert sum(c["support"] for c in metrics["test"]["per_class"].values()) == 13

    with (out / "predictions.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    right = [row["prediction"] == ("good", "bad")[i % 2] for i, row in enumerate(rows)]
    assert sum(right) / 13 == pytest.approx(metrics["test"]["accuracy"])
    for row in rows:
        total = float(row["probability_bad"]) + float(row["probability_good"])
        assert total == pytest.approx(1, abs=1e-5)
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    objects = [json.loads(line) for line in lines]
    assert [o["label"] for o in objects] == [("good", "bad")[i % 2] for i in range(13)]
    assert [o["prediction"] for o in objects] == [row["prediction"] for row in rows]

    config = json.loads((out / "config.json").read_text())
    assert config["problem"]["label_names"] == ["bad", "good"]
    assert list((out / "train").iterdir()) and list((out / "validation").iterdir())
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    points = [(line["split"], line["step"]) for line in log]
    steps = {split: [step for name, step in points if name == split] for split, _ in points}
    assert steps == {"train": [*range(10, 61, 10)], "validation": [*range(5, 61, 5)]}
    assert log[-1]["epoch"] == 12
    assert (out / "export" / "saved_model.pb").is_file()
    assert (out / "export" / "model.keras").is_file()
    assert not [p for p in out.iterdir() if p.name.startswith(".")]

    # The same command again finds the training done.
    before = json.loads((out / "metrics.json").read_text())
    assert run_classifier.main(command) == 0
    assert "going on from step 60 of 60" in capsys.readouterr().out
    assert json.loads((out / "metrics.json").read_text()) == before

    # The flagfile repeats the run.
    repeat = ["x", f"--flagfile={out}/train.cfg", f"--model_dir={files}/again"]
    assert run_classifier.main(repeat) == 0
    again = json.loads((files / "again" / "metrics.json").read_text())
    assert again["test"] == before["test"]

    # Another run's model is not replaced unless it is said.
    other = [*command, "--learning_rate=1e-3", "--max_steps=2"]
    assert run_classifier.main(other) == 2
    complaint = capsys.readouterr().err
    assert "--learning_rate: 0.003 there, 0.001 now" in complaint and "--overwrite" in complaint
    assert json.loads((out / "metrics.json").read_text()) == before
    lost = [*other, "--overwrite", f"--train_file={files}/missing.tsv"]
    assert run_classifier.main(lost) == 2
    assert "missing.tsv" in capsys.readouterr().err
    assert json.loads((out / "metrics.json").read_text()) == before
    assert run_classifier.main([*other, "--overwrite"]) == 0
    assert json.loads((out / "metrics.json").read_text())["train"]["steps"] == 2

    # A trained model predicts new rows without its training data.
    (files / "train.tsv").unlink()
    (files / "new.tsv").write_text("text\nvery good great film\n")
    predict = ["x", f"--model_dir={out}", f"--test_file={files}/new.tsv", "--do_predict"]
    assert run_classifier.main(predict) == 0
    assert len((out / "predictions.tsv").read_text().splitlines()) == 2
    assert run_classifier.main([*predict, "--head=mlp"]) == 2
    assert "--head: 'native' there, 'mlp' now" in capsys.readouterr().err


def test_init_from_keeps_the_encoder_and_replaces_the_head(files, tiny_bert_dir, capsys):
    command = arguments(files, tiny_bert_dir, "--do_train", "--do_eval")
    assert run_classifier.main(command) == 0
    earlier = json.loads((files / "out" / "metrics.json").read_text())
    rows = (files / "train.tsv").read_text().replace("\tgood\n", "\tpositive\n")
    (files / "other.tsv").write_text(rows.replace("\tbad\n", "\tnegative\n"))
    capsys.readouterr()
    common = [
        "x",
        f"--init_from={files}/out",
        "--do_train",
        "--max_steps=1",
        "--learning_rate=1e-9",
    ]
    common += ["--max_seq_length=32"]
    fresh = [*common, f"--train_file={files}/other.tsv", f"--model_dir={files}/fresh"]
    assert run_classifier.main(fresh) == 0
    assert "head       new" in capsys.readouterr().out
    kept = [*common, f"--train_file={files}/dev.tsv", f"--model_dir={files}/kept"]
    kept += [f"--test_file={files}/test.tsv", "--do_eval"]
    assert run_classifier.main(kept) == 0
    assert "head       kept" in capsys.readouterr().out
    # At a rate of next to nothing the model is the one it began with.
    metrics = json.loads((files / "kept" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] == earlier["test"]["accuracy"]
    assert metrics["test"]["loss"] == pytest.approx(earlier["test"]["loss"], rel=1e-3)


@pytest.mark.parametrize("problem", ["multi_label", "regression"])
def test_other_problems(problem, tmp_path, tiny_bert_dir):
    labels = {"multi_label": [["good"], ["bad", "long"]], "regression": [1.5, -0.5]}[problem]
    lines = [
        json.dumps({"a": (GOOD, BAD)[i % 2][i % 3], "b": "film", "y": labels[i % 2]})
        for i in range(24)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    command = ["x", f"--encoder={tiny_bert_dir}", f"--train_file={tmp_path}/rows.jsonl"]
    command += [f"--test_file={tmp_path}/rows.jsonl", "--text_columns=a,b", "--label_column=y"]
    command += [f"--model_dir={tmp_path}/out", "--max_seq_length=32", "--max_steps=60"]
    command += ["--train_batch_size=8", "--learning_rate=5e-3", "--do_train", "--do_eval"]
    command += ["--do_predict", "--do_export", "--class_weights=none"]
    assert run_classifier.main(command) == 0
    test = json.loads((tmp_path / "out" / "metrics.json").read_text())["test"]
    assert test["micro_f1" if problem == "multi_label" else "pearson"] > 0.95


def tsv(content: bytes):
    return lambda folder: (folder / "train.tsv").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "flags", "complaint"),
    [
        (lambda d: (d / "train.tsv").unlink(), [], "train.tsv"),
        (lambda d: None, ["--text_columns=txt"], "text, label"),
        (tsv(b""), [], "train.tsv"),
        (tsv(b"text\tlabel\n"), [], "train.tsv"),
        (tsv(b"text\tlabel\na\tb\nc\n"), [], "train.tsv:3"),
        (tsv(b"text\tlabel\na\tb\n\xff\tb\n"), [], "train.tsv:3"),
        (tsv(b"text\tlabel\na\0\tb\nc\td\n"), [], "train.tsv:2"),
        (tsv(b"text\tlabel\na\tgood\nb\tgood\n"), [], "two classes"),
        (tsv(b"text\tlabel\na\tgood\nb\tworse\n"), [], "dev.tsv:3"),
        (
            tsv(b"text\tlabel\na\t1.5\nb\tnan\n"),
            ["--problem_type=regression"],
            "train.tsv:3",
        ),
        (lambda d: None, ["--train_batch_size=0"], "--train_batch_size=0"),
        (lambda d: None, ["--max_seq_length=65"], "64"),
        (lambda d: None, ["--encoder=no/such/encoder"], "no/such/encoder"),
        (lambda d: None, ["--metric_for_best_model=bleu"], "accuracy"),
        (lambda d: None, ["--early_stopping_patience=1", "--validation_file="], "validation_file"),
        (lambda d: None, ["--model_dir="], "--model_dir"),
        (lambda d: None, ["--nodo_train"], "--do_train"),
        (lambda d: (d / "out").write_text("a file"), [], "out: cannot be written: File exists"),
        (lambda d: None, ["--model_dir=/proc/none/out"], "/proc/none/out: cannot be written"),
        (lambda d: None, ["--model_dir=out[1]"], "for a pattern"),
        (lambda d: None, ["--model_dir=nosuch://a/out"], "cannot be written: File system scheme"),
        (lambda d: (d / "out" / "train").mkdir(parents=True), ["--overwrite"], "holds train"),
        (lambda d: None, ["--max_seq_length=2"], "need max_seq_length=3 or more"),
        (lambda d: None, ["--label_column=text"], "a text column too"),
        (tsv(b'text\tlabel\na\t"\x07"\nb\tgood\n'), [], "control character"),
        (
            tsv(b"text\tlabel\na\t1.5\nb\t1e39\n"),
            ["--problem_type=regression"],
            "finite number",
        ),
        (
            tsv(b"text\tlabel\na\t1.5\nb\t2\n"),
            ["--validation_file=", "--test_file=", "--label_smoothing_factor=0.1"],
            "a regression has no classes",
        ),
    ],
)
def test_bad_input_is_named_and_exits_with_2(files, tiny_bert_dir, capsys, spoil, flags, complaint):
    spoil(files)
    assert run_classifier.main(arguments(files, tiny_bert_dir, "--do_train", *flags)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") or "\nerror: " in error
    assert complaint in error and "Traceback" not in error
    assert not (files / "out" / "config.json").exists()


def test_the_report_of_the_data_is_a_file_too(files, tiny_bert_dir, capsys):
    path = files / "reports" / "data.json"
    command = arguments(files, tiny_bert_dir, "--do_train", f"--data_report={path}")
    assert run_classifier.main([*command, "--encoder=no/such/encoder"]) == 2
    before = json.loads(path.read_text())
    assert before["splits"]["train"]["labels"] == {"bad": 20, "good": 20}
    assert "lengths" not in before

    assert run_classifier.main([*command, "--max_steps=1", "--max_seq_length=5"]) == 0
    after = json.loads(path.read_text())
    lengths = after.pop("lengths")
    assert after == before
    assert lengths["max_seq_length"] == 5 and lengths["splits"]["train"]["rows"] == 40
    assert lengths["splits"]["train"]["tokens_lost"] > 0
    assert os.listdir(files / "reports") == ["data.json"]
    shown = capsys.readouterr().out
    assert "Always saying 'bad': accuracy 0.4545" in shown and "tokens lost" in shown
    assert f"--data_report={path}" in (files / "out" / "train.cfg").read_text()
    capsys.readouterr()
    assert run_classifier.main([*command, f"--data_report={files}"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_evaluation_counts_the_rows_whose_label_is_known(files, tiny_bert_dir, capsys):
    command = arguments(files, tiny_bert_dir, "--do_train", "--do_eval", "--do_predict")
    config, given = parse_flags(Config, [*command, "--max_steps=2"])
    request = prepare(config, given)
    data = request.data
    partly = np.where(np.arange(13) < 5, np.int32(-1), data.test.labels)
    unknown = np.full(11, -1, np.int32)
    data = dataclasses.replace(
        data,
        validation=dataclasses.replace(data.validation, labels=unknown),
        test=dataclasses.replace(data.test, labels=partly),
    )
    assert run(dataclasses.replace(request, data=data)) == 0
    metrics = json.loads((files / "out" / "metrics.json").read_text())
    assert "eval" not in metrics and metrics["test"]["examples"] == 8
    assert re.search(r"^examples +8$", capsys.readouterr().out, re.M)
    # Of validation no label is known: no evaluation on the way.
    assert not (files / "out" / "validation").exists()
    assert len((files / "out" / "predictions.tsv").read_text().splitlines()) == 1 + 13
    assert not can_be_evaluated(data.validation) and can_be_evaluated(data.test)


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory, tiny_bert_dir):
    """A trained model, the command that made it, and a copy of what it left."""
    files = tmp_path_factory.mktemp("finished")
    for name, rows in ROWS.items():
        write_rows(files / f"{name}.tsv", rows)
    command = arguments(files, tiny_bert_dir, "--do_train", "--do_eval", "--max_steps=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_finetune.runs.command.start_report", lambda *_: None)
        assert run_classifier.main(command) == 0
    kept = shutil.copytree(files, tmp_path_factory.mktemp("kept") / "files")
    return files, command, kept


@pytest.fixture
def finished(finished_once):
    """A model directory as its run left it, and the command that made it."""
    files, command, kept = finished_once
    shutil.rmtree(files)
    shutil.copytree(kept, files)
    return files, command


def test_a_model_is_kept_from_data_with_other_labels(finished, capsys):
    files, command = finished
    for name in ("train", "dev", "test"):
        path = files / f"{name}.tsv"
        path.write_text(path.read_text().replace("\tgood\n", "\tfine\n"))
    before = (files / "out" / "labels.txt").read_text()
    assert run_classifier.main(command) == 2
    assert "labels: ('bad', 'good') there, ('bad', 'fine') now" in capsys.readouterr().err
    assert (files / "out" / "labels.txt").read_text() == before


def test_a_finished_model_is_trained_further_as_the_message_says(finished, capsys):
    files, command = finished
    shutil.copy(files / "train.tsv", files / "more.tsv")
    for flag in ("--num_train_epochs=8", f"--train_file={files}/more.tsv", "--max_steps=9"):
        assert run_classifier.main([*command, flag]) == 2
        complaint = capsys.readouterr().err
        assert f"{flag.partition('=')[0]}: " in complaint
        advice = f"--init_from={files}/out --model_dir=<new>"
        assert complaint.splitlines()[-1].endswith(f"to train this model further: {advice}.")
    more = advice.replace("<new>", f"{files}/further").split()
    assert run_classifier.main([*command, flag, *more]) == 0
    assert "head       kept" in capsys.readouterr().out


def test_versions_are_exported_as_tensorflow_serving_reads_them(finished, capsys):
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    files, command = finished
    base = files / "out" / "export"
    export = ["x", f"--model_dir={files}/out", "--do_export"]
    for version in (1, 2):
        assert run_classifier.main([*export, f"--export_version={version}"]) == 0
        assert f"\n  {base}/{version} is a SavedModel" in capsys.readouterr().out
    # Serving takes each folder that is named by a number for a version.
    assert sorted(path.name for path in base.iterdir()) == ["1", "2"]
    for path in base.iterdir():
        assert (path / "saved_model.pb").is_file()
        serve = tf.saved_model.load(str(path)).signatures["serving_default"]
        assert serve(text=tf.constant(["good"]))["label"].shape == (1,)
    # An export without a version would remove them: it is refused before the training.
    again = [*command, "--overwrite", "--seed=7"]
    assert run_classifier.main([*again, "--do_export"]) == 2
    assert "holds the versions 1, 2, " in capsys.readouterr().err
    (base / "2" / "saved_model.pb").write_bytes(b"")
    assert run_classifier.main([*again, "--do_export", "--export_version=2"]) == 0
    assert sorted(path.name for path in base.iterdir()) == ["1", "2"]
    assert (base / "2" / "saved_model.pb").stat().st_size
    # The other way about, a version would stand in an export without one.
    (base / "1").rename(files / "version")
    shutil.rmtree(base)
    (files / "version").rename(base)
    assert run_classifier.main([*export, "--export_version=1"]) == 2
    assert "holds a SavedModel without a version" in capsys.readouterr().err
    assert (base / "saved_model.pb").is_file() and not (base / "1").exists()


def test_overwrite_removes_only_what_a_run_has_written(finished, capsys):
    files, command = finished
    (files / "out" / "train" / "rows.tsv").write_text("mine")
    (files / "out" / "log.jsonl").write_text("another run's")
    (files / "elsewhere").mkdir()
    (files / "elsewhere" / "saved_model.pb").touch()
    (files / "out" / "export").symlink_to(files / "elsewhere")
    assert run_classifier.main([*command, "--seed=7", "--overwrite"]) == 0
    assert (files / "out" / "train" / "rows.tsv").read_text() == "mine"
    assert len(list((files / "out" / "train").glob("events*"))) > 0
    assert "another" not in (files / "out" / "log.jsonl").read_text()
    assert os.listdir(files / "elsewhere") == ["saved_model.pb"]
    assert not (files / "out" / "export").exists()


def test_a_model_directory_without_checkpoints_is_still_taken(finished, capsys):
    files, command = finished
    shutil.rmtree(files / "out" / "checkpoints")
    (files / "out" / "export").mkdir()
    assert run_classifier.main([*command, "--seed=7"]) == 2
    assert "--seed: 42 there, 7 now" in capsys.readouterr().err
    (files / "out" / "config.json").unlink()
    assert run_classifier.main([*command, "--overwrite"]) == 2
    assert "not of a run of ours" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["\udcff", "{", "[]", '{"problem": 3}', '{"problem": {}, "data": null}', "typed"]
)
def test_a_damaged_config_is_named(finished, capsys, text):
    files, _ = finished
    path = files / "out" / "config.json"
    if text == "typed":
        text = path.read_text().replace('"max_seq_length": 32', '"max_seq_length": 32.5')
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert run_classifier.main(["x", f"--model_dir={files}/out", "--do_eval"]) == 2
    error = capsys.readouterr().err
    assert "config.json is damaged" in error and "Traceback" not in error


def test_a_models_record_cannot_name_code(finished, capsys):
    """A head of one's own is a module that is imported: the command line alone may ask for it."""
    files, _ = finished
    path = files / "out" / "config.json"
    record = json.loads(path.read_text())
    record["encoder"]["head"] = "antigravity:Class"
    path.write_text(json.dumps(record))
    assert run_classifier.main(["x", f"--model_dir={files}/out", "--do_eval"]) == 2
    assert "antigravity:Class. That is code" in capsys.readouterr().err
    new = ["x", f"--init_from={files}/out", f"--train_file={files}/train.tsv", "--do_train"]
    assert run_classifier.main([*new, f"--model_dir={files}/new"]) == 2
    assert "antigravity:Class. That is code" in capsys.readouterr().err
    assert "antigravity" not in sys.modules


def test_damaged_metrics_do_not_lose_new_ones(finished, capsys):
    files, _ = finished
    (files / "out" / "metrics.json").write_text('{"tes')
    assert run_classifier.main(["x", f"--model_dir={files}/out", "--do_eval"]) == 0
    assert "metrics.json is damaged" in capsys.readouterr().err
    assert "test" in json.loads((files / "out" / "metrics.json").read_text())


def test_a_model_predicts_where_no_file_of_its_training_is(finished, capsys):
    files, _ = finished
    (files / "new.tsv").write_text("id\ttext\n1\tvery good\n2\tbad plot\n")
    for name in ("train", "dev", "test"):
        (files / f"{name}.tsv").unlink()
    command = ["x", f"--model_dir={files}/out", f"--test_file={files}/new.tsv", "--do_predict"]
    assert run_classifier.main(command) == 0
    assert len((files / "out" / "predictions.tsv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        ("--label_names=x,y", "--label_names: ('bad', 'good') there, ('x', 'y') now"),
        ("--problem_type=regression", "--problem_type: 'single_label' there, 'regression' now"),
        ("--class_weights=balanced", "--class_weights: 'none' there"),
        ("--learning_rate=5e-5", "--learning_rate: 0.003 there, 5e-05 now"),
    ],
)
def test_flags_that_contradict_the_model_are_refused(finished, capsys, flag, complaint):
    files, _ = finished
    assert run_classifier.main(["x", f"--model_dir={files}/out", "--do_eval", flag]) == 2
    assert complaint in capsys.readouterr().err


def test_a_flag_at_its_default_counts_for_a_trained_model(tmp_path, tiny_bert_dir):
    lines = [json.dumps({"text": "good film", "label": ["good", "bad"][: i % 2]}) for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, '{"text": "bad", "label": ["bad"]}']))
    command = ["x", f"--encoder={tiny_bert_dir}", f"--train_file={tmp_path}/rows.jsonl"]
    command += [f"--test_file={tmp_path}/rows.jsonl", "--threshold=0.01", "--do_train"]
    command += [f"--model_dir={tmp_path}/out", "--max_seq_length=16", "--max_steps=1"]
    assert run_classifier.main([*command, "--do_predict"]) == 0
    path = tmp_path / "out" / "predictions.tsv"
    assert "\tbad,good\t" in path.read_text()
    predict = ["x", f"--model_dir={tmp_path}/out", "--do_predict", "--threshold=0.5"]
    assert run_classifier.main(predict) == 0
    with path.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            chosen = [n for n in ("bad", "good") if float(row[f"probability_{n}"]) >= 0.5]
            assert row["prediction"] == ",".join(chosen)


def test_a_corrupt_checkpoint_is_named_and_exits_with_2(files, tiny_bert_dir, capsys):
    command = arguments(files, tiny_bert_dir, "--do_train", "--max_steps=4")
    assert run_classifier.main(command) == 0
    for data in (files / "out" / "checkpoints").glob("*.data*"):
        data.write_bytes(data.read_bytes()[:50])
    assert run_classifier.main(["x", f"--model_dir={files}/out", "--do_eval"]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert run_classifier.main(command) == 2
    assert "no checkpoint can be read" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["saved_model", "native"])
def test_a_tf_hub_encoder_lifted_and_wrapped(files, tiny_hub_dir, mode):
    everything = ("--do_train", "--do_eval", "--do_predict", "--do_export")
    everything += (f"--encoder_mode={mode}", "--num_train_epochs=30")
    command = arguments(files, tiny_hub_dir / "encoder", *everything)
    assert run_classifier.main(command) == 0
    test = json.loads((files / "out" / "metrics.json").read_text())["test"]
    assert test["accuracy"] > 0.8
    assert (files / "out" / "export" / "saved_model.pb").is_file()


@pytest.mark.thorough
def test_the_fine_tuned_encoder_goes_back_to_tf_hub_format(files, tiny_bert_dir):
    tasks = ("--seed=1", "--do_train", "--do_eval", "--do_export")
    command = arguments(files, tiny_bert_dir, *tasks, "--num_train_epochs=12")
    assert run_classifier.main([*command, "--export_encoder", "--precision=float32"]) == 0
    hub = files / "out" / "encoder" / "encoder"
    more = ["--freeze=encoder", "--precision=float32", "--do_train", "--do_eval"]
    more.append(f"--model_dir={files}/frozen")
    assert run_classifier.main([*arguments(files, hub, *more)]) == 0
    # A fine-tuned encoder needs no more than a head.
    test = json.loads((files / "frozen" / "metrics.json").read_text())["test"]
    assert test["accuracy"] > 0.8


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_goes_on(files, tiny_bert_dir, capsys):
    flags = arguments(files, tiny_bert_dir, "--do_train", "--max_steps=300")
    flags.append("--save_checkpoints_steps=20")
    checkpoints = files / "out" / "checkpoints"

    def last() -> int:
        saved = (int(path.stem.split("-")[1]) for path in checkpoints.glob("step-*.index"))
        return max(saved, default=0)

    for signum, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = last()
        program = Program("run_classifier", flags[1:], files / "log")
        deadline = time.monotonic() + 300
        while last() == before and time.monotonic() < deadline:
            assert program.status is None
            time.sleep(0.1)
        program.send(signum)
        said = program.finish(status, limit=120)
        assert "Traceback" not in said and "goes on from checkpoint" in said
        assert before < last() < 300
    # Another number of steps is another run: the schedule differs.
    assert run_classifier.main([*flags, "--max_steps=200"]) == 2
    assert "--max_steps: 300 there, 200 now" in capsys.readouterr().err
    saved = last()
    assert run_classifier.main(flags) == 0
    assert f"going on from step {saved} of 300" in capsys.readouterr().out
    metrics = json.loads((files / "out" / "metrics.json").read_text())
    assert metrics["train"]["steps"] == 300


@pytest.mark.parametrize(
    ("strategy", "complaint"),
    [("auto", "several workers cannot read"), ("one_device", "not prepared in")],
)
def test_workers_cannot_read_tensorflow_data_sets(
    tiny_bert_dir, tmp_path, capsys, monkeypatch, strategy, complaint
):
    monkeypatch.setenv("TF_CONFIG", EXAMPLE)
    flags = [f"--encoder={tiny_bert_dir}", "--task_name=cola", f"--tfds_data_dir={tmp_path}"]
    flags += [f"--model_dir={tmp_path}/out", "--do_train", f"--distribution_strategy={strategy}"]
    assert run_classifier.main(["run_classifier.py", *flags]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_streamed_steps_are_saved_and_evaluated_once_an_epoch(files, tiny_bert_dir):
    """40 rows, 8 a step: --max_steps does not hide the epochs."""
    more = ["--do_train", "--streaming=true", "--label_names=bad,good", "--max_steps=12"]
    assert run_classifier.main(arguments(files, tiny_bert_dir, *more)) == 0
    summary = json.loads((files / "out" / "metrics.json").read_text())["train"]
    assert summary["epochs"] == pytest.approx(2.4) and summary["best_step"] in (5, 10, 12)


@pytest.mark.slow
def test_two_deterministic_runs_are_equal_bit_for_bit(files, tiny_bert_dir, assert_same_weights):
    """Under the defaults: dropout, and bfloat16 where the machine has it."""
    for name in ("one", "two"):
        more = ["--do_train", "--max_steps=12", "--deterministic", f"--model_dir={files / name}"]
        command = arguments(files, tiny_bert_dir, *more)[1:]
        Program("run_classifier", command, files / "log").finish()
    assert_same_weights(files / "one", files / "two")
