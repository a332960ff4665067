"""Evaluation: each example once, whatever the batches, the lengths and the replicas."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.local_workers import free_ports
from tf_finetune.classification.classifier import Classifier, build_classifier
from tf_finetune.classification.metrics import metric_names
from tf_finetune.classification.predict import evaluate
from tf_finetune.classification.tokenize import tokenize
from tf_finetune.data.batches import make_eval_dataset
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.data.tokenized import TokenizedRows
from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training.forward import make_forward

PROBLEM = Problem("single_label", ("text",), ("bad", "good", "unsure"))
ROWS = 17


@pytest.fixture(scope="module")
def classifier(tiny_bert_dir: Path) -> Classifier:
    keras.utils.set_random_seed(1)
    return build_classifier(load_encoder(str(tiny_bert_dir)), PROBLEM, max_seq_length=16)


@pytest.fixture(scope="module")
def model(classifier) -> keras.Model:
    return classifier.model


@pytest.fixture(scope="module")
def examples(tiny_bert_dir: Path) -> Examples:
    # All differ within 16 tokens: between equal texts, rounding alone would decide a rank.
    texts = ["good film " * (row // 7) + "the movie" + " bad" * (row % 7) for row in range(ROWS)]
    labels = np.arange(ROWS, dtype=np.int32) % 3
    return Examples((texts,), labels, texts)


@pytest.fixture(scope="module")
def rows(tiny_bert_dir: Path, examples: Examples) -> TokenizedRows:
    preprocessor = load_encoder(str(tiny_bert_dir)).preprocessor
    return tokenize(examples, preprocessor, max_seq_length=16)


def test_each_example_counts_once_at_every_batch_size(classifier, examples, rows) -> None:
    """Row by row by hand, then in batches of 1, 3, 8 and all."""
    preprocessor = classifier.encoder.preprocessor
    one_by_one = []
    for row in range(ROWS):
        features = preprocessor([tf.constant([examples.texts[0][row]])], 16)
        one_by_one.append(classifier.model(features, training=False).numpy()[0])
    fn = make_forward(classifier.model)
    reference = None
    for batch_size in (1, 3, 8, ROWS):
        dataset = make_eval_dataset(rows, batch_size)
        logits, labels = fn(dataset)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, np.array(one_by_one)[rows.order], atol=1e-5)
        np.testing.assert_array_equal(labels, examples.labels[rows.order])
        # Those of the classifier are in the order of the rows.
        own = classifier.logits(rows, batch_size)
        assert own.dtype == np.float32
        np.testing.assert_allclose(own, one_by_one, atol=1e-5)
        result = evaluate(fn, dataset, PROBLEM)
        assert sum(c["support"] for c in result["per_class"].values()) == ROWS
        reference = reference or result
        for found in (result, classifier.evaluate(examples, batch_size)):
            assert found["per_class"] == reference["per_class"]
            for name in metric_names(PROBLEM):
                assert found[name] == pytest.approx(reference[name], abs=1e-6), name


def test_rows_without_a_label_are_predicted_and_do_not_count(classifier, examples) -> None:
    labels = np.where(np.arange(ROWS) % 4 == 0, np.int32(-1), examples.labels)
    known = np.flatnonzero(labels >= 0)
    result = classifier.evaluate(Examples(examples.texts, labels), 8)
    texts = [examples.texts[0][row] for row in known]
    expected = classifier.evaluate(Examples((texts,), labels[known]), 8)
    assert result["examples"] == len(known) == 12
    assert result["per_class"] == expected["per_class"]
    for name in metric_names(PROBLEM):
        assert result[name] == pytest.approx(expected[name], abs=1e-6), name
    for rows in (
        Examples(examples.texts, np.full(ROWS, -1, np.int32)),
        Examples(examples.texts),
    ):
        with pytest.raises(UserError, match="evaluate"):
            classifier.evaluate(rows)


def test_one_trace_serves_every_shape(model, rows) -> None:
    calls = count_calls(model)
    fn = make_forward(model)
    for batch_size in (3, 8, ROWS):
        fn(make_eval_dataset(rows, batch_size))
    assert calls() == 1


def test_sees_later_weights(model, rows) -> None:
    fn, dataset = make_forward(model), make_eval_dataset(rows)
    before, _ = fn(dataset)
    bias = model.trainable_variables[-1]
    bias.assign_add(tf.ones_like(bias))
    after, _ = fn(dataset)
    bias.assign_sub(tf.ones_like(bias))
    np.testing.assert_allclose(after, before + 1, atol=1e-5)


def test_classifier_and_function_agree_and_dropout_is_off(classifier, rows) -> None:
    dataset = make_eval_dataset(rows, 8)
    first, _ = classifier.forward(dataset)
    second, _ = make_forward(classifier.model)(dataset)
    np.testing.assert_array_equal(first, second)


def test_jit_compile(model, rows) -> None:
    dataset = make_eval_dataset(rows, ROWS)
    plain, _ = make_forward(model)(dataset)
    compiled, _ = make_forward(model, Runtime(jit_compile=True))(dataset)
    np.testing.assert_allclose(compiled, plain, atol=1e-4)


def test_rows_of_weight_zero_do_not_count(model, rows) -> None:
    """Nonsense in filling rows changes nothing."""
    fn, dataset = make_forward(model), make_eval_dataset(rows, 8)

    def spoil(features, labels, weights):
        return features, tf.where(weights > 0, labels, 2 - labels), weights

    assert evaluate(fn, dataset.map(spoil), PROBLEM) == evaluate(fn, dataset, PROBLEM)
    weights = np.concatenate([weights for _, _, weights in dataset.as_numpy_iterator()])
    assert (weights == 0).any()


def test_multi_label_and_threshold(tiny_bert_dir: Path, rows) -> None:
    problem = Problem("multi_label", ("text",), ("x", "y"))
    fn = build_classifier(load_encoder(str(tiny_bert_dir)), problem).forward
    dataset = make_eval_dataset(rows, 8).map(
        lambda f, y, w: (f, tf.stack([y % 2, 1 - y % 2], 1), w)
    )
    everything = evaluate(fn, dataset, dataclasses.replace(problem, threshold=1e-9))
    assert everything["per_class"]["x"]["recall"] == 1.0
    assert everything["micro_f1"] == pytest.approx(2 * ROWS / (2 * ROWS + ROWS))
    nothing = evaluate(fn, dataset, dataclasses.replace(problem, threshold=1 - 1e-9))
    assert nothing["micro_f1"] == 0.0


def test_diverged_model_says_so(model, rows) -> None:
    bias = model.trainable_variables[-1]
    kept = bias.numpy()
    bias.assign(np.full_like(kept, np.nan))
    try:
        with pytest.raises(UserError, match="not finite"):
            evaluate(make_forward(model), make_eval_dataset(rows), PROBLEM)
    finally:
        bias.assign(kept)


# Strategies want to be made before anything else is.
REPLICAS = """
import tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy, replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), 2
"""

WORKERS = """
import json, os, sys
index, *ports = sys.argv[1:]
cluster = {"worker": [f"localhost:{port}" for port in ports]}
task = {"type": "worker", "index": int(index)}
os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
import tensorflow as tf
strategy, replicas = tf.distribute.MultiWorkerMirroredStrategy(), 1
"""

# A row's label is its number. Lengths and batch sizes differ; some rows only fill a batch up.
CHECK = """
import keras, numpy as np
from tf_finetune import Runtime
from tf_finetune.training.forward import make_forward

calls = 0
class Count(keras.layers.Layer):
    def call(self, x):
        global calls
        calls += 1
        return x

def build():
    keras.utils.set_random_seed(3)
    ids = keras.Input((None,), dtype="int32", name="input_word_ids")
    x = keras.layers.Embedding(50, 4)(Count()(ids))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model({"input_word_ids": ids}, keras.layers.Dense(3)(x))

random = np.random.default_rng(0)
batches = []
rows = 0
for size, length, filling in [(4, 8, 0), (5, 16, 1), (3, 8, 2), (1, 24, 0), (6, 4, 6)]:
    real = size - filling
    features = {"input_word_ids": random.integers(0, 50, (size, length), dtype=np.int32),
                "unused": np.zeros((size, 1), np.int32)}
    labels = np.concatenate([np.arange(rows, rows + real), np.full(filling, -1)]).astype(np.int32)
    batches.append((features, labels, (labels >= 0).astype(np.float32)))
    rows += real
spec = ({"input_word_ids": tf.TensorSpec([None, None], tf.int32),
         "unused": tf.TensorSpec([None, 1], tf.int32)},
        tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float32))
dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)

# Compared with one device.
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    model = build()
expected, order = make_forward(model)(dataset)
assert order.tolist() == list(range(rows)), order
fn = make_forward(model, Runtime(strategy))
calls = 0
for _ in range(3):
    logits, order = fn(dataset)
    assert order.tolist() == list(range(rows)), order
    np.testing.assert_allclose(logits, expected, atol=1e-5)
assert calls == replicas, calls  # one trace for each replica in this process
print("as expected")
"""


def test_two_replicas_see_each_example_once_and_in_order() -> None:
    process = start_python(REPLICAS + CHECK)
    assert "as expected" in finish(process)


@pytest.mark.slow
def test_two_workers_see_each_example_once_and_in_order() -> None:
    ports = [str(port) for port in free_ports(2)]
    processes = [start_python(WORKERS + CHECK, index, *ports) for index in "01"]
    for process in processes:
        assert "as expected" in finish(process)


def start_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Runs code in a fresh interpreter that finds the package."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Returns what a process that succeeded has printed."""
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-4000:]
    return output


def count_calls(model: keras.Model) -> Callable[[], int]:
    """Counts from now on how often Python runs the first layer's call, that is, traces it."""
    layer = next(layer for layer in model.layers if layer.name == "pooling")
    count = 0
    call = layer.call

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        return call(*args, **kwargs)

    layer.call = counted
    return lambda: count
