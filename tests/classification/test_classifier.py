import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.thorough import mostly
from tf_finetune.classification.classifier import build_classifier
from tf_finetune.classification.config import EncoderConfig
from tf_finetune.classification.heads import HEADS, Pooling
from tf_finetune.classification.load import load_classifier
from tf_finetune.classification.losses import balanced_class_weights, constant_logits
from tf_finetune.classification.tokenize import tokenize
from tf_finetune.data.batches import make_eval_dataset, make_train_dataset
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.formats.encoders import load_encoder

PROBLEM = Problem("single_label", ("text",), ("bad", "good"))
TEXTS = ["a good film", "a bad film", "great plot", "very boring", "good", "bad movie the end"]
LABELS = np.array([1, 0, 1, 0, 1, 0], np.int32)


@pytest.fixture
def encoder(tiny_bert_dir):
    return load_encoder(str(tiny_bert_dir))


@pytest.fixture
def rows(encoder):
    return tokenize(Examples((TEXTS,), LABELS), encoder.preprocessor, 32)


def build(encoder, config=EncoderConfig(), **more) -> keras.Model:
    return build_classifier(encoder, PROBLEM, config, **more).model


def features(rows):
    return next(iter(make_eval_dataset(rows, 6)))[0]


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("pooling", ["pooled", "cls", "mean", "max"])
def test_every_head_and_pooling_gives_logits(encoder, rows, head, pooling):
    model = build(encoder, EncoderConfig(head=head, pooling=pooling))
    logits = model(features(rows))
    assert logits.shape == (6, 2) and logits.dtype == "float32"
    assert np.ptp(np.array(logits), axis=0).min() > 0


MULTI = Problem("multi_label", ("text",), ("usual", "rare"))
# Of 100 rows 95 have the one label and 9 the other.
SHARES = np.stack([np.arange(100) < 95, np.arange(100) < 9], axis=1).astype(np.float32)


@pytest.mark.parametrize("head", list(HEADS))
def test_logits_start_at_the_output_bias(encoder, rows, head):
    """An untrained head of small kernels says little more than its biases."""
    numbers = np.array([2.0, 3.0, 4.0], np.float32)
    for problem, labels, start in (
        (MULTI, SHARES, [np.log(96 / 6), np.log(10 / 92)]),
        (Problem("regression", ("text",)), numbers, [3.0]),
        # Of one label each it is nothing, whatever their shares.
        (PROBLEM, np.array([1] * 95 + [0] * 5), [0.0, 0.0]),
    ):
        config = EncoderConfig(head=head)
        model = build_classifier(encoder, problem, config, labels=labels).model
        np.testing.assert_allclose(model.get_layer("head").logits.bias.numpy(), start, rtol=1e-6)
        logits = np.array(model(features(rows)))
        np.testing.assert_allclose(logits, [start] * 6, atol=0.5)


def test_a_new_head_begins_as_in_transformers():
    head = HEADS["linear"](num_outputs=300)
    head.build((None, 200))
    kernel = head.logits.kernel.numpy()
    assert abs(kernel.std() - 0.02) < 0.0004 and abs(kernel.mean()) < 0.0004
    # A normal distribution is not cut: 4.6 % lie beyond two deviations.
    assert 0.04 < np.mean(np.abs(kernel) > 0.04) < 0.05


def test_without_labels_logits_start_at_nothing(encoder):
    model = build_classifier(encoder, MULTI).model
    assert model.get_layer("head").logits.bias.numpy().tolist() == [0.0, 0.0]


def test_a_classifier_answers_in_the_order_of_the_texts(encoder):
    classifier = build_classifier(encoder, PROBLEM, max_seq_length=16)
    alone = [classifier.predict([text]).logits[0] for text in TEXTS]
    for texts in (TEXTS, [TEXTS], (TEXTS,)):
        found = classifier.predict(texts, batch_size=4)
        np.testing.assert_allclose(found.logits, alone, atol=1e-5)
    assert len(classifier.predict([])) == 0
    with pytest.raises(UserError, match="text columns text"):
        classifier.predict([TEXTS, TEXTS])


def test_examples_without_labels_are_not_evaluated(encoder):
    with pytest.raises(UserError, match="no labels"):
        build_classifier(encoder, PROBLEM, max_seq_length=16).evaluate(Examples((TEXTS,)))


@pytest.mark.parametrize("mode", ["native", "saved_model"])
def test_a_saved_classifier_is_loaded_as_it_was(tiny_hub_dir, tmp_path, mode):
    problem = dataclasses.replace(MULTI, threshold=0.3)
    config = EncoderConfig(head="mlp", dropout=0.2)
    encoder = load_encoder(str(tiny_hub_dir / "encoder"), mode=mode)
    saved = build_classifier(encoder, problem, config, max_seq_length=9)
    folder = str(tmp_path / "model")
    saved.save(folder)
    loaded = load_classifier(folder)
    assert loaded.problem == problem and loaded.max_seq_length == 9
    assert loaded.config == saved.config and loaded.encoder.mode == mode
    texts = [text * 5 for text in TEXTS]
    expected = saved.predict(texts)
    np.testing.assert_allclose(loaded.predict(texts).logits, expected.logits, atol=1e-5)
    assert loaded.predict(texts).labels == expected.labels
    with pytest.raises(UserError, match="a model is there already"):
        saved.save(folder)


def test_class_weights_are_those_of_the_training_labels(encoder):
    labels = np.array([0] * 30 + [1] * 10, np.int32)
    for class_weights, expected in (("balanced", balanced_class_weights(labels, 2)), ("none", ())):
        model = build(encoder, EncoderConfig(class_weights=class_weights), labels=labels)
        assert model.loss.class_weights == expected
    assert balanced_class_weights(labels, 2) == pytest.approx((2 / 3, 2.0))
    # Of several labels the weights change what the biases start at.
    config = EncoderConfig(class_weights="balanced")
    model = build_classifier(encoder, MULTI, config, labels=SHARES).model
    weights = balanced_class_weights(SHARES, 2)
    assert model.loss.class_weights == weights
    start = constant_logits(SHARES, "multi_label", weights)
    assert start != constant_logits(SHARES, "multi_label")
    np.testing.assert_allclose(model.get_layer("head").logits.bias.numpy(), start, rtol=1e-6)


def test_the_loss_is_smoothed_as_asked(encoder):
    model = build(encoder, EncoderConfig(label_smoothing_factor=0.1))
    assert model.loss.label_smoothing == 0.1


def test_a_head_without_a_bias_of_that_size_stays_as_it_is(encoder, rows):
    class Plain(keras.layers.Layer):
        def build(self, shape):
            self.logits = keras.layers.Dense(2, use_bias=False)
            self.logits.build(shape)

        def call(self, features):
            return self.logits(features)

    head = Plain(name="head")
    classifier = build_classifier(encoder, MULTI, head=head, labels=SHARES)
    assert classifier.model(features(rows)).shape == (6, 2)
    assert classifier.model.get_layer("head") is head
    assert classifier.config.has_own_head and classifier.config.head.endswith("Plain")


def test_a_bias_of_another_size_stays_as_it_is(encoder, rows):
    class Wide(keras.layers.Layer):
        """Its layer `logits` is one wider than its logits."""

        def build(self, shape):
            self.logits = keras.layers.Dense(3, bias_initializer="ones")
            self.logits.build(shape)

        def call(self, features):
            return self.logits(features)[:, :2]

    classifier = build_classifier(encoder, MULTI, head=Wide(name="head"), labels=SHARES)
    bias = classifier.model.get_layer("head").logits.bias.numpy()
    assert bias.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("mode", "expected"), [("mean", [2.0, 3.0]), ("max", [3.0, 4.0]), ("cls", [1.0, 2.0])]
)
def test_pooling_leaves_padding_out(mode, expected):
    sequence = tf.constant([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    pooled = Pooling(mode)({"sequence_output": sequence}, input_mask=tf.constant([[1, 1, 0]]))
    np.testing.assert_allclose(np.array(pooled), [expected])


def test_is_an_ordinary_keras_model(encoder, rows, tmp_path):
    model = build(encoder)
    history = model.fit(make_train_dataset(rows, 3, num_epochs=2), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    results = model.evaluate(make_eval_dataset(rows, 4), return_dict=True, verbose=0)
    assert set(results) == {"loss", "accuracy"}
    logits = model.predict(make_eval_dataset(rows, 6), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(features(rows), verbose=0), logits, atol=1e-5)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()


def test_weights_of_zero_do_not_count_in_keras_evaluation(encoder, rows):
    model = build(encoder)
    whole = model.evaluate(make_eval_dataset(rows, 6), return_dict=True, verbose=0)
    parts = model.evaluate(make_eval_dataset(rows, 4), return_dict=True, verbose=0)
    assert parts["accuracy"] == pytest.approx(whole["accuracy"])


@pytest.mark.parametrize(
    ("freeze", "frozen_blocks"), [("none", 0), ("embeddings", 1), ("first_1_layers", 2)]
)
def test_frozen_layers_stay_as_they_are(encoder, rows, freeze, frozen_blocks):
    model = build(encoder, EncoderConfig(freeze=freeze))
    before = [[w.numpy() for layer in block for w in layer.weights] for block in encoder.blocks]
    model.optimizer.learning_rate = 0.01
    model.fit(make_train_dataset(rows, 6), verbose=0)
    after = [[w.numpy() for layer in block for w in layer.weights] for block in encoder.blocks]
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        same = all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))
        assert same == (index < frozen_blocks)


def test_a_frozen_encoder_leaves_the_head_to_train(encoder, rows):
    model = build(encoder, EncoderConfig(freeze="encoder"))
    assert {v.path.split("/")[0] for v in model.trainable_variables} == {"head"}


def test_freezing_starts_from_a_trainable_encoder(encoder):
    build(encoder, EncoderConfig(freeze="encoder"))
    less = build(encoder, EncoderConfig(freeze="embeddings"))
    assert any("layer_0" in variable.path for variable in less.trainable_variables)
    assert not any("embedding" in variable.path for variable in less.trainable_variables)


def test_freezing_more_layers_than_there_are_is_refused(encoder):
    with pytest.raises(UserError, match="has 2 layers"):
        build(encoder, EncoderConfig(freeze="first_3_layers"))


HEAD_MODULE = """
import keras

class TwoLayers(keras.layers.Layer):
    def __init__(self, num_outputs, dropout, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(num_outputs)])

    def build(self, shape):
        self.inner.build(shape)

    def call(self, features):
        return self.inner(features)

class TooWide(keras.layers.Dense):
    def __init__(self, num_outputs, dropout, **kwargs):
        super().__init__(num_outputs + 1, **kwargs)

not_a_layer = 3
"""


def test_own_head_from_a_module(encoder, rows, tmp_path, monkeypatch):
    (tmp_path / "own_head.py").write_text(HEAD_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = build(encoder, EncoderConfig(head="own_head:TwoLayers"))
    assert model(features(rows)).shape == (6, 2)
    with pytest.raises(UserError, match=r"\(None, 3\)"):
        build(encoder, EncoderConfig(head="own_head:TooWide"))
    with pytest.raises(UserError, match="not a Keras layer"):
        build(encoder, EncoderConfig(head="own_head:not_a_layer"))
    with pytest.raises(UserError, match="no_such_module"):
        build(encoder, EncoderConfig(head="no_such_module:Head"))


@pytest.mark.parametrize("policy", mostly("mixed_bfloat16", others=["mixed_float16"]))
def test_mixed_precision_keeps_logits_and_weights_float32(tiny_bert_dir, rows, policy):
    keras.config.set_dtype_policy(policy)
    model = build(load_encoder(str(tiny_bert_dir)))
    assert model.get_layer("encoder").compute_dtype == policy.removeprefix("mixed_")
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert model(features(rows)).dtype == "float32"
    loss = model.fit(make_train_dataset(rows, 6, num_epochs=3), verbose=0).history["loss"]
    assert np.isfinite(loss).all()
