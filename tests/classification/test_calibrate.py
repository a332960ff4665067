"""Probabilities that are as sure as the model is right, in every form of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

import run_classifier
from tf_finetune.classification.calibrate import (
    calibration_error,
    fit_temperature,
    load_temperature,
    save_temperature,
)
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


@pytest.mark.parametrize("content", ["", "[]", '{"temperature": 0}', '{"temperature": "NaN"}'])
def test_a_damaged_file_is_an_error(content, tmp_path):
    model_dir = ModelDir(str(tmp_path))
    assert load_temperature(model_dir) == 1.0
    save_temperature(model_dir, 1.25)
    assert load_temperature(model_dir) == 1.25
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(UserError):
        load_temperature(model_dir)


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
    temperature = load_temperature(ModelDir(str(out)))
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
