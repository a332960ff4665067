"""The export answers like the model, without this package, for texts of any length."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.thorough import mostly
from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.export import argument_names, export
from tf_finetune.classification.fields import unescape
from tf_finetune.classification.heads import HEADS
from tf_finetune.classification.predict import Predictions
from tf_finetune.classification.predict import predict as predict_with
from tf_finetune.data.batches import plan_batches
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.models.precision import float32_compute
from tf_finetune.runs.config import LoopConfig, OptimizerConfig
from tf_finetune.training.forward import make_forward

SINGLE = Problem("single_label", ("sentence",), ("bad", "good", "not sure"))
PAIR = Problem("single_label", ("sentence 1", "Satz-2"), ("no", "yes"))
MULTI = Problem("multi_label", ("text",), ("joy", "anger", "fear", "love"))
CALIBRATED = {
    "single_label": {"temperature": 2.0, "reject_below": 0.5},
    "multi_label": {"thresholds": (0.4, 0.6, 0.5, 0.45)},
    "regression": {},
}
REGRESSION = Problem("regression", ("left", "right"))
TEXTS = ["good film", "", "the movie is not bad", "very boring plot ☕ " * 9, "the\nfilm\t\0x"]
LENGTH = 16


def spread(model: keras.Model, encoder: Encoder, problem: Problem) -> keras.Model:
    """Gives the head weights with which the texts get different answers."""
    kernel, bias = model.get_layer("head").logits.trainable_variables
    kernel.assign(keras.random.normal(kernel.shape, seed=3))
    segments = [tf.constant(TEXTS)] * len(problem.text_columns)
    logits = model(encoder.preprocessor(segments, LENGTH), training=False)
    bias.assign_sub(tf.reduce_mean(logits, axis=0))
    return model


@pytest.fixture(scope="module")
def encoder(tiny_bert_dir: Path) -> Encoder:
    return load_encoder(str(tiny_bert_dir))


@pytest.fixture(scope="module")
def classifier(encoder: Encoder) -> Callable[[Problem], keras.Model]:
    return lambda problem: spread(build_classifier(encoder, problem).model, encoder, problem)


def predict(model: keras.Model, encoder: Encoder, problem: Problem, texts) -> Predictions:
    """Predicts texts of up to `LENGTH` tokens."""
    forward = make_forward(model)
    return predict_with(forward, encoder.preprocessor, problem, texts, max_seq_length=LENGTH)


def columns(problem: Problem) -> list[list[str]]:
    return [TEXTS, TEXTS[::-1]][: len(problem.text_columns)]


def serve(directory: Path, problem: Problem, texts: list[list[str]]) -> dict[str, np.ndarray]:
    signature = tf.saved_model.load(str(directory)).signatures["serving_default"]
    names = argument_names(problem.text_columns)
    inputs = {name: tf.constant(column) for name, column in zip(names, texts, strict=True)}
    return {name: value.numpy() for name, value in signature(**inputs).items()}


@pytest.mark.parametrize("problem", [SINGLE, PAIR, MULTI, REGRESSION])
def test_answers_like_predict(problem, encoder, classifier, tmp_path: Path) -> None:
    problem = dataclasses.replace(problem, **CALIBRATED[problem.problem_type])
    model = classifier(problem)
    directory = tmp_path / "deep" / "export"
    export(
        model,
        encoder.preprocessor,
        problem,
        directory,
        max_seq_length=LENGTH,
        example_texts=columns(problem),
    )
    expected = predict(model, encoder, problem, columns(problem))
    answers = serve(directory, problem, columns(problem))
    if problem.problem_type == "regression":
        assert set(answers) == {"score"}
        np.testing.assert_allclose(answers["score"], expected.values, atol=1e-4)
    else:
        assert set(answers) == {"label", "score", "probabilities"}
        np.testing.assert_allclose(answers["probabilities"], expected.probabilities, atol=1e-4)
        np.testing.assert_array_equal(answers["score"], answers["probabilities"].max(axis=1))
        assert answers["label"].tolist() == [",".join(row).encode() for row in expected.labels]
        assert len(set(answers["label"].tolist())) > 1
    assert answers["score"].dtype == np.float32 and answers["score"].shape == (len(TEXTS),)
    labels = (directory / "assets.extra" / "labels.txt").read_text(encoding="utf-8")
    assert tuple(labels.splitlines()) == problem.label_names


WITHOUT_THE_PACKAGE = """
import json, sys
import tensorflow as tf, tensorflow_text
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answers = {name: value.numpy().tolist() for name, value in
           signature(sentence=tf.constant(json.loads(sys.argv[2]))).items()}
for name in ("tf_finetune", "keras_hub"):
    assert name not in sys.modules, name
answers["label"] = [label.decode() for label in answers["label"]]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def exported(encoder, classifier, tmp_path_factory) -> tuple[Path, keras.Model]:
    directory = tmp_path_factory.mktemp("exported") / "export"
    model = classifier(SINGLE)
    export(model, encoder.preprocessor, SINGLE, directory, max_seq_length=LENGTH)
    return directory, model


def test_loads_without_the_package(exported, encoder) -> None:
    directory, model = exported
    output = run_python("-c", WITHOUT_THE_PACKAGE, str(directory), json.dumps(TEXTS))
    answers = json.loads(output.splitlines()[-1])
    expected = predict(model, encoder, SINGLE, TEXTS)
    np.testing.assert_allclose(answers["probabilities"], expected.probabilities, atol=1e-4)
    assert answers["label"] == [label for (label,) in expected.labels]


@pytest.mark.thorough
def test_saved_model_cli(exported, encoder, tmp_path: Path) -> None:
    """The command of the module's docstring; a session, as TensorFlow Serving's, runs it."""
    directory, model = exported
    code = (
        "import tensorflow_text; from tensorflow.python.tools.saved_model_cli import main; main()"
    )
    run_python(
        *("-c", code, "run", "--dir", str(directory), "--tag_set", "serve"),
        *("--signature_def", "serving_default", "--input_exprs", 'sentence=["good film", "bad"]'),
        *("--outdir", str(tmp_path)),
    )
    texts = ["good film", "bad"]
    expected = predict(model, encoder, SINGLE, texts)
    shares = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(shares, expected.probabilities, atol=1e-4)
    assert np.load(tmp_path / "label.npy", allow_pickle=True).tolist() == [
        label.encode() for (label,) in expected.labels
    ]


@keras.saving.register_keras_serializable("test_export")
class RowLength(keras.layers.Layer):
    """Says how long the rows of a batch are."""

    def call(self, ids):
        length = keras.ops.cast(keras.ops.shape(ids)[1], "float32")
        return keras.ops.zeros_like(ids[:, :1], dtype="float32") + length


def test_pads_to_the_longest_row_of_a_request(encoder, tmp_path: Path) -> None:
    """Short texts cost no more than their own length, long ones no more than the limit."""
    inputs = {
        name: keras.Input([None], dtype="int32", name=name)
        for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    model = keras.Model(inputs, RowLength()(inputs["input_word_ids"]))
    problem = Problem("regression", ("text",))
    export(model, encoder.preprocessor, problem, tmp_path / "export", max_seq_length=9)
    for texts, length in [([""], 2), (["good film"], 4), (["bad", "the movie is"], 5)]:
        assert serve(tmp_path / "export", problem, [texts])["score"].tolist() == [length] * len(
            texts
        )
    long = ["good " * 50, "bad"]
    assert serve(tmp_path / "export", problem, [long])["score"].tolist() == [9, 9]


def test_variables_are_stored_once_and_without_the_optimizer(exported) -> None:
    directory, model = exported
    assert model.optimizer is not None
    weights = sum(v.numpy().nbytes for v in model.weights)
    stored = sum(f.stat().st_size for f in (directory / "variables").glob("*.data-*"))
    assert weights <= stored <= weights + 20_000
    names = [name for name, _ in tf.train.list_variables(str(directory / "variables/variables"))]
    assert not any("optimizer" in name or "momentum" in name for name in names)
    assert (directory / "saved_model.pb").stat().st_size < 2_000_000


def test_dropout_is_off(exported) -> None:
    directory, _ = exported
    first, second = (serve(directory, SINGLE, [TEXTS])["probabilities"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_keras_file_round_trip(exported, encoder) -> None:
    directory, model = exported
    restored = keras.saving.load_model(directory / "model.keras")
    features = encoder.preprocessor([tf.constant(TEXTS)], LENGTH)
    np.testing.assert_allclose(
        restored(features, training=False), model(features, training=False), atol=1e-6
    )


def test_export_follows_the_weights_of_the_day(exported, encoder, tmp_path: Path) -> None:
    """A second export replaces the first; the first was no alias of the model."""
    _, model = exported
    bias = model.trainable_variables[-1]
    kept = bias.numpy()
    directory = tmp_path / "export"
    try:
        for best in (0, 1):
            bias.assign(np.eye(3)[best] * 100)
            export(model, encoder.preprocessor, SINGLE, directory, max_seq_length=LENGTH)
            answer = serve(directory, SINGLE, [TEXTS])
            assert set(answer["label"].tolist()) == {SINGLE.label_names[best].encode()}
    finally:
        bias.assign(kept)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@keras.saving.register_keras_serializable("test_export")
class Unstable(keras.layers.Layer):
    """Computes something else each time that it is traced."""

    traces = 0

    def call(self, inputs):
        Unstable.traces += 1
        return inputs + 0.01 * Unstable.traces * keras.ops.arange(3, dtype="float32")


def test_a_full_disk_fails_the_export(encoder, small_disk: Path) -> None:
    model = build_classifier(encoder, SINGLE).model
    with pytest.raises((UserError, OSError), match="No space left"):
        export(model, encoder.preprocessor, SINGLE, small_disk / "export", max_seq_length=LENGTH)
    assert not list(small_disk.iterdir())


def test_a_difference_fails_the_export_and_leaves_what_was_there(encoder, tmp_path) -> None:
    base = build_classifier(encoder, SINGLE).model
    model = keras.Model(base.input, Unstable()(base.output))
    directory = tmp_path / "export"
    directory.mkdir()
    (directory / "saved_model.pb").touch()
    with pytest.raises(UserError, match=r"differs from the model: \w+ by up to 0\.\d+"):
        export(model, encoder.preprocessor, SINGLE, directory, max_seq_length=LENGTH)
    assert [path.name for path in directory.iterdir()] == ["saved_model.pb"]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_not_finite_fails_the_export(encoder, tmp_path: Path) -> None:
    model = build_classifier(encoder, SINGLE).model
    model.trainable_variables[-1].assign([np.nan, 0, 0])
    with pytest.raises(UserError, match="differs"):
        export(model, encoder.preprocessor, SINGLE, tmp_path / "export", max_seq_length=LENGTH)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("policy", mostly("mixed_bfloat16", others=["mixed_float16"]))
@pytest.mark.parametrize("head", list(HEADS))
def test_mixed_precision_is_exported_in_float32(tiny_bert_dir, tmp_path, policy, head) -> None:
    keras.config.set_dtype_policy(policy)
    encoder = load_encoder(str(tiny_bert_dir))
    model = build_classifier(encoder, SINGLE, EncoderConfig(head=head)).model
    model = spread(model, encoder, SINGLE)
    assert model.get_layer("encoder").compute_dtype == policy.removeprefix("mixed_")
    features = encoder.preprocessor([tf.constant(TEXTS)], LENGTH)
    mixed = tf.nn.softmax(model(features, training=False)).numpy()
    export(model, encoder.preprocessor, SINGLE, tmp_path / "export", max_seq_length=LENGTH)
    # The model itself goes on as it was.
    np.testing.assert_array_equal(tf.nn.softmax(model(features, training=False)), mixed)
    answers = serve(tmp_path / "export", SINGLE, [TEXTS])
    weights = model.get_weights()
    file = tmp_path / "export" / "model.keras"
    # Loaded where the global policy is mixed, it computes the same.
    answers["keras"] = tf.nn.softmax(keras.saving.load_model(file)(features, training=False))
    keras.config.set_dtype_policy("float32")
    restored = keras.saving.load_model(file, compile=False)
    assert {layer.dtype_policy.name for layer in restored._flatten_layers()} == {"float32"}
    encoder_32 = load_encoder(str(tiny_bert_dir))
    model_32 = build_classifier(encoder_32, SINGLE, EncoderConfig(head=head)).model
    model_32.set_weights(weights)
    exact = tf.nn.softmax(model_32(features, training=False)).numpy()
    # Rounded, they differ by more than what the comparisons below allow.
    assert np.abs(exact - mixed).max() > 2e-5
    np.testing.assert_allclose(answers["probabilities"], exact, atol=1e-5)
    np.testing.assert_allclose(answers["keras"], exact, atol=1e-6)
    np.testing.assert_allclose(tf.nn.softmax(restored(features, training=False)), exact, atol=1e-6)


@pytest.mark.thorough
def test_what_mixed_precision_has_trained_is_converted_to_lite_rt(tiny_bert_dir, tmp_path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    encoder = load_encoder(str(tiny_bert_dir))
    classifier = build_classifier(encoder, PAIR, max_seq_length=LENGTH)
    examples = Examples((TEXTS, TEXTS[::-1]), np.array([0, 1, 0, 1, 0], np.int32))
    batches = plan_batches(classifier.tokenize(examples), 5, LoopConfig(max_steps=2))
    classifier.fit(batches, OptimizerConfig())
    classifier.export(str(tmp_path / "export"))
    model = keras.saving.load_model(tmp_path / "export" / "model.keras")
    inputs = {
        tensor.name: keras.Input((LENGTH,), 2, dtype="int32", name=tensor.name)
        for tensor in model.inputs
    }
    fixed = keras.Model(inputs, model(inputs))
    content = tf.lite.TFLiteConverter.from_keras_model(fixed).convert()
    run = tf.lite.Interpreter(model_content=content).get_signature_runner()
    texts = [["a good film ", "bad " * 9], ["boring", "good " * 9]]
    features = encoder.preprocessor([tf.constant(column) for column in texts], LENGTH)
    assert features["input_mask"].shape == (2, LENGTH)
    (logits,) = run(**features).values()
    np.testing.assert_allclose(logits, model(features, training=False), atol=1e-4)


@pytest.mark.parametrize("problem", mostly(PAIR, REGRESSION, others=[SINGLE, MULTI]))
def test_an_empty_request_gets_an_empty_answer(problem, encoder, classifier, tmp_path) -> None:
    export(
        *(classifier(problem), encoder.preprocessor, problem, tmp_path / "export"),
        max_seq_length=LENGTH,
    )
    assert_answers_nothing(tmp_path / "export", problem)
    # Beside it, an empty text is a row as any other.
    shapes = {array.shape[0] for array in serve_texts(tmp_path / "export", problem, [""]).values()}
    assert shapes == {1}


def serve_texts(directory: Path, problem: Problem, texts: list[str]) -> dict[str, np.ndarray]:
    return serve(directory, problem, [texts] * len(problem.text_columns))


def assert_answers_nothing(directory: Path, problem: Problem) -> None:
    signature = tf.saved_model.load(str(directory)).signatures["serving_default"]
    names = argument_names(problem.text_columns)
    answers = signature(**{name: tf.zeros([0], tf.string) for name in names})
    shapes = {name: tuple(answer.shape) for name, answer in answers.items()}
    labels = {"label": (0,), "probabilities": (0, problem.num_outputs)}
    assert shapes == {"score": (0,), **(labels if problem.label_names else {})}


def test_names_with_commas_can_be_told_apart(encoder, tmp_path: Path) -> None:
    problem = Problem("multi_label", ("text",), ("a", "b", "a,b", "c\\", "\\x2c"), threshold=0.01)
    model = build_classifier(encoder, problem).model
    export(model, encoder.preprocessor, problem, tmp_path / "export", max_seq_length=LENGTH)
    (label,) = serve(tmp_path / "export", problem, [["good"]])["label"].tolist()
    assert label.decode() == r"a,b,a\x2cb,c\\,\\x2c"
    assert tuple(map(unescape, label.decode().split(","))) == problem.label_names
    # A single label is the name itself.
    problem = dataclasses.replace(problem, problem_type="single_label", label_names=("a,b", "a,\\"))
    model = build_classifier(encoder, problem).model
    export(model, encoder.preprocessor, problem, tmp_path / "export", max_seq_length=LENGTH)
    (label,) = serve(tmp_path / "export", problem, [["good"]])["label"].tolist()
    assert label.decode() in problem.label_names


def test_float32_compute_puts_policies_back_after_an_error() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, dtype="mixed_bfloat16")])
    with pytest.raises(RuntimeError), float32_compute(model):
        assert model.layers[-1].compute_dtype == "float32"
        raise RuntimeError
    assert model.layers[-1].dtype_policy.name == "mixed_bfloat16"


def test_only_an_earlier_export_is_replaced(encoder, tmp_path: Path) -> None:
    model = build_classifier(encoder, SINGLE).model

    def write(directory: Path) -> None:
        export(model, encoder.preprocessor, SINGLE, directory, max_seq_length=LENGTH)

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(UserError, match=r"photos holds cat\.jpg and no saved_model\.pb"):
        write(tmp_path / "photos")
    write(tmp_path / "versions" / "1")
    write(tmp_path / "versions" / "1")
    write(tmp_path / "versions" / "12")
    with pytest.raises(UserError, match=r"holds the versions 1, 12, .*--export_version=13"):
        write(tmp_path / "versions")
    assert sorted(path.name for path in (tmp_path / "versions").iterdir()) == ["1", "12"]
    write(tmp_path / "plain")
    with pytest.raises(UserError, match="plain holds a SavedModel without a version"):
        write(tmp_path / "plain" / "1")
    assert not (tmp_path / "plain" / "1").exists()


class StringEncoder(tf.Module):
    """Takes strings, as Universal Sentence Encoder does; its vocabulary is a file."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        initializer = tf.lookup.TextFileInitializer(
            *(str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
            *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        )
        self.table = tf.lookup.StaticHashTable(initializer, default_value=0)
        self.embeddings = tf.Variable(tf.random.stateless_normal([4, 6], (1, 2)), name="embeddings")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        ids = self.table.lookup(tf.strings.split(texts))
        return tf.reduce_sum(tf.gather(self.embeddings, ids), axis=1)


def test_wrapped_saved_model_with_a_table_and_a_file(tmp_path: Path) -> None:
    """They come along, though they are in no Keras layer, and the original is not needed."""
    (tmp_path / "words.txt").write_text("unknown\ngood\nbad\nfilm\n")
    source = tmp_path / "source"
    tf.saved_model.save(StringEncoder(tmp_path / "words.txt"), str(source))
    encoder = load_encoder(str(source))
    model = spread(build_classifier(encoder, SINGLE).model, encoder, SINGLE)
    directory = tmp_path / "export"
    export(
        *(model, encoder.preprocessor, SINGLE, directory),
        max_seq_length=LENGTH,
        example_texts=[TEXTS],
    )
    assert_answers_nothing(directory, SINGLE)
    expected = predict(model, encoder, SINGLE, TEXTS)
    source.rename(tmp_path / "elsewhere")
    (tmp_path / "words.txt").unlink()
    output = run_python("-c", WITHOUT_THE_PACKAGE, str(directory), json.dumps(TEXTS))
    answers = json.loads(output.splitlines()[-1])
    np.testing.assert_allclose(answers["probabilities"], expected.probabilities, atol=1e-4)


@pytest.mark.slow
def test_wrapped_saved_model_of_tokens(tiny_hub_dir: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_hub_dir / "encoder"), mode="saved_model")
    model = spread(build_classifier(encoder, SINGLE).model, encoder, SINGLE)
    export(model, encoder.preprocessor, SINGLE, tmp_path / "export", max_seq_length=LENGTH)
    expected = predict(model, encoder, SINGLE, TEXTS)
    assert_answers_nothing(tmp_path / "export", SINGLE)
    shares = serve(tmp_path / "export", SINGLE, [TEXTS])["probabilities"]
    np.testing.assert_allclose(shares, expected.probabilities, atol=1e-4)


class Unregistered(keras.layers.Layer):
    """A layer that Keras cannot find again."""

    def call(self, inputs):
        return inputs


Unregistered.__module__ = "__nowhere__"


def test_a_layer_that_keras_cannot_load_is_an_error_with_a_remedy(encoder, tmp_path) -> None:
    base = build_classifier(encoder, SINGLE).model
    model = keras.Model(base.input, Unregistered()(base.output))
    with pytest.raises(UserError, match=r"Unregistered.*register_keras_serializable"):
        export(model, encoder.preprocessor, SINGLE, tmp_path / "export", max_seq_length=LENGTH)
    assert not list(tmp_path.iterdir())


def test_argument_names() -> None:
    assert argument_names(["sentence1", "sentence2"]) == ["sentence1", "sentence2"]
    assert argument_names(["my text", "Straße/1"]) == ["my_text", "Stra_e_1"]
    assert argument_names(["1st", "_x"]) == ["text_1st", "text__x"]
    assert argument_names(["a b", "a-b"]) == ["a_b", "a_b_2"]
    assert argument_names(["", "从"]) == ["text_", "text__"]


def run_python(*arguments: str) -> str:
    """Runs a fresh interpreter that does not find the package."""
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
