"""Probabilities that are as sure as the model is right, in every form of it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy import special
from sklearn.metrics import f1_score

import run_classifier
from tf_finetune.classification.calibrate import (
    calibration_error,
    fit_temperature,
    fit_thresholds,
    load_calibration,
    save_calibration,
)
from tf_finetune.classification.metrics import compute_metrics
from tf_finetune.classification.predict import to_predictions
from tf_finetune.data.problem import UNSURE, Problem
from tf_finetune.errors import UserError
from tf_finetune.runs.model_dir import ModelDir


def drawn(temperature: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn by the softmax of logits / temperature."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (count, 5))
    shares = special.softmax(logits / temperature, axis=1)
    labels = [random.choice(5, p=row) for row in shares]
    return logits, np.array(labels, np.int32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature):
    logits, labels = drawn(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    before, after = (
        calibration_error(special.softmax(logits / t, axis=1), labels) for t in (1.0, found)
    )
    assert after < 0.03 and (temperature == 1.0 or before > 2 * after)


def test_where_no_row_tells_it_nothing_is_changed():
    logits = np.array([[3.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    assert fit_temperature(logits, np.array([0, 1, 0])) == 1.0  # No error.
    assert fit_temperature(logits, np.array([-1, -1, -1])) == 1.0
    # A row of an unknown label does not count.
    labels = np.array([0, 0, 0])
    more = np.concatenate([logits, [[9.0, 0.0]]])
    assert fit_temperature(more, np.array([*labels, -1])) == fit_temperature(logits, labels)


def test_the_error_is_the_gap_between_sure_and_right():
    """Half of the rows are right where the model is sure by 0.9, all where it is sure by 0.6."""
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    error = calibration_error(shares, np.array([0, 1, 0, 0]))
    assert error == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)


def test_each_label_gets_the_threshold_of_its_highest_f1():
    """Compared with scikit-learn's F1 at every threshold there is."""
    random = np.random.default_rng(1)
    truth = random.random((300, 3)) < [0.5, 0.2, 0.02]
    shares = np.round(np.clip(truth * 0.3 + random.random((300, 3)) * 0.7, 0, 1), 2)
    found = fit_thresholds(shares, truth)

    def best(column: np.ndarray, true: np.ndarray) -> float:
        return max(f1_score(true, column >= least) for least in np.unique(column))

    for column, true, threshold in zip(shares.T[:2], truth.T, found, strict=False):
        assert f1_score(true, column >= threshold) == best(column, true)
        assert threshold not in column  # Rounding decides nothing.
    # Six rows tell no threshold of their own: it is that of all labels together.
    assert truth[:, 2].sum() < 10
    everything = shares.ravel() >= found[2]
    assert f1_score(truth.ravel(), everything) == best(shares.ravel(), truth.ravel())


TWO = Problem("single_label", ("text",), ("no", "yes"))
TAGS = Problem("multi_label", ("text",), ("a", "b"))
ROWS = [("good", "a"), ("bad", "b"), ("plot", "a,b"), ("boring", "c,a")]


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"temperature": 1}', '{"temperature": 0, "thresholds": {}}']
    + [f'{{"temperature": 1, "thresholds": {bad}}}' for bad in ('{"a": 0.5}', '{"a": 2, "b": 1}')],
)
def test_a_damaged_file_is_an_error(content, tmp_path):
    model_dir = ModelDir(str(tmp_path))
    assert load_calibration(model_dir, TAGS) == TAGS
    for problem, found in ((TWO, {"temperature": 1.25}), (TAGS, {"thresholds": (0.25, 0.75)})):
        calibrated = dataclasses.replace(problem, **found)
        save_calibration(model_dir, calibrated)
        assert load_calibration(model_dir, problem) == calibrated
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(UserError, match=r"calibration\.json is damaged"):
        load_calibration(model_dir, TAGS)


def test_who_is_not_sure_enough_does_not_answer():
    logits = np.array([[0.0, 1.0], [3.0, 0.0], [0.0, 3.0]])
    labels = np.array([0, 0, 0])
    picky = dataclasses.replace(TWO, reject_below=0.8)
    assert to_predictions(logits, picky).labels == ((UNSURE,), ("no",), ("yes",))
    metrics = compute_metrics(logits, labels, picky)
    assert metrics["coverage"] == pytest.approx(2 / 3) and metrics["selective_accuracy"] == 0.5
    assert metrics["accuracy"] == pytest.approx(1 / 3)  # Of what it would have said.
    nobody = compute_metrics(logits, labels, dataclasses.replace(TWO, reject_below=0.99))
    assert nobody["coverage"] == 0 and nobody["selective_accuracy"] is None
    # A cooler model is less sure.
    cool = dataclasses.replace(picky, temperature=3.0)
    assert to_predictions(logits, cool).labels == ((UNSURE,),) * 3
    for problem, why in ((TAGS, "multi_label"), (TWO, "one of the labels")):
        names = ("no", UNSURE) if problem is TWO else TAGS.label_names
        with pytest.raises(UserError, match=why):
            dataclasses.replace(problem, label_names=names, reject_below=0.5)


@pytest.mark.slow
def test_a_run_keeps_it_for_predictions_and_exports(tiny_bert_dir, tmp_path, capsys):
    def write(name: str, flip: int) -> Path:
        rows = [
            f"a {('good', 'bad')[n % 2]} film {n}\t{('yes', 'no')[(n + (n % flip == 0)) % 2]}"
            for n in range(48)
        ]
        path = tmp_path / f"{name}.tsv"
        path.write_text("\n".join(["text\tlabel", *rows]) + "\n")
        return path

    out = tmp_path / "out"
    command = ["run_classifier.py", f"--model_dir={out}", "--do_predict", "--do_export"]
    train = [f"--encoder={tiny_bert_dir}", f"--train_file={write('train', 99)}", "--do_train"]
    train += [f"--validation_file={write('dev', 4)}", "--max_steps=60", "--max_seq_length=32"]
    train += ["--train_batch_size=8", "--learning_rate=3e-3", "--precision=float32"]
    assert run_classifier.main([*command, *train, "--export_formats=saved_model,hugging_face"]) == 0
    assert "expected calibration error" in capsys.readouterr().out
    temperature = load_calibration(ModelDir(str(out)), TWO).temperature
    assert temperature != 1.0
    lines = (out / "predictions.jsonl").read_text().splitlines()
    expected = [json.loads(line)["probabilities"]["yes"] for line in lines]
    texts = [json.loads(line)["texts"]["text"] for line in lines]
    served = tf.saved_model.load(str(out / "export")).signatures["serving_default"]
    found = served(text=tf.constant(texts))["probabilities"].numpy()[:, 1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # transformers has no temperature: its head's last layer holds it.
    flags = [f"--init_from={out / 'hugging_face'}", f"--test_file={tmp_path}/dev.tsv"]
    flags += ["--do_predict", f"--model_dir={tmp_path / 'read'}", "--max_seq_length=32"]
    assert run_classifier.main(["run_classifier.py", *flags]) == 0
    again = (tmp_path / "read" / "predictions.jsonl").read_text().splitlines()
    shares = [json.loads(line)["probabilities"]["yes"] for line in again]
    np.testing.assert_allclose(shares, expected, atol=1e-4)
    # A later call has it too.
    assert run_classifier.main([*command[:3], f"--test_file={tmp_path}/dev.tsv"]) == 0
    later = (out / "predictions.jsonl").read_text().splitlines()
    shares = [json.loads(line)["probabilities"]["yes"] for line in later]
    np.testing.assert_allclose(shares, expected, atol=1e-5)


@pytest.mark.slow
def test_a_run_of_many_labels_keeps_the_threshold_of_each(tiny_bert_dir, tmp_path, capsys):
    rows = [f"a {word} film {n}\t{label}" for n, (word, label) in enumerate(ROWS * 12)]
    path = tmp_path / "rows.tsv"
    path.write_text("\n".join(["text\tlabels", *rows]) + "\n")
    out = tmp_path / "out"
    first = ["run_classifier.py", f"--model_dir={out}"]
    train = ["--do_train", "--tune_thresholds", f"--train_file={path}", "--max_steps=4"]
    train += [f"--encoder={tiny_bert_dir}", "--problem_type=multi_label", "--max_seq_length=32"]
    train += ["--train_batch_size=8", "--precision=float32"]
    assert run_classifier.main([*first, *train]) == 2
    assert "--tune_thresholds: they are found on validation rows" in capsys.readouterr().err
    assert run_classifier.main([*first, *train, f"--validation_file={path}"]) == 0
    assert "thresholds of 3 labels: micro_f1" in capsys.readouterr().out
    names = ("a", "b", "c")
    kept = json.loads((out / "calibration.json").read_text())["thresholds"]
    assert tuple(kept) == names and set(kept.values()) != {0.5}

    def predicted(*flags: str) -> list[dict]:
        assert run_classifier.main([*first, f"--test_file={path}", "--do_predict", *flags]) == 0
        return [json.loads(line) for line in (out / "predictions.jsonl").open()]

    each = "\n".join(f"| {name} | {value:.3g} |" for name, value in kept.items())
    for thresholds, flags, told in (
        (kept, [], f"reaches these thresholds:\n\n| label | threshold |\n| --- | --- |\n{each}\n"),
        (dict.fromkeys(names, 0.5), ["--tune_thresholds=false"], "reaches 0.5.\n"),
    ):
        for row in predicted(*flags, "--do_export", "--export_formats=hugging_face"):
            sure = [n for n, share in row["probabilities"].items() if share >= thresholds[n]]
            assert row["prediction"] == sure
        assert told in (out / "hugging_face" / "README.md").read_text()
    assert (
        run_classifier.main([*first, f"--test_file={path}", "--do_eval", "--reject_below=0.5"]) == 2
    )
    assert "the labels are multi_label" in capsys.readouterr().err
