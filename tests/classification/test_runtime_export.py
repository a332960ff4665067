"""What OpenVINO, ONNX Runtime and LiteRT compute of an export is what the classifier does."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import run_classifier
from tests.thorough import mostly
from tf_finetune.classification.classifier import Classifier, build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.runtime_export import (
    Measured,
    RuntimeExport,
    check_runtime_export,
    load_logits,
    token_model,
)
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import UNSURE, Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.runtime_formats import FORMATS
from tf_finetune.models.lora import Lora

NAMES = ("albert", "bert", "deberta-v3", "distilbert", "electra", "mpnet")
PAIR = Problem("single_label", ("first", "second"), ("no", "yes"), temperature=2.0)
# Of several lengths, with an empty one, one that is cut, and special tokens that a user typed.
FIRST = ["the film is good", "a bad [SEP] plot </s>", "", "good " * 40, "naïve Ünï 中文 plot"]
EXAMPLES = Examples(
    (FIRST, ["yes", "", "no", "bad bad", "so"]), np.array([0, 1, 1, 0, 1], np.int32)
)


def needs(name: str) -> None:
    for package in FORMATS[name].writers:
        pytest.importorskip(package, reason=f"pip install 'tf_finetune[{name}]'")


def make(folder: Path, problem: Problem = PAIR, **options) -> Classifier:
    """A classifier of a random head, of logits that differ from text to text."""
    encoder = load_encoder(str(folder), **options)
    made = build_classifier(encoder, problem, EncoderConfig(), max_seq_length=16)
    random = np.random.default_rng(1)
    for weight in made.model.get_layer("head").weights:
        weight.assign(random.normal(size=weight.shape))
    return made


def export(made: Classifier, name: str, folder: Path, examples: Examples, **options) -> Measured:
    with token_model(made) as source:
        exports = RuntimeExport(made, source, examples, "accuracy", **options)
        return exports.write(name, str(folder))


@pytest.fixture(scope="module")
def exact_pair(tiny_bert_dir) -> Iterator[tuple[Classifier, Path]]:
    """A classifier of pairs with the exact GELU, and its SavedModel of tokens."""
    made = make(tiny_bert_dir, hidden_act="gelu")
    with token_model(made) as source:
        yield made, source


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_it_answers_as_the_classifier_does(name, exact_pair, tmp_path):
    needs(name)
    made, source = exact_pair
    found = RuntimeExport(made, source, EXAMPLES, "accuracy").write(name, str(tmp_path / "out"))
    rows = list(zip(*EXAMPLES.texts, strict=True))
    expected = made.predict(EXAMPLES.texts)
    np.testing.assert_allclose(load_logits(tmp_path / "out")(rows), expected.logits, atol=1e-4)
    assert (found.quantization, found.loss) == ("float32", 0.0)
    size = sum(file.stat().st_size for file in (tmp_path / "out").glob("model.*"))
    assert found.megabytes == pytest.approx(size / 1e6) and found.milliseconds > 0
    assert f"| {FORMATS[name].title}, float32 |" in (tmp_path / "out" / "README.md").read_text()
    # The program beside it, which has nothing of this package.
    command = [sys.executable, "-I", str(tmp_path / "out" / "classify.py"), *rows[1]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["label"],) == expected.labels[1]
    shares = [answer["probabilities"][label] for label in PAIR.label_names]
    np.testing.assert_allclose(shares, expected.probabilities[1], atol=1e-4)
    settings = json.loads((tmp_path / "out" / "classifier.json").read_text())
    unsure = {**settings, "reject_below": 0.999}
    (tmp_path / "out" / "classifier.json").write_text(json.dumps(unsure))
    done = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(done.stdout)["label"] == UNSURE
    done = subprocess.run(command[:-1], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "error: give 2 text(s), not 1\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly("openvino", others=["onnx", "litert"]))
def test_int8_is_smaller_and_close_and_what_loses_too_much_is_not_written(
    name, exact_pair, tmp_path
):
    needs(name)
    made, source = exact_pair
    folder = str(tmp_path / "out")
    whole = RuntimeExport(made, source, EXAMPLES, "accuracy").write(name, folder)
    before = (tmp_path / "out" / "README.md").read_text()
    options = {"calibration": EXAMPLES, "max_quality_loss": -1.0}
    with pytest.raises(UserError, match="points less than the model's"):
        RuntimeExport(made, source, EXAMPLES, "accuracy", **options).write(name, folder)
    assert (tmp_path / "out" / "README.md").read_text() == before
    options["max_quality_loss"] = 100.0
    small = RuntimeExport(made, source, EXAMPLES, "accuracy", **options).write(name, folder)
    assert small.quantization == "int8"
    if name == "litert":  # A toy's graph is larger than its weights: that of the others grows.
        assert small.megabytes < whole.megabytes
    logits = load_logits(tmp_path / "out")(list(zip(*EXAMPLES.texts, strict=True)))
    expected = made.predict(EXAMPLES.texts).logits
    assert 0 < np.abs(logits - expected).max() < 0.2 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", mostly("modernbert", "roberta", others=NAMES))
def test_every_architecture_has_a_form_in_openvino(architecture, folder_of, tmp_path):
    needs("openvino")
    made = make(folder_of(architecture))
    export(made, "openvino", tmp_path / "out", EXAMPLES)  # Compares the logits.
    rows = list(zip(*EXAMPLES.texts, strict=True))
    found = load_logits(tmp_path / "out")(rows)
    np.testing.assert_allclose(found, made.predict(EXAMPLES.texts).logits, atol=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("architecture", [*NAMES, "modernbert", "roberta"])
@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_every_architecture_has_a_form(name, architecture, folder_of, tmp_path):
    needs(name)
    export(make(folder_of(architecture)), name, tmp_path / "out", EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_other_problems_and_adapters(kind, tiny_bert_dir, tmp_path):
    needs("openvino")
    labels = ("a", "b", "c") if kind == "multi_label" else ()
    problem = Problem(kind, ("text",), labels, *([0.3] if labels else []))
    made = make(tiny_bert_dir, problem, lora=Lora(2, 4.0))
    for weight in made.model.trainable_weights:
        if "lora" in weight.path:
            weight.assign(np.random.default_rng(2).normal(0, 0.3, weight.shape))
    values = [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]] if labels else [0, 1, 2, 3, 4]
    examples = Examples((FIRST,), np.array(values, np.float32))
    metric = "macro_f1" if labels else "pearson"
    with token_model(made) as source:
        RuntimeExport(made, source, examples, metric).write("openvino", str(tmp_path / "out"))
    expected = made.predict(FIRST)
    np.testing.assert_allclose(load_logits(tmp_path / "out")(FIRST), expected.logits, atol=1e-4)
    command = [sys.executable, "-I", str(tmp_path / "out" / "classify.py"), FIRST[0]]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    if labels:
        assert tuple(answer["label"]) == expected.labels[0]
    else:
        assert answer["score"] == pytest.approx(float(expected.values[0]), abs=1e-4)


@pytest.mark.slow
def test_a_run_writes_measures_and_keeps_the_numbers(tiny_bert_dir, tmp_path, capsys):
    rows = [f"a {('good', 'bad')[n % 2]} film {n}\t{('yes', 'no')[n % 2]}" for n in range(24)]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    command = ["run_classifier.py", f"--model_dir={tmp_path}/out", "--do_export"]
    train = [f"--encoder={tiny_bert_dir}", f"--train_file={tmp_path}/train.tsv", "--do_train"]
    train += ["--max_seq_length=32", "--max_steps=4", "--export_formats=litert"]
    # Before the training: what would be written could not be measured.
    assert run_classifier.main([*command, *train]) == 2
    assert "Give --validation_file or --test_file" in capsys.readouterr().err
    train.append(f"--validation_file={tmp_path}/dev.tsv")
    assert run_classifier.main([*command, *train]) == 0
    assert "| LiteRT, float32 | " in capsys.readouterr().out
    later = ["--export_formats=litert", "--quantization=int8", "--max_quality_loss=100"]
    assert run_classifier.main([*command, *later]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["exports"]
    assert found["litert"]["quantization"] == "int8" and found["litert"]["megabytes"] > 0
    assert (tmp_path / "out" / "litert" / "model.tflite").is_file()


def test_what_cannot_be_written_is_said_before_the_training(
    tiny_bert_dir, tiny_hub_dir, monkeypatch
):
    encoder = load_encoder(str(tiny_bert_dir))
    long = build_classifier(encoder, PAIR, EncoderConfig(long_text="window"), max_seq_length=16)
    with pytest.raises(UserError, match="does not go with --long_text=window"):
        check_runtime_export(long, ["litert"])
    wrapped = load_encoder(str(tiny_hub_dir / "encoder"), mode="saved_model")
    wrapped = build_classifier(wrapped, PAIR, EncoderConfig(), max_seq_length=16)
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        check_runtime_export(wrapped, ["saved_model", "litert"])
    check_runtime_export(wrapped, ["saved_model"])
    with pytest.raises(UserError, match="--quantization=int8 is of the formats openvino"):
        EncoderConfig(quantization="int8")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"needs openvino: pip install 'tf_finetune\[openvino\]'"):
        FORMATS["openvino"].check_installed("openvino")
