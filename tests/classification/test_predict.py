"""Predictions in the order of the texts, and a file that every reader can take apart."""

import dataclasses
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.predict import Predictions, predict, to_predictions
from tf_finetune.classification.predictions import escape, unescape, write_predictions
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder
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


def test_file_of_single_label(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(0, 9, (len(NASTY), 3)).astype(np.float32)
    predictions = to_predictions(logits, SINGLE)
    write_predictions(tmp_path / "new" / "predictions.tsv", predictions, NASTY, SINGLE)
    header, rows = read_back(tmp_path / "new" / "predictions.tsv")
    shares = [f"probability_{name}" for name in SINGLE.label_names]
    assert header == ["row", "sentence", "prediction", *shares]
    assert [row[0] for row in rows] == [str(number) for number in range(1, len(NASTY) + 1)]
    assert [unescape(row[1]) for row in rows] == NASTY
    assert [row[2] for row in rows] == [label for (label,) in predictions.labels]
    numbers = np.array([row[3:] for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(numbers, predictions.probabilities)
    printable = [c for row in rows for field in row for c in field]
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in printable)


def test_file_of_multi_label_and_regression(tmp_path: Path) -> None:
    logits = np.array([[3, -3, 3], [-3, -3, -3]], np.float32)
    path = tmp_path / "predictions.tsv"
    write_predictions(path, to_predictions(logits, MULTI), ["a", "b"], MULTI)
    _, rows = read_back(path)
    assert [row[2] for row in rows] == ["joy,fear", ""]

    values = np.array([[0.1], [4.5]], np.float32)
    write_predictions(
        path, to_predictions(values, REGRESSION), [["a", "b"], ["c", "d"]], REGRESSION
    )
    header, rows = read_back(path)
    assert header == ["row", "left", "right", "prediction"]
    assert rows == [["1", "a", "c", "0.1"], ["2", "b", "d", "4.5"]]


def test_labels_and_columns_are_escaped(tmp_path: Path) -> None:
    problem = Problem("single_label", ("my\ttext",), ("a\nb", "c"))
    predictions = to_predictions(np.array([[1, 0]], np.float32), problem)
    write_predictions(tmp_path / "p.tsv", predictions, ["x"], problem)
    header, rows = read_back(tmp_path / "p.tsv")
    assert header[1] == r"my\ttext" and header[3] == r"probability_a\nb"
    assert rows[0][2] == r"a\nb"


def test_wrong_texts_leave_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "predictions.tsv"
    path.write_text("before")
    with pytest.raises(UserError, match="2 predictions were given for 1 texts"):
        write_predictions(path, to_predictions(np.eye(2, 3), SINGLE), ["one"], SINGLE)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["predictions.tsv"]


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
