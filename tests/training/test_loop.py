import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tqdm import tqdm

from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.tokenize import tokenize
from tf_finetune.data.batches import from_dataset, make_train_dataset, no_tokens, plan_batches
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.runs.config import LoopConfig, OptimizerConfig
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runtime.hardware import Runtime
from tf_finetune.training.checkpoints import Checkpoints, find, load_weights
from tf_finetune.training.loop import Evaluation, train
from tf_finetune.training.optimizer import build_optimizer
from tf_finetune.training.progress import Progress
from tf_finetune.training.step import make_train_loop

PROBLEM = Problem("single_label", ("text",), ("bad", "good"))
ALONE = Runtime().workers
WORDS = ("good great", "bad boring")


@pytest.fixture(scope="module")
def rows(tiny_bert_dir):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60).astype(np.int32)
    texts = [
        " ".join([str(rng.choice(WORDS[1 - label].split())), *["film"] * int(rng.integers(0, 9))])
        for label in labels
    ]
    preprocessor = load_encoder(str(tiny_bert_dir)).preprocessor
    return tokenize(Examples((texts,), labels), preprocessor, 32)


@pytest.fixture
def make(tiny_bert_dir):
    """Makes a new model, always with the same weights."""

    def model(dropout: float = 0.1) -> keras.Model:
        keras.utils.set_random_seed(3)
        encoder = load_encoder(str(tiny_bert_dir), dropout=dropout)
        return build_classifier(encoder, PROBLEM, EncoderConfig(dropout=dropout)).model

    return model


def epochs(rows, batch_size: int, number: int):
    """Returns the batches of a training of some epochs."""
    return plan_batches(rows, batch_size, LoopConfig(num_train_epochs=number))


def optimizer(steps: int | None, rate: float = 1e-3):
    return build_optimizer(steps, OptimizerConfig(learning_rate=rate))


def values(model):
    return [v.numpy() for v in model.variables]


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_learns_and_counts(make, rows):
    batches = epochs(rows, 8, 20)
    assert (batches.num_steps, batches.steps_per_epoch) == (160, 8)
    model = make()
    state = train(
        model,
        batches,
        optimizer=optimizer(160, 3e-3),
        loop=LoopConfig(eval_steps=160),
        runtime=Runtime(steps_per_loop=16),
    )
    assert state.step == 160 and state.examples == 20 * 60
    assert state.tokens == 20 * int(rows.lengths.sum())
    summary = state.summary(batches.steps_per_epoch)
    assert summary["epochs"] == 20 and summary["steps"] == 160
    assert state.steady_seconds < state.seconds
    assert state.steady_examples == state.examples - 8
    assert model.evaluate(make_train_dataset(rows, 60), verbose=0)[1] == 1.0


def test_a_resumed_training_equals_one_in_one_go(make, rows, tmp_path):
    """Bit for bit, dropout and the order of examples included."""
    batches = epochs(rows, 8, 3)
    whole = make()
    train(whole, batches, optimizer=optimizer(24))

    stopped = make()
    with pytest.raises(StopIteration):
        train(
            stopped,
            batches,
            optimizer=optimizer(24),
            evaluation=Evaluation(stop_at_the_second_call()),
            loop=LoopConfig(save_checkpoints_steps=5, eval_steps=13),
            model_dir=ModelDir(str(tmp_path)),
        )
    resumed = make()
    state = train(resumed, batches, optimizer=optimizer(24), model_dir=ModelDir(str(tmp_path)))
    assert state.step == 24 and state.examples == 180
    assert_equal(values(resumed), values(whole))
    assert_equal(
        [v.numpy() for v in resumed.optimizer.variables],
        [v.numpy() for v in whole.optimizer.variables],
    )


def stop_at_the_second_call():
    calls = []

    def evaluate():
        calls.append(1)
        if len(calls) == 2:
            raise StopIteration
        return {"loss": 1.0}

    return evaluate


def test_accumulated_slices_equal_the_whole_batch(make, rows):
    batches = epochs(rows, 12, 2)
    whole, sliced = make(dropout=0.0), make(dropout=0.0)
    train(whole, batches, optimizer=optimizer(10))
    train(
        sliced,
        batches,
        optimizer=optimizer(10),
        loop=LoopConfig(gradient_accumulation_steps=3),
    )
    for a, b in zip(values(whole), values(sliced), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_steps_per_loop_change_nothing(make, rows):
    batches, loop = epochs(rows, 8, 2), LoopConfig(eval_steps=16)
    one, many = make(), make()
    train(one, batches, optimizer=optimizer(16), loop=loop)
    runtime = Runtime(steps_per_loop=7)
    train(many, batches, optimizer=optimizer(16), loop=loop, runtime=runtime)
    assert_equal(values(one), values(many))


def test_filling_rows_do_not_count(make, rows):
    """A batch of 7 rows filled up to 10 trains as one of 7."""
    batch = next(iter(make_train_dataset(rows, 10)))
    weights = tf.constant([1.0] * 7 + [0.0] * 3)
    filled = tf.data.Dataset.from_tensors((batch[0], batch[1], weights))
    cut = tf.data.Dataset.from_tensors(tf.nest.map_structure(lambda x: x[:7], batch))
    results = []
    for dataset in (filled, cut):
        model = make(dropout=0.0)
        count = rows.collate.count_tokens
        batches = dataclasses.replace(from_dataset(dataset), count_tokens=count)
        state = train(model, batches, optimizer=optimizer(1))
        assert state.examples == 7 and state.tokens > 7
        results.append((values(model), state.tokens))
    assert results[0][1] == results[1][1]
    # Adam divides by the gradient's size: rounding in a small one shows.
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_best_weights_are_kept_and_patience_ends_the_training(make, rows, tmp_path):
    model = make()
    scores = iter([0.5, 0.8, 0.7, 0.6, 0.9])
    weights = []

    def evaluate():
        weights.append(values(model))
        return {"accuracy": next(scores)}

    state = train(
        model,
        epochs(rows, 20, 10),
        optimizer=optimizer(30),
        evaluation=Evaluation(evaluate, "accuracy", greater_is_better=True),
        loop=LoopConfig(early_stopping_patience=2),
        model_dir=ModelDir(str(tmp_path)),
    )
    assert state.stopped_early and state.step == 12 and state.best_step == 6
    assert_equal(values(model), weights[1])
    folder = str(tmp_path / "checkpoints")
    assert [os.path.basename(p) for p in find(folder, "best")] == ["best-6"]
    assert [os.path.basename(p) for p in find(folder, "step")] == ["step-9", "step-12"]
    fresh = make()
    assert load_weights(fresh, folder).endswith("best-6")
    assert_equal(values(fresh), weights[1])


def test_the_last_weights_are_kept_where_that_is_asked(make, rows, tmp_path):
    model = make()
    weights = []

    def evaluate():
        weights.append(values(model))
        return {"accuracy": 1.0 - len(weights) / 10}

    train(
        model,
        epochs(rows, 20, 2),
        optimizer=optimizer(6),
        evaluation=Evaluation(evaluate, "accuracy", greater_is_better=True),
        loop=LoopConfig(load_best_model_at_end=False),
        model_dir=ModelDir(str(tmp_path)),
    )
    assert_equal(values(model), weights[1])
    folder = str(tmp_path / "checkpoints")
    assert find(folder, "best") == []
    assert load_weights(make(), folder).endswith("step-6")


def test_a_loss_that_is_not_finite_stops_the_training(make, rows, tmp_path):
    def poison(step, batch):
        features, labels, weights = batch
        return features, labels, tf.where(step == 6, weights * np.nan, weights)

    dataset = make_train_dataset(rows, 8, num_epochs=2).enumerate().map(poison)
    with pytest.raises(UserError, match=r"loss of step 7 is nan.*step-4.*learning_rate"):
        train(
            make(),
            from_dataset(dataset),
            optimizer=optimizer(16),
            loop=LoopConfig(save_checkpoints_steps=4),
            model_dir=ModelDir(str(tmp_path)),
            runtime=Runtime(steps_per_loop=4),
        )


@keras.saving.register_keras_serializable("test")
class RootHead(keras.layers.Layer):
    """Its loss is finite where its gradient is not: the root of 0."""

    def __init__(self, num_outputs: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = self.add_weight((1, num_outputs), "zeros")

    def call(self, features):
        return keras.ops.sum(features, -1, keepdims=True) * 0 + keras.ops.sqrt(self.weight)


def test_a_gradient_that_is_not_finite_stops_before_it_is_saved(rows, tiny_bert_dir, tmp_path):
    head = RootHead(2, 0.0, name="head")
    model = build_classifier(load_encoder(str(tiny_bert_dir)), PROBLEM, head=head).model
    with pytest.raises(UserError, match=r"gradient of step 1 is (nan|inf).*checkpoint is\s+none"):
        train(
            model,
            epochs(rows, 8, 1),
            optimizer=optimizer(8),
            loop=LoopConfig(save_checkpoints_steps=1),
            model_dir=ModelDir(str(tmp_path)),
        )
    assert find(str(tmp_path / "checkpoints"), "step") == []


def test_a_metric_that_is_never_defined_is_never_the_best(make, rows, tmp_path, capsys):
    state = train(
        make(),
        epochs(rows, 20, 5),
        optimizer=optimizer(15),
        evaluation=Evaluation(lambda: {"pearson": None}, "pearson", greater_is_better=True),
        loop=LoopConfig(early_stopping_patience=2),
        model_dir=ModelDir(str(tmp_path)),
    )
    assert state.stopped_early and state.step == 6
    assert "has not improved on nothing" in capsys.readouterr().out


def test_fit_and_save_go_on_with_the_new_optimizer(make, rows, tmp_path):
    model = make()
    batches = make_train_dataset(rows, 20)
    model.fit(batches, verbose=0)
    train(model, from_dataset(batches), optimizer=optimizer(None, 1e-2))
    assert int(model.optimizer.iterations) == 3
    model.fit(batches, verbose=0)
    assert int(model.optimizer.iterations) == 6
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert float(again.optimizer.learning_rate) == pytest.approx(1e-2)
    assert int(again.optimizer.iterations) == 6


def test_a_model_that_is_no_classifier(rows):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss=keras.losses.MeanSquaredError(reduction=None))
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((x, x[:, :1], np.ones(64, "float32"))).batch(8)
    before = model.evaluate(x, x[:, :1], verbose=0)
    state = train(model, from_dataset(batches.repeat(20)), optimizer=optimizer(160, 1e-1))
    assert state.examples == 20 * 64 and state.tokens == 0
    assert model.evaluate(x, x[:, :1], verbose=0) < before / 10


def test_an_overflow_on_one_replica_skips_the_step():
    """Under mixed_float16 Keras looks for overflows in the first replica alone."""
    done = subprocess.run(
        [sys.executable, "-c", OVERFLOW], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["[1.0]", "0"]


OVERFLOW = """
import numpy as np
import tensorflow as tf
from tqdm import tqdm
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from tf_finetune import OptimizerConfig, Runtime, RuntimeConfig
from tf_finetune import build_optimizer, from_dataset, train
from tf_finetune.runtime.hardware import make_strategy

keras.config.set_dtype_policy("mixed_float16")
strategy, _ = make_strategy(RuntimeConfig(distribution_strategy="mirrored"))
with strategy.scope():
    dense = keras.layers.Dense(1, "linear", use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), dense])
    model.compile(loss=keras.losses.MeanSquaredError(reduction=None))
    optimizer = build_optimizer(None, OptimizerConfig(learning_rate=0.1))
# The second replica's row alone overflows float16 in the gradient.
x = np.array([[0.0], [100.0]], np.float32)
batches = tf.data.Dataset.from_tensors((x, x * 0, np.ones(2, np.float32)))
train(model, from_dataset(batches), optimizer=optimizer, runtime=Runtime(strategy))
steps = tf.convert_to_tensor(optimizer.inner_optimizer.iterations.value)
print([float(dense.kernel.numpy()[0, 0])], int(steps))
"""


def test_a_clock_that_jumps_changes_nothing(make, rows, tmp_path, monkeypatch):
    """Backwards by an hour at each look at it."""
    names = ("steady", "jumping")
    batches = epochs(rows, 8, 2)
    models = [make(), make()]
    states = []
    for model, name in zip(models, names, strict=True):
        states.append(
            train(
                model,
                batches,
                optimizer=optimizer(16),
                evaluation=Evaluation(lambda: {"loss": 1.0}),
                loop=LoopConfig(save_checkpoints_steps=4, eval_steps=5),
                model_dir=ModelDir(str(tmp_path / name)),
            )
        )
        backwards = iter(range(2_000_000_000, 0, -3600))
        monkeypatch.setattr("time.time", lambda b=backwards: float(next(b)))
        monkeypatch.setattr("tqdm.std.time", time.time)
    assert_equal(*map(values, models))
    assert states[0].seconds > 0 and states[1].seconds > 0
    files = [sorted(p.name for p in (tmp_path / n / "checkpoints").iterdir()) for n in names]
    assert files[0] == files[1]


def test_an_endless_data_set_is_refused(make, rows):
    with pytest.raises(UserError, match="no known end"):
        train(make(), from_dataset(make_train_dataset(rows, 8).repeat()))


TRAIN_POINT = ("loss", "learning_rate", "gradient_norm", "examples_per_second", "tokens_per_second")


@pytest.fixture
def logged(make, rows, tmp_path) -> Path:
    """The folder, which was not there, of a training of three epochs of eight steps."""
    folder = tmp_path / "new" / "folder"
    train(
        make(),
        epochs(rows, 8, 3),
        optimizer=optimizer(24),
        evaluation=Evaluation(lambda: {"accuracy": 0.5, "per_class": {}}, "accuracy"),
        loop=LoopConfig(eval_steps=12),
        model_dir=ModelDir(str(folder)),
    )
    return folder


def curve_points(folder: Path) -> dict[str, dict[int, float]]:
    """Returns the points that TensorBoard shows, by `run/tag` and step."""
    curves: dict[str, dict[int, float]] = {}
    for run in ("train", "validation"):
        (file,) = (folder / run).iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                points = curves.setdefault(f"{run}/{value.tag}", {})
                assert event.step not in points
                points[event.step] = float(tf.make_ndarray(value.tensor))
    return curves


def test_curves_are_written(logged):
    curves = curve_points(logged)
    assert all(list(curves[f"train/{name}"]) == [10, 20] for name in TRAIN_POINT)
    assert list(curves["validation/accuracy"]) == [12, 24]


def test_the_log_has_a_line_for_each_point(logged):
    """The points of the curves, one JSON object a line, in the order in which they came."""
    text = (logged / "log.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["step"], line["epoch"], line["split"]) for line in lines] == [
        (10, 1.25, "train"),
        (12, 1.5, "validation"),
        (20, 2.5, "train"),
        (24, 3.0, "validation"),
    ]
    curves = curve_points(logged)
    place = {"step", "epoch", "split"}
    for line in lines:
        numbers = {name: value for name, value in line.items() if name not in place}
        expected = TRAIN_POINT if line["split"] == "train" else ("accuracy",)
        assert set(numbers) == set(expected)
        assert all(type(value) is float for value in numbers.values())
        for name, value in numbers.items():
            shown = curves[f"{line['split']}/{name}"][line["step"]]
            assert shown == pytest.approx(value, rel=1e-6)


@pytest.fixture
def saved(make, rows, tmp_path):
    """Three checkpoints of one training."""
    folder = str(tmp_path / "checkpoints")
    model = make()
    train(
        model,
        epochs(rows, 8, 2),
        optimizer=optimizer(16),
        loop=LoopConfig(save_checkpoints_steps=4, keep_checkpoint_max=3),
        model_dir=ModelDir(str(tmp_path)),
    )
    return model, folder


def damage(path: str) -> None:
    with open(path + ".data-00000-of-00001", "r+b") as file:
        file.truncate(100)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, make, capsys):
    model, folder = saved
    assert [os.path.basename(p) for p in find(folder, "step")] == ["step-8", "step-12", "step-16"]
    damage(find(folder, "step")[-1])
    assert Checkpoints(folder, model.variables, model.optimizer, 2, ALONE).restore()["step"] == 12
    assert "step-16" in capsys.readouterr().err


def test_without_a_whole_checkpoint_the_training_stops(saved):
    model, folder = saved
    for path in find(folder, "step"):
        damage(path)
    with pytest.raises(UserError, match=r"(?s)no checkpoint can be read.*step-16.*--overwrite"):
        Checkpoints(folder, model.variables, model.optimizer, 2, ALONE).restore()


def test_another_models_weights_are_refused(saved, tiny_bert_dir):
    _, folder = saved
    three = Problem("single_label", ("text",), ("a", "b", "c"))
    other = build_classifier(load_encoder(str(tiny_bert_dir)), three).model
    with pytest.raises(UserError, match="cannot be loaded"):
        load_weights(other, folder)


def test_a_full_disk_loses_nothing(make, rows, small_disk):
    with pytest.raises(
        UserError, match=r"(?s)cannot be written.*No space left.*last good.*step-8.*Free disk"
    ):
        train(
            make(),
            epochs(rows, 8, 2),
            optimizer=optimizer(16),
            loop=LoopConfig(save_checkpoints_steps=4, keep_checkpoint_max=5),
            model_dir=ModelDir(str(small_disk)),
        )
    folder = small_disk / "checkpoints"
    whole = {os.path.basename(path) for path in find(str(folder), "step")}
    assert whole == {"step-4", "step-8"}
    assert {path.name.split(".")[0] for path in folder.iterdir()} == whole
    resumed = make()
    resumed.optimizer = optimizer(16)
    resumed.optimizer.build(resumed.trainable_variables)
    assert (
        Checkpoints(str(folder), resumed.variables, resumed.optimizer, 2, ALONE).restore()["step"]
        == 8
    )


def next_token_model() -> keras.Model:
    """Guesses the next token from this one; the table stands for a frozen base."""
    keras.utils.set_random_seed(5)
    ids = keras.Input((None,), dtype="int32")
    table = keras.layers.Embedding(11, 8, trainable=False, name="base")
    model = keras.Model(ids, keras.layers.Dense(11, name="adapter")(table(ids)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    model.compile("sgd", loss)
    model.checkpoint_variables = lambda: model.get_layer("adapter").variables
    return model


def test_weights_of_tokens_count_rows_and_divide_by_targets():
    """Rows [1, 1, 0], [1, 0, 0] and [0, 0, 0]: two examples, three targets."""
    ids = np.arange(9, dtype=np.int32).reshape(3, 3)
    weights = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    batches = tf.data.Dataset.from_tensors((ids, ids + 1, weights))
    model = next_token_model()
    losses = model.loss.call(ids + 1, model(ids)).numpy()
    expected = float((losses * weights).sum() / 3)
    model.loss.measures = {"one": lambda labels, outputs: tf.ones_like(labels, tf.float32)}
    model.loss.measures["next"] = lambda labels, outputs: tf.cast(labels, tf.float32)
    loop = make_train_loop(model, Runtime())
    model.optimizer.build(model.trainable_variables)
    found = loop(iter(batches), tf.constant(1))
    assert float(found.losses[0]) == pytest.approx(expected, rel=1e-6)
    assert float(found.counts.examples) == 2 and float(found.counts.targets) == 3
    assert float(found.measures["one"]) == pytest.approx(1)
    assert float(found.measures["next"]) == pytest.approx((1 + 2 + 4) / 3)


@pytest.mark.parametrize("slices", [1, 2])
def test_every_example_counts_alike_whatever_is_in_its_batch(slices):
    """A batch of four pieces of one example beside one of four examples; the loss is linear."""
    values = np.array([[1, 2, 3, 6], [10, 20, 30, 40]], np.float32)[..., np.newaxis]
    weights = np.array([[0.25] * 4, [1] * 4], np.float32)
    mean = np.mean([3, 10, 20, 30, 40])
    for row_weight, expected in ((5 / 8, 2 * mean), (None, 3 + 25)):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.loss = SimpleNamespace(call=lambda labels, outputs: outputs[:, 0])
        model.optimizer = keras.optimizers.SGD(1.0)
        model.optimizer.build(model.trainable_variables)
        before = float(model.get_weights()[0][0, 0])
        loop = make_train_loop(model, Runtime(), no_tokens, slices, row_weight)
        batches = tf.data.Dataset.from_tensor_slices((values, values, weights))
        found = loop(iter(batches), tf.constant(2))
        moved = before - float(model.get_weights()[0][0, 0])
        assert moved == pytest.approx(expected, rel=1e-5)
        assert float(found.counts.examples) == (5 if row_weight else 8)
        assert float(found.counts.targets) == 8


def test_a_frozen_base_need_not_be_in_the_checkpoints(tmp_path):
    ids = np.arange(8, dtype=np.int32).reshape(4, 2)
    batches = tf.data.Dataset.from_tensors((ids, ids + 1, np.ones((4, 2), np.float32))).repeat(3)
    model = next_token_model()
    directory = ModelDir(str(tmp_path))
    train(model, from_dataset(batches), optimizer=optimizer(3), model_dir=directory)
    (path,) = find(str(tmp_path / "checkpoints"), "step")
    shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    assert [8, 11] in shapes.values() and [11, 8] not in shapes.values()
    fresh = next_token_model()
    load_weights(fresh, str(tmp_path / "checkpoints"))
    assert_equal(values(fresh), values(model))


def test_the_time_left_is_reckoned_without_the_first_step(monkeypatch):
    """A first step of a minute, then one a second: the bar says some 98 seconds, not hours."""
    now = [0.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    scalars = dict.fromkeys(("loss", "learning_rate", "examples_per_second"), 1.0)
    progress = Progress(100, 100, 0, None)
    for step, seconds in enumerate((60.0, 1.0, 1.0), start=1):
        now[0] += seconds
        progress.steps(step, scalars, first=step == 1)
    rate = progress.bar.format_dict["rate"] or 1.0
    assert rate == pytest.approx(1.0, rel=0.1)
    progress.close()
