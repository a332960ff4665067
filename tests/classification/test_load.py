"""A classifier from Python: fitted, saved, loaded, and always at the length it was made for."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import run_classifier
from tf_finetune import (
    EncoderConfig,
    Examples,
    LoopConfig,
    ModelDir,
    OptimizerConfig,
    Problem,
    UserError,
    build_classifier,
    load_classifier,
    load_encoder,
    plan_batches,
)

PROBLEM = Problem("single_label", ("text",), ("bad", "good"))
GOOD, BAD = ("a good film", "great plot", "very good"), ("bad movie", "boring plot", "not good")
EXAMPLES = Examples(
    ([(GOOD, BAD)[i % 2][i % 3] for i in range(24)],), np.array([1, 0] * 12, np.int32)
)


@pytest.fixture
def fitted(tiny_bert_dir):
    """A classifier that knows its examples."""
    encoder = load_encoder(str(tiny_bert_dir))
    classifier = build_classifier(
        encoder, PROBLEM, EncoderConfig(head="mlp", pooling="mean"), max_seq_length=8
    )
    batches = plan_batches(classifier.tokenize(EXAMPLES), 8, LoopConfig(max_steps=60), seed=1)
    state = classifier.fit(batches, OptimizerConfig(learning_rate=5e-3))
    assert state.step == 60
    return classifier


def test_it_learns_and_is_saved_and_loaded(fitted, tmp_path):
    assert fitted.evaluate(EXAMPLES)["accuracy"] == 1.0
    expected = fitted.predict(["a good film", "boring"])
    fitted.save(str(tmp_path / "saved"))
    loaded = load_classifier(str(tmp_path / "saved"))
    assert loaded.max_seq_length == 8 and loaded.config.pooling == "mean"
    again = loaded.predict(["a good film", "boring"])
    assert again.labels == expected.labels
    np.testing.assert_array_equal(again.logits, expected.logits)


def test_what_is_saved_is_a_model_directory_of_the_command(fitted, tmp_path, capsys):
    fitted.save(str(tmp_path / "saved"))
    rows = [
        f"{text}\t{PROBLEM.label_names[label]}"
        for text, label in zip(EXAMPLES.texts[0], EXAMPLES.labels, strict=True)
    ]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    command = ["x", f"--model_dir={tmp_path}/saved", f"--test_file={tmp_path}/rows.tsv"]
    assert run_classifier.main([*command, "--do_eval"]) == 0
    metrics = json.loads((tmp_path / "saved" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] == 1.0


@pytest.mark.thorough
def test_predictions_and_exports_cut_where_the_training_did(fitted, tmp_path):
    """Six tokens between the special ones: what follows them changes nothing."""
    import tensorflow as tf

    short = "good good good good good good"
    long = short + " bad boring not bad boring not"
    logits = fitted.predict([short, long]).logits
    np.testing.assert_array_equal(logits[0], logits[1])
    fitted.export(str(tmp_path / "export"))
    serve = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    answers = serve(text=tf.constant([short, long]))["probabilities"].numpy()
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_allclose(answers, fitted.predict([short, long]).probabilities, atol=1e-5)


def test_the_best_weights_of_a_fit_are_loaded(tiny_bert_dir, tmp_path):
    classifier = build_classifier(load_encoder(str(tiny_bert_dir)), PROBLEM, max_seq_length=8)
    rows = classifier.tokenize(EXAMPLES)
    loop = LoopConfig(max_steps=12, eval_steps=6)
    state = classifier.fit(
        plan_batches(rows, 8, loop),
        loop=loop,
        validation=rows,
        metric="loss",
        model_dir=ModelDir(str(tmp_path / "run")),
    )
    assert state.best_step in (6, 12)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"checkpoints", "log.jsonl", "metrics.json", "train", "validation"} <= names
    loaded = load_classifier(str(tmp_path / "run"))
    expected = classifier.predict(["good film"]).logits
    np.testing.assert_array_equal(loaded.predict(["good film"]).logits, expected)
    with pytest.raises(UserError, match="no such metric"):
        classifier.fit(plan_batches(rows, 8, loop), validation=rows, metric="bleu")


def test_a_folder_of_another_model_is_not_trained_in(fitted, tiny_bert_dir, tmp_path):
    """Its record would say other labels, or load weights of before the training."""
    rows = fitted.tokenize(EXAMPLES)
    batches = plan_batches(rows, 8, LoopConfig(max_steps=2))
    folder = ModelDir(str(tmp_path / "run"))
    assert fitted.fit(batches, model_dir=folder).step == 2
    other = Problem("single_label", ("text",), ("good", "bad"))
    encoder = load_encoder(str(tiny_bert_dir))
    config = EncoderConfig(head="mlp", pooling="mean")
    for problem, length, complaint in (
        (other, 8, r"labels: \('bad', 'good'\) there, \('good', 'bad'\) now"),
        (PROBLEM, 16, "--max_seq_length: 8 there, 16 now"),
    ):
        classifier = build_classifier(encoder, problem, config, max_seq_length=length)
        with pytest.raises(UserError, match=complaint):
            classifier.fit(batches, model_dir=folder)
    fitted.save(str(tmp_path / "saved"))
    with pytest.raises(UserError, match="saved whole"):
        fitted.fit(batches, model_dir=ModelDir(str(tmp_path / "saved")))


def test_a_training_killed_before_its_first_step_checkpoint_begins_anew(tiny_bert_dir, tmp_path):
    """Evaluated more often than saved, it has left its best weights alone."""
    for name in ("train", "dev"):
        Path(tmp_path / f"{name}.tsv").write_text("text\tlabel\ngood\tgood\nbad\tbad\n")
    command = ["x", f"--encoder={tiny_bert_dir}", f"--train_file={tmp_path}/train.tsv"]
    command += [f"--validation_file={tmp_path}/dev.tsv", f"--model_dir={tmp_path}/out"]
    command += ["--max_steps=2", "--eval_steps=1", "--max_seq_length=8", "--do_train"]
    assert run_classifier.main(command) == 0
    for path in (tmp_path / "out" / "checkpoints").glob("step-*"):
        path.unlink()
    assert list((tmp_path / "out" / "checkpoints").glob("best-*.index"))
    assert run_classifier.main(command) == 0
    assert list((tmp_path / "out" / "checkpoints").glob("step-2.index"))


def test_a_folder_in_use_is_not_saved_into(fitted, tmp_path):
    fitted.save(str(tmp_path / "saved"))
    with pytest.raises(UserError, match="holds another run's model"):
        fitted.save(str(tmp_path / "saved"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "labels.txt").write_text("mine")
    with pytest.raises(UserError, match="not of a run of ours"):
        fitted.save(str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "labels.txt").read_text() == "mine"


def test_a_head_of_ones_own_is_loaded_only_where_it_is_named(tiny_bert_dir, tmp_path, monkeypatch):
    (tmp_path / "head_to_load.py").write_text(
        "import keras\n"
        "class Head(keras.layers.Layer):\n"
        "    def __init__(self, num_outputs, dropout, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.logits = keras.layers.Dense(num_outputs)\n"
        "    def call(self, features):\n"
        "        return self.logits(features)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name = "head_to_load:Head"
    encoder = load_encoder(str(tiny_bert_dir))
    classifier = build_classifier(encoder, PROBLEM, EncoderConfig(head=name), max_seq_length=8)
    classifier.save(str(tmp_path / "saved"))
    with pytest.raises(UserError, match=r"head_to_load:Head\. That is code"):
        load_classifier(str(tmp_path / "saved"))
    loaded = load_classifier(str(tmp_path / "saved"), head=name)
    expected = classifier.predict(["good film"]).logits
    np.testing.assert_array_equal(loaded.predict(["good film"]).logits, expected)
    sys.modules.pop("head_to_load", None)


def test_rows_without_labels_are_not_evaluated(fitted):
    for rows in (Examples(EXAMPLES.texts), Examples((["good"],))):
        with pytest.raises(UserError, match="no labels to evaluate on"):
            fitted.evaluate(rows)
        with pytest.raises(UserError, match="no labels to evaluate on"):
            fitted.evaluate_rows(fitted.tokenize(rows))


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        load_classifier(str(tmp_path / "nothing"))


def test_what_was_made_by_other_hardware_settings_is_still_evaluated(fitted, tmp_path):
    """The seed and the precision of a call say nothing of the model."""
    fitted.save(str(tmp_path / "saved"))
    Path(tmp_path / "rows.tsv").write_text("text\tlabel\ngood\tgood\n")
    command = ["x", f"--model_dir={tmp_path}/saved", f"--test_file={tmp_path}/rows.tsv"]
    command += ["--do_eval", "--seed=7", "--precision=mixed_bfloat16"]
    assert run_classifier.main(command) == 0


@pytest.mark.thorough
def test_a_model_of_early_stopping_predicts_without_validation_data(tiny_bert_dir, tmp_path):
    for name in ("train", "dev", "new"):
        Path(tmp_path / f"{name}.tsv").write_text("text\tlabel\ngood\tgood\nbad\tbad\n")
    command = ["x", f"--encoder={tiny_bert_dir}", f"--train_file={tmp_path}/train.tsv"]
    command += [f"--validation_file={tmp_path}/dev.tsv", f"--model_dir={tmp_path}/out"]
    command += ["--early_stopping_patience=1", "--max_steps=1", "--max_seq_length=8"]
    assert run_classifier.main([*command, "--do_train"]) == 0
    command = ["x", f"--model_dir={tmp_path}/out", f"--test_file={tmp_path}/new.tsv"]
    assert run_classifier.main([*command, "--do_predict"]) == 0


def test_overwrite_leaves_checkpoints_of_others_alone(tiny_bert_dir, tmp_path, capsys):
    Path(tmp_path / "rows.tsv").write_text("text\tlabel\ngood\tgood\nbad\tbad\n")
    (tmp_path / "out" / "checkpoints").mkdir(parents=True)
    own = [tmp_path / "out" / "checkpoints" / name for name in ("ckpt-1.index", "notes.txt")]
    for path in own:
        path.write_text("mine")
    command = ["x", f"--encoder={tiny_bert_dir}", f"--train_file={tmp_path}/rows.tsv"]
    command += [f"--model_dir={tmp_path}/out", "--do_train", "--overwrite", "--max_steps=1"]
    command += ["--max_seq_length=8"]
    assert run_classifier.main(command) == 2
    assert "not of a run of ours" in capsys.readouterr().err
    for path in own:
        path.rename(tmp_path / path.name)
    (tmp_path / "out" / "checkpoints").rmdir()
    assert run_classifier.main(command) == 0
    (tmp_path / "notes.txt").rename(own[1])
    assert run_classifier.main(command) == 0
    assert own[1].read_text() == "mine"


def test_balanced_weights_need_all_rows(tiny_bert_dir, tmp_path, capsys):
    Path(tmp_path / "rows.tsv").write_text("text\tlabel\ngood\tgood\nbad\tbad\n")
    command = ["x", f"--encoder={tiny_bert_dir}", f"--train_file={tmp_path}/rows.tsv"]
    command += [f"--model_dir={tmp_path}/out", "--label_names=bad,good", "--do_train"]
    command += ["--streaming=true", "--class_weights=balanced"]
    assert run_classifier.main(command) == 2
    assert "--class_weights=balanced needs all rows beforehand" in capsys.readouterr().err
