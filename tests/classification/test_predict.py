"""Predictions in the order of the texts, and files that every reader can take apart."""

import dataclasses
import json
import tempfile
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pyarrow.json
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.fields import escape, unescape
from tf_finetune.classification.predict import Predictions, predict, to_predictions
from tf_finetune.classification.predictions import write_predictions
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.training.forward import Forward, make_forward

SINGLE = Problem("single_label", ("sentence",), ("bad", "good", "unsure"))
MULTI = Problem("multi_label", ("sentence",), ("joy", "anger", "fear"))
REGRESSION = Problem("regression", ("left", "right"))
TEXTS = ["good film " * (row * 7 % 5) + "the movie" + " bad" * row for row in range(11)]


@pytest.fixture(scope="module")
def tiny(tiny_bert_dir: Path) -> SimpleNamespace:
    """A classifier for each problem, and the preprocessor of all."""

    def build(problem: Problem) -> keras.Model:
        keras.utils.set_random_seed(5)
        model = build_classifier(load_encoder(str(tiny_bert_dir)), problem).model
        for variable in model.trainable_variables[-2:]:
            variable.assign(keras.random.normal(variable.shape, seed=len(variable.shape)))
        # Centred, so that the texts get different labels.
        texts = [tf.constant(TEXTS)] * len(problem.text_columns)
        logits = model(preprocessor(texts, 16), training=False)
        model.trainable_variables[-1].assign_sub(tf.reduce_mean(logits, axis=0))
        return model

    preprocessor = load_encoder(str(tiny_bert_dir)).preprocessor
    models = {p.problem_type: build(p) for p in (SINGLE, MULTI, REGRESSION)}
    return SimpleNamespace(preprocessor=preprocessor, **models)


def forward(tiny: SimpleNamespace, problem: Problem) -> Forward:
    """Traces the model of a problem."""
    return make_forward(getattr(tiny, problem.problem_type))


def alone(tiny: SimpleNamespace, problem: Problem, *texts: str) -> np.ndarray:
    """The logits of one example without batches, order or padding."""
    features = tiny.preprocessor([tf.constant([text]) for text in texts], 16)
    return getattr(tiny, problem.problem_type)(features, training=False).numpy()[0]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_single_label(tiny: SimpleNamespace, batch_size: int) -> None:
    result = predict(
        forward(tiny, SINGLE),
        tiny.preprocessor,
        SINGLE,
        TEXTS,
        max_seq_length=16,
        batch_size=batch_size,
    )
    expected = np.stack([alone(tiny, SINGLE, text) for text in TEXTS])
    assert result.probabilities.dtype == result.logits.dtype == np.float32
    np.testing.assert_allclose(result.logits, expected, atol=1e-5)
    np.testing.assert_allclose(result.probabilities, tf.nn.softmax(expected), atol=1e-5)
    assert result.labels == tuple((SINGLE.label_names[i],) for i in expected.argmax(1))
    assert len(result) == len(TEXTS)
    assert len(set(result.labels)) > 1


def test_multi_label_and_threshold(tiny: SimpleNamespace) -> None:
    expected = tf.sigmoid([alone(tiny, MULTI, text) for text in TEXTS]).numpy()
    fn = forward(tiny, MULTI)
    for threshold in (0.3, 0.5, 0.8):
        problem = dataclasses.replace(MULTI, threshold=threshold)
        result = predict(fn, tiny.preprocessor, problem, TEXTS, max_seq_length=16)
        np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
        for labels, shares in zip(result.labels, expected, strict=True):
            names = zip(MULTI.label_names, shares, strict=True)
            assert labels == tuple(name for name, share in names if share >= threshold)


def test_regression_of_pairs(tiny: SimpleNamespace) -> None:
    pairs = (TEXTS, TEXTS[::-1])
    fn = forward(tiny, REGRESSION)
    result = predict(fn, tiny.preprocessor, REGRESSION, pairs, max_seq_length=16)
    expected = [alone(tiny, REGRESSION, *pair)[0] for pair in zip(*pairs, strict=True)]
    np.testing.assert_allclose(result.values, expected, atol=1e-5)
    assert result.values.dtype == np.float32
    assert result.probabilities.shape == (len(TEXTS), 0)
    assert set(result.labels) == {()}


def test_no_texts_and_a_made_function(tiny: SimpleNamespace) -> None:
    fn = forward(tiny, SINGLE)
    empty = predict(fn, tiny.preprocessor, SINGLE, [], max_seq_length=16)
    assert empty.probabilities.shape == (0, 3) and empty.labels == ()
    first = predict(fn, tiny.preprocessor, SINGLE, TEXTS, max_seq_length=16)
    another = forward(tiny, SINGLE)
    second = predict(another, tiny.preprocessor, SINGLE, [TEXTS], max_seq_length=16)
    np.testing.assert_array_equal(first.logits, second.logits)


@pytest.mark.parametrize(
    ("problem", "texts"),
    [
        (REGRESSION, ["one", "two"]),
        (REGRESSION, [["one"]]),
        (REGRESSION, [["one"], ["two", "three"]]),
        (SINGLE, [["one"], ["two"]]),
    ],
)
def test_wrong_columns(tiny: SimpleNamespace, problem: Problem, texts: list) -> None:
    fn = forward(tiny, problem)
    with pytest.raises(UserError, match=", ".join(problem.text_columns)):
        predict(fn, tiny.preprocessor, problem, texts, max_seq_length=16)


def read_back(path: Path) -> tuple[list[str], list[list[str]]]:
    """The file as anyone would read it: lines at LF, fields at tabs."""
    content = path.read_bytes().decode("utf-8")
    assert content.endswith("\n")
    header, *rows = [line.split("\t") for line in content[:-1].split("\n")]
    assert all(len(row) == len(header) for row in rows)
    return header, rows


NASTY = [
    "plain",
    "tab\there",
    "two\nlines\r\n",
    "\x00\x1b[31m\x7f\x85\u2028",
    'a "quote"',
    "",
    "\\n",
]


def write(folder: Path, logits: np.ndarray, examples: Examples, problem: Problem) -> Path:
    """Writes predictions and returns the path of the TSV."""
    predictions = to_predictions(logits.astype(np.float32), problem)
    write_predictions(ModelDir(str(folder)), predictions, examples, problem)
    return folder / "predictions.tsv"


def objects(folder: Path) -> list[dict]:
    """The JSON lines as anyone would read them, and as a reader of text by any line end."""
    content = (folder / "predictions.jsonl").read_bytes().decode("utf-8")
    assert content.endswith("\n")
    assert content.splitlines() == content[:-1].split("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in content.splitlines()]


def test_file_of_single_label(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(0, 9, (len(NASTY), 3)).astype(np.float32)
    predictions = to_predictions(logits, SINGLE)
    header, rows = read_back(write(tmp_path / "new", logits, Examples((NASTY,)), SINGLE))
    shares = [f"probability_{name}" for name in SINGLE.label_names]
    assert header == ["row", "sentence", "prediction", *shares]
    assert [row[0] for row in rows] == [str(number) for number in range(1, len(NASTY) + 1)]
    assert [unescape(row[1]) for row in rows] == NASTY
    assert [row[2] for row in rows] == [label for (label,) in predictions.labels]
    numbers = np.array([row[3:] for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(numbers, predictions.probabilities)
    assert [row[3:] for row in rows] == [list(map(str, row)) for row in predictions.probabilities]
    printable = [c for row in rows for field in row for c in field]
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in printable)


def test_objects_of_single_label(tmp_path: Path) -> None:
    names = ('a "b", c\\', "d\te", "é\u2028\U0001f600")
    problem = Problem("single_label", ("sentence",), names)
    logits = np.random.default_rng(0).normal(0, 9, (len(NASTY), 3)).astype(np.float32)
    labels = np.array([0, 1, 2, -1, 0, 1, 2], np.int32)
    ids = ["x\ty", 7, 2.5, None, True, "ü", float("nan")]
    write(tmp_path, logits, Examples((NASTY,), labels, ids=ids), problem)
    predictions, found = to_predictions(logits, problem), objects(tmp_path)
    assert list(found[0]) == ["row", "id", "texts", "label", "prediction", "probabilities"]
    assert [o["row"] for o in found] == list(range(1, 8))
    assert [o["id"] for o in found] == [*ids[:-1], None]
    assert [o["texts"] for o in found] == [{"sentence": text} for text in NASTY]
    assert [o["label"] for o in found] == [names[n] if n >= 0 else None for n in labels]
    assert [o["prediction"] for o in found] == [label for (label,) in predictions.labels]
    assert {tuple(o["probabilities"]) for o in found} == {names}
    shares = np.array([list(o["probabilities"].values()) for o in found], np.float32)
    np.testing.assert_array_equal(shares, predictions.probabilities)

    _, rows = read_back(tmp_path / "predictions.tsv")
    assert [unescape(row[1]) for row in rows] == ["x\ty", "7", "2.5", "", "true", "ü", ""]
    frame = pd.read_json(tmp_path / "predictions.jsonl", lines=True)
    assert frame["prediction"].tolist() == [o["prediction"] for o in found]
    assert [texts["sentence"] for texts in frame["texts"]] == NASTY


def test_files_of_multi_label_and_regression(tmp_path: Path) -> None:
    logits = np.array([[3, -3, 3], [-3, -3, -3]])
    labels = np.array([[np.nan] * 3, [1, 0, 1]], np.float32)
    _, rows = read_back(write(tmp_path, logits, Examples((["a", "b"],), labels), MULTI))
    assert [row[2] for row in rows] == ["joy,fear", ""]
    assert [(o["label"], o["prediction"]) for o in objects(tmp_path)] == [
        (None, ["joy", "fear"]),
        (["joy", "fear"], []),
    ]
    assert len(pyarrow.json.read_json(tmp_path / "predictions.jsonl")) == 2

    pairs = Examples((["a", "b"], ["c", "d"]), np.array([0.3, np.nan], np.float32))
    header, rows = read_back(write(tmp_path, np.array([[0.1], [4.5]]), pairs, REGRESSION))
    assert header == ["row", "left", "right", "prediction"]
    assert rows == [["1", "a", "c", "0.1"], ["2", "b", "d", "4.5"]]
    assert objects(tmp_path) == [
        {"row": 1, "texts": {"left": "a", "right": "c"}, "label": 0.3, "prediction": 0.1},
        {"row": 2, "texts": {"left": "b", "right": "d"}, "label": None, "prediction": 4.5},
    ]


def test_labels_and_columns_are_escaped(tmp_path: Path) -> None:
    problem = Problem("single_label", ("my\ttext",), ("a\nb", "c"))
    examples = Examples((["x"],), ids=["q\nr"])
    header, rows = read_back(write(tmp_path, np.array([[1, 0]]), examples, problem))
    assert header == ["row", "id", r"my\ttext", "prediction", r"probability_a\nb", "probability_c"]
    assert rows[0][1] == r"q\nr" and rows[0][3] == r"a\nb"


def test_outputs_that_are_not_finite_are_null(tmp_path: Path) -> None:
    examples = Examples((["a"], ["b"]))
    _, rows = read_back(write(tmp_path, np.array([[np.inf]]), examples, REGRESSION))
    assert rows[0][-1] == "nan" and objects(tmp_path)[0]["prediction"] is None


def test_wrong_texts_leave_the_files_alone(tmp_path: Path) -> None:
    for name in ("predictions.jsonl", "predictions.tsv"):
        (tmp_path / name).write_text("before")
    for texts, ids, problem, error, message in (
        ((["one"],), (), SINGLE, UserError, "2 predictions were given for 1 texts"),
        ((["one", "two"],) * 2, (), MULTI, UserError, "one list of strings for each"),
        ((["one", "two"],), (1, object()), SINGLE, TypeError, "object"),  # Found on the way.
    ):
        with pytest.raises(error, match=message):
            write(tmp_path, np.eye(2, 3), Examples(texts, ids=ids), problem)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "predictions.jsonl": "before",
        "predictions.tsv": "before",
    }


TEXT = st.text(st.one_of(st.sampled_from(',\\\t\n\r"x2c'), st.characters(exclude_categories=())))
# A surrogate pair in a JSON string is one character, so only one of its kinds.
JSON_TEXT = TEXT.filter(lambda text: not any("\udc00" <= char <= "\udfff" for char in text))


@given(st.lists(TEXT.filter(bool), min_size=1, max_size=4, unique=True))
def test_a_multi_label_prediction_splits_at_commas(names: list[str]) -> None:
    problem = Problem("multi_label", ("text",), tuple(names))
    with tempfile.TemporaryDirectory() as folder:
        logits = np.ones((1, len(names)))
        _, rows = read_back(write(Path(folder), logits, Examples((["a"],)), problem))
    assert [unescape(part) for part in rows[0][2].split(",")] == names


@given(st.lists(JSON_TEXT, min_size=2, max_size=4, unique=True), JSON_TEXT)
def test_objects_hold_every_text(names: list[str], name: str) -> None:
    problem = Problem("multi_label", ("text",), tuple(names))
    text = name.encode(errors="ignore").decode()  # A text has no surrogates, an id may.
    with tempfile.TemporaryDirectory() as folder:
        examples = Examples(([text],), np.ones((1, len(names)), np.float32), ids=[name])
        write(Path(folder), np.ones((1, len(names))), examples, problem)
        (found,) = objects(Path(folder))
    assert found["texts"] == {"text": text} and found["id"] == name
    assert found["prediction"] == found["label"] == list(found["probabilities"]) == names


@given(st.text(st.characters(exclude_categories=())))
def test_escape_is_one_printable_line_and_reads_back(text: str) -> None:
    field = escape(text)
    assert unescape(field) == text
    assert "\t" not in field and len(f"{field}.".splitlines()) == 1
    field.encode("utf-8")


def test_predictions_cannot_be_changed() -> None:
    predictions: Predictions = to_predictions(np.eye(3, dtype=np.float32), SINGLE)
    with pytest.raises(AttributeError):
        predictions.labels = ()  # type: ignore[misc]
