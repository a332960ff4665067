"""Classification checkpoints of transformers are evaluated, predicted with and trained on."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import run_classifier
from tf_finetune.classification.checkpoint_head import keep_head
from tf_finetune.classification.checkpoints import checkpoint_problem
from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.tensors import open_tensors

ENCODERS = Path(__file__).resolve().parents[1] / "formats" / "encoders"
NAMES = sorted(
    path.parent.name for path in ENCODERS.glob("*/reference.npz") if "logits" in np.load(path)
)

LABELS = ("bad", "fine", "good")
ROWS = [("the film is good", "good"), ("a bad plot", "bad"), ("good!", "fine"), ("bad", "bad")]


def write(file: Path, rows: list[tuple[str, ...]] = ROWS, names: str = "text\tlabel") -> Path:
    file.write_text("\n".join([names, *("\t".join(row) for row in rows)]) + "\n")
    return file


def probabilities(folder: Path) -> np.ndarray:
    with (folder / "predictions.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return np.array([[float(row[f"probability_{name}"]) for name in LABELS] for row in rows])


def run(*flags: str) -> int:
    return run_classifier.main(
        ["run_classifier.py", "--precision=float32", "--max_seq_length=32", *flags]
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def expected(folder: Path) -> np.ndarray:
    """The probabilities by the checkpoint's own head on the encoder's output."""
    encoder = load_encoder(str(folder))
    features = encoder.preprocessor([[text for text, _ in ROWS]], 32)
    first = encoder.network(features)["sequence_output"].numpy()[:, 0]
    weights = {name: load() for name, load in open_tensors(folder).items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    if "classifier.dense.weight" in weights:
        return softmax(dense(np.tanh(dense(first, "classifier.dense")), "classifier.out_proj"))
    return softmax(dense(np.tanh(dense(first, "bert.pooler.dense")), "classifier"))


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_it_is_evaluated_and_predicts_without_training(folder_of, tmp_path, name, capsys):
    base, out = folder_of(name), tmp_path / "out"
    data = f"--test_file={write(tmp_path / 'test.tsv')}"
    actions = ("--do_eval", "--do_predict", "--do_export")
    assert run(f"--init_from={base}", data, f"--model_dir={out}", *actions) == 0
    np.testing.assert_allclose(probabilities(out), expected(base), atol=1e-4)
    results = json.loads((out / "metrics.json").read_text())["test"]
    right = np.array(LABELS)[expected(base).argmax(axis=1)] == [label for _, label in ROWS]
    assert results["accuracy"] == pytest.approx(right.mean())
    assert "head       kept" in capsys.readouterr().out
    assert (out / "export" / "saved_model.pb").is_file()


def test_files_without_labels_and_other_columns(folder_of, tmp_path):
    file = write(tmp_path / "test.tsv", [(text,) for text, _ in ROWS], "words")
    flags = (f"--test_file={file}", "--text_columns=words", f"--model_dir={tmp_path}/out")
    assert run(f"--init_from={folder_of('bert')}", *flags, "--do_predict") == 0
    np.testing.assert_allclose(
        probabilities(tmp_path / "out"), expected(tmp_path / "base-bert"), atol=1e-4
    )


@pytest.mark.parametrize("names", [LABELS, ("good", "bad", "fine")])
def test_training_goes_on_from_its_head_whatever_the_order_of_labels(
    folder_of, tmp_path, names, capsys
):
    base, out = folder_of("roberta"), tmp_path / "out"
    file = write(tmp_path / "train.tsv")
    flags = (
        *(f"--init_from={base}", f"--train_file={file}", f"--test_file={file}"),
        *(f"--label_names={','.join(names)}", f"--model_dir={out}", "--train_batch_size=4"),
        *("--do_train", "--do_predict", "--max_steps=1", "--learning_rate=1e-9"),
    )
    assert run(*flags) == 0
    assert "head       kept" in capsys.readouterr().out
    np.testing.assert_allclose(probabilities(out), expected(base), atol=1e-4)
    # The model's own directory is used from now on.
    assert run(f"--model_dir={out}", f"--test_file={file}", "--do_predict") == 0
    np.testing.assert_allclose(probabilities(out), expected(base), atol=1e-4)


def test_other_labels_get_a_new_head(folder_of, tmp_path, capsys):
    rows = [(text, "yes" if label == "good" else "no") for text, label in ROWS]
    flags = (
        *(f"--init_from={folder_of('bert')}", f"--train_file={write(tmp_path / 'x.tsv', rows)}"),
        *(f"--model_dir={tmp_path}/out", "--train_batch_size=4", "--do_train", "--max_steps=1"),
    )
    assert run(*flags) == 0
    assert "head       new" in capsys.readouterr().out


def test_what_cannot_be_used_is_told(folder_of, tiny_bert_dir, tmp_path, capsys):
    file = write(tmp_path / "test.tsv", [("a", "0"), ("b", "1")])
    flags = (f"--test_file={file}", f"--model_dir={tmp_path}/out", "--do_eval")
    assert run(f"--init_from={tiny_bert_dir}", *flags) == 2
    assert "holds no classification head: its weights lack classifier.weight" in (
        capsys.readouterr().err
    )
    base = folder_of("bert")
    assert run(f"--init_from={base}", f"--encoder={tiny_bert_dir}", *flags) == 2
    assert "brings its own encoder. Leave --encoder out" in capsys.readouterr().err
    config = json.loads((base / "config.json").read_text())
    config["id2label"] = {"0": "0", "1": "1"}
    (base / "config.json").write_text(json.dumps(config))
    assert run(f"--init_from={base}", *flags) == 2
    assert "classifier.weight has the shape [3, 16], not [2, 16]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"id2label": {"1": "b", "0": "a"}}, Problem("single_label", ("text",), ("a", "b"))),
        ({}, Problem("single_label", ("text",), ("0", "1"))),
        ({"id2label": {"0": "LABEL_0"}}, Problem("regression", ("text",))),
        (
            {"id2label": {"0": "a", "1": "b"}, "problem_type": "multi_label_classification"},
            Problem("multi_label", ("text",), ("a", "b")),
        ),
    ],
)
def test_its_labels(config, problem):
    assert checkpoint_problem(config, ("text",), "x") == problem


@pytest.mark.parametrize("names", [{"0": "a", "2": "b"}, ["a", "b"], {"a": 0}, 3])
def test_damaged_labels_are_told(names):
    with pytest.raises(UserError, match=r"--init_from=x: config\.json has id2label="):
        checkpoint_problem({"id2label": names}, ("text",), "x")


@pytest.mark.parametrize("name", NAMES)
def test_the_head_computes_what_transformers_does(folder_of, name):
    """The logits are stored beside the checkpoint; see `make_encoders.py`."""
    encoder = load_encoder(str(folder_of(name)))
    found = np.load(ENCODERS / name / "reference.npz")
    problem = Problem("single_label", ("text",), LABELS)
    made = build_classifier(encoder, problem, EncoderConfig(head="native"), max_seq_length=16)
    assert keep_head(encoder, made.model, problem, must=True)
    names = {"input_word_ids": "ids", "input_mask": "mask", "input_type_ids": "types"}
    logits = made.model({ours: found[theirs] for ours, theirs in names.items()})
    np.testing.assert_allclose(logits, found["logits"], atol=2e-5, rtol=1e-5)


def test_the_threshold_and_the_hint(folder_of, tmp_path, capsys):
    base = folder_of("bert")
    config = json.loads((base / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (base / "config.json").write_text(json.dumps(config))
    file = write(tmp_path / "test.tsv", [(text,) for text, _ in ROWS], "text")
    flags = (f"--init_from={base}", f"--test_file={file}", "--do_predict")
    counts = []
    for threshold in ("0.01", "0.99"):
        assert run(*flags, f"--threshold={threshold}", f"--model_dir={tmp_path}/{threshold}") == 0
        lines = (tmp_path / threshold / "predictions.jsonl").read_text().splitlines()
        counts.append(sum(len(json.loads(line)["prediction"]) for line in lines))
    assert counts[0] > counts[1]
    assert f"--init_from={base} --model_dir=<new>" in capsys.readouterr().out
    other = f"--label_names=x,y,z --model_dir={tmp_path}/x".split()
    assert run(*flags, *other) == 2
    assert "has learnt ('bad', 'fine', 'good'). Leave the flag out" in capsys.readouterr().err


def test_a_folder_of_results_can_be_trained_in(folder_of, tmp_path):
    base, file = folder_of("bert"), write(tmp_path / "data.tsv")
    folder = f"--model_dir={tmp_path}/out"
    assert run(f"--init_from={base}", f"--test_file={file}", folder, "--do_eval") == 0
    train = (f"--encoder={base}", f"--train_file={file}", "--train_batch_size=4", "--max_steps=1")
    assert run(*train, folder, "--do_train") == 0
