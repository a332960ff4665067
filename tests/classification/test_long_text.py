"""Texts longer than a row: learnt, predicted, counted and exported per text."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.thorough import mostly
from tf_finetune.classification.classifier import Classifier, build_classifier
from tf_finetune.classification.command import main
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.load import load_classifier
from tf_finetune.classification.tokenize import LABEL, PIECE, ExampleTokenizer
from tf_finetune.data.batches import make_train_dataset, plan_batches
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.runs.config import LoopConfig, OptimizerConfig
from tf_finetune.runs.model_dir import ModelDir

PROBLEM = Problem("single_label", ("text",), ("bad", "good"))
PAIR = Problem("single_label", ("a", "b"), ("no", "yes", "maybe"))
SCORE = Problem("regression", ("text",))
LENGTH = 12
WORDS = ("the", "is", "not", "great", "film", "movie", "plot", "very", "boring")
TEXTS = ["the plot", "good film " * 20, "", "is the movie boring " * 7, "not " * 10, "bad " * 11]


def sentence(size: int, seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, size))


@pytest.fixture(scope="module")
def encoder(tiny_bert_dir: Path) -> Encoder:
    return load_encoder(str(tiny_bert_dir))


def build(encoder: Encoder, long_text: str, problem: Problem = PROBLEM) -> Classifier:
    """A classifier whose random head tells texts apart."""
    config = EncoderConfig(long_text=long_text, pooling="mean")
    classifier = build_classifier(encoder, problem, config, max_seq_length=LENGTH)
    kernel, _ = classifier.model.get_layer("head").logits.trainable_variables
    kernel.assign(np.random.default_rng(1).normal(0, 1, kernel.shape))
    return classifier


def logits_of_pieces(classifier: Classifier, text: str) -> np.ndarray:
    """The logits of a text's pieces, cut by hand: of 10 tokens, every 8th and the last begins one.

    Windows stand at equal distances, so that the last one ends with the text.
    """
    words, room = text.split(), LENGTH - 2
    count = max(1, 1 + -(-(len(words) - room) // 8))
    starts = [
        (len(words) - room) * n // max(count - 1, 1) if count > 1 else 0 for n in range(count)
    ]
    pieces = [" ".join(words[start : start + room]) for start in starts]
    features = classifier.encoder.preprocessor([tf.constant(pieces)], LENGTH)
    return classifier.model(features, training=False).numpy()


@pytest.mark.parametrize("problem", [PROBLEM, SCORE])
def test_logits_are_the_mean_over_the_pieces(encoder: Encoder, problem: Problem) -> None:
    classifier = build(encoder, "window", problem)
    pieces = [logits_of_pieces(classifier, text) for text in TEXTS]
    assert [len(part) for part in pieces] == [1, 5, 1, 4, 1, 2]
    assert max(np.ptp(part, axis=0).max() for part in pieces) > 0.01
    expected = np.stack([part.astype(np.float64).mean(axis=0) for part in pieces])
    np.testing.assert_allclose(classifier.predict(TEXTS, 3).logits, expected, atol=1e-5)
    assert len(classifier.predict([])) == 0


@pytest.mark.parametrize("long_text", ["head_tail", "window"])
def test_texts_that_fit_are_read_as_ever(encoder: Encoder, long_text: str) -> None:
    short = [text for text in TEXTS if len(text.split()) <= LENGTH - 2]
    expected = build(encoder, "truncate").predict(short).logits
    found = build(encoder, long_text)
    np.testing.assert_array_equal(found.predict(short).logits, expected)
    rows = found.tokenize(Examples((short,), np.array([0, 1, 1], np.int32)))
    assert rows.pieces is None and PIECE not in rows.columns
    assert plan_batches(rows).row_weight is None


def test_both_ends_are_read(encoder: Encoder) -> None:
    """Of 10 tokens 3 are of the beginning; the rest of 30 may be anything."""
    words = sentence(30, 3).split()
    other = [*words[:3], *sentence(20, 4).split(), *words[-7:]]
    both, start = build(encoder, "head_tail"), build(encoder, "truncate")
    ends = " ".join([*words[:3], *words[-7:]])
    texts = [" ".join(words), " ".join(other), ends]
    found = both.predict(texts).logits
    np.testing.assert_allclose(found, np.repeat(found[:1], 3, axis=0), atol=1e-6)
    np.testing.assert_allclose(found[:1], start.predict([ends]).logits, atol=1e-6)
    assert np.ptp(start.predict(texts[:2]).logits, axis=0).max() > 0.01


def labelled(problem: Problem) -> Examples:
    labels = np.arange(len(TEXTS)) % 2
    if problem.problem_type == "multi_label":
        return Examples((TEXTS,), np.eye(2, dtype=np.float32)[labels])
    return Examples((TEXTS,), labels.astype(np.int32))


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_every_text_has_a_weight_of_one_and_its_label(encoder: Encoder, kind: str) -> None:
    problem = dataclasses.replace(PROBLEM, problem_type=kind)
    rows = build(encoder, "window", problem).tokenize(labelled(problem))
    assert rows.pieces is not None and rows.pieces.tolist() == [1, 5, 1, 4, 1, 2]
    assert rows.full_lengths.tolist() == [4, 42, 2, 30, 12, 13]
    assert rows.lengths.max() == LENGTH and len(rows) == 14
    weights, by_label = 0.0, np.zeros(2)
    for _, labels, weight in make_train_dataset(rows, 4):
        hot = np.eye(2)[labels] if kind == "single_label" else labels.numpy()
        weights += float(tf.reduce_sum(weight))
        by_label += weight.numpy() @ hot
    assert weights == pytest.approx(6) and by_label == pytest.approx([3, 3])


def test_metrics_count_texts(encoder: Encoder) -> None:
    """Texts of one label have many pieces: by the piece the accuracy would be another."""
    classifier = build(encoder, "window")
    examples = labelled(PROBLEM)
    predicted = classifier.predict(TEXTS).logits.argmax(axis=1)
    found = classifier.evaluate(examples, 3)
    assert found["examples"] == 6
    assert found["accuracy"] == pytest.approx(np.mean(predicted == examples.labels))
    labels = np.array([1, -1, 0, 1, -1, -1], np.int32)
    assert classifier.evaluate(Examples((TEXTS,), labels), 3)["examples"] == 3
    with pytest.raises(UserError, match=r"labels\[1\] is -1.* 3 of 6 rows"):
        plan_batches(classifier.tokenize(Examples((TEXTS,), labels)))


@pytest.mark.parametrize(
    ("long_text", "learnt"),
    mostly(("window", True), others=[("truncate", False), ("head_tail", True)]),
)
def test_a_word_at_the_end_is_learnt(
    tiny_bert_dir: Path, long_text: str, learnt: bool, tmp_path: Path
) -> None:
    """Each beginning has both labels: who reads no more is right in half of the texts."""
    keras.utils.set_random_seed(1)  # Not every first head of the toy learns in so few steps.
    texts = [f"{sentence(18, n)} {word}" for n in range(24) for word in ("bad", "good")]
    examples = Examples((texts,), np.array([0, 1] * 24, np.int32))
    config = EncoderConfig(long_text=long_text, pooling="mean", dropout=0)
    encoder = load_encoder(str(tiny_bert_dir), dropout=0)
    classifier = build_classifier(encoder, PROBLEM, config, max_seq_length=LENGTH)
    rows = classifier.tokenize(examples)
    batches = plan_batches(rows, 16, LoopConfig(num_train_epochs=15))
    directory = ModelDir(str(tmp_path / "model"))
    adamw = OptimizerConfig(learning_rate=1e-2)
    state = classifier.fit(batches, adamw, validation=rows, model_dir=directory)
    assert state.examples == pytest.approx(15 * len(texts), rel=1e-5)
    assert state.targets == 15 * len(rows)
    accuracy = classifier.evaluate(examples)["accuracy"]
    assert accuracy == 1 if learnt else accuracy == 0.5
    loaded = load_classifier(directory.path)
    assert loaded.config.long_text == long_text
    assert loaded.evaluate(examples)["accuracy"] == accuracy
    other = build(encoder, "truncate" if learnt else "window")
    with pytest.raises(UserError, match="--long_text: "):
        other.fit(plan_batches(other.tokenize(examples)), model_dir=directory)


@pytest.mark.parametrize(
    ("problem", "long_text"),
    mostly(
        *((PAIR, "head_tail"), (PROBLEM, "window")),
        others=[(PROBLEM, "head_tail"), (PAIR, "window")],
    ),
)
def test_the_export_answers_like_predict(
    encoder: Encoder, tmp_path: Path, problem: Problem, long_text: str
) -> None:
    classifier = build(encoder, long_text, problem)
    columns = [TEXTS, TEXTS[::-1]][: len(problem.text_columns)]
    classifier.export(str(tmp_path / "export"), columns)
    serve = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    # The last but one has more pieces than are computed at once.
    for rows in ([0], [1], [2], [0, 1, 2, 3, 4, 5], [1, 0, 3] * 16, []):
        texts = [[column[row] for row in rows] for column in columns]
        inputs = dict(zip(problem.text_columns, texts, strict=True))
        answers = serve(**{name: tf.constant(column, tf.string) for name, column in inputs.items()})
        expected = classifier.predict(texts)
        np.testing.assert_allclose(answers["probabilities"], expected.probabilities, atol=1e-4)


def test_rows_that_are_streamed_are_not_cut_into_pieces(encoder: Encoder) -> None:
    with pytest.raises(UserError, match="long_text=window: rows that are streamed"):
        ExampleTokenizer(None, encoder.preprocessor, LENGTH, "window")


def write(path: Path, rows: int) -> str:
    lines = (
        json.dumps(
            {"text": f"{sentence(25, n)} {'good' if n % 2 else 'bad'}", "label": "ab"[n % 2]}
        )
        for n in range(rows)
    )
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


@pytest.fixture
def run(tiny_bert_dir: Path, tmp_path: Path):
    train, test = write(tmp_path / "train.jsonl", 24), write(tmp_path / "test.jsonl", 9)

    def command(*flags: str) -> int:
        data = () if "--do_train" not in flags else (f"--train_file={train}",)
        if "--do_train" in flags:
            data += (f"--encoder={tiny_bert_dir}", f"--max_seq_length={LENGTH}", "--max_steps=4")
        more = (f"--test_file={test}", f"--model_dir={tmp_path / 'out'}", "--precision=float32")
        return main(["run_classifier.py", *data, *more, *flags])

    return command


def test_a_run_counts_texts_and_later_calls_know_the_mode(run, tmp_path: Path, capsys) -> None:
    everything = ("--do_eval", "--do_predict", "--do_export")
    assert run("--do_train", "--long_text=window", "--train_batch_size=8", *everything) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "in pieces" in said
    assert "100.0% of the rows are longer than 12 tokens (the encoder reads up to 64): each" in said
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["test"]["examples"] == 9
    predictions = tmp_path / "out" / "predictions.tsv"
    first = predictions.read_text()
    assert len(first.splitlines()) == 10
    assert run("--do_predict") == 0
    assert predictions.read_text() == first
    assert run("--do_predict", "--long_text=truncate") == 2
    assert "--long_text: 'window' there, 'truncate' now" in capsys.readouterr().err


def test_streaming_reads_both_ends_and_refuses_windows(run, capsys) -> None:
    assert run("--do_train", "--streaming=true", "--long_text=window") == 2
    assert "--long_text=window needs all rows beforehand" in capsys.readouterr().err
    flags = ("--streaming=true", "--label_names=a,b", "--long_text=head_tail")
    assert run("--do_train", "--do_eval", *flags) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "only their beginning and end are read (--long_text=head_tail)" in said


def test_labels_of_pieces_are_those_of_their_text(encoder: Encoder) -> None:
    rows = build(encoder, "window").tokenize(labelled(PROBLEM))
    assert rows.columns[LABEL].numpy()[rows.first_rows].tolist() == [0, 1, 0, 1, 0, 1]
    assert rows.columns[LABEL].numpy().tolist() == [0] + [1] * 5 + [0] + [1] * 4 + [0] + [1] * 2
    assert rows.columns[PIECE].numpy()[1:6].tolist() == [[n, 5] for n in range(5)]
