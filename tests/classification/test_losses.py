import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tf_finetune.classification.losses import LogitsLoss, balanced_class_weights, constant_logits

LOGITS = np.random.default_rng(0).normal(0, 3, (6, 4)).astype("f")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_label_equals_keras(smoothing):
    labels = np.array([0, 3, 1, 1, 2, 0])
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    expected = float(theirs(np.eye(4)[labels], LOGITS))
    assert float(LogitsLoss("single_label", smoothing)(labels, LOGITS)) == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_several_labels_equal_keras(smoothing):
    labels = (LOGITS > 1).astype("f")
    theirs = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
    expected = float(theirs(labels, LOGITS))
    assert float(LogitsLoss("multi_label", smoothing)(labels, LOGITS)) == pytest.approx(expected)


def test_a_number_has_the_squared_error():
    values = np.array([1.0, 2.0, 5.0], "f")
    loss = LogitsLoss("regression")(values, np.array([[1.0], [4.0], [4.0]], "f"))
    assert float(loss) == pytest.approx((0 + 4 + 1) / 3)


def test_bfloat16_logits_are_widened():
    labels = np.array([0])
    narrow = keras.ops.cast(LOGITS[:1], "bfloat16")
    loss = LogitsLoss("single_label").call(labels, narrow)
    assert loss.dtype == "float32"


def test_class_weights_scale_each_example():
    labels = np.array([0, 3, 1, 1, 2, 0])
    weights = (1.0, 2.0, 3.0, 4.0)
    plain = np.array(LogitsLoss("single_label").call(labels, LOGITS))
    weighted = np.array(LogitsLoss("single_label", class_weights=weights).call(labels, LOGITS))
    np.testing.assert_allclose(weighted, plain * np.array(weights)[labels], rtol=1e-6)


def test_class_weights_scale_the_positives_of_several_labels():
    labels = (LOGITS > 1).astype("f")
    weights = (1.0, 2.0, 3.0, 4.0)
    probabilities = 1 / (1 + np.exp(-LOGITS.astype("d")))
    expected = -(
        labels * np.array(weights) * np.log(probabilities)
        + (1 - labels) * np.log(1 - probabilities)
    ).mean(axis=1)
    loss = LogitsLoss("multi_label", class_weights=weights).call(labels, LOGITS)
    np.testing.assert_allclose(np.array(loss), expected, rtol=1e-5)


def test_balanced_weights_equal_scikit_learn():
    labels = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_class_weights(labels, 3), expected)


def test_a_label_that_never_occurs_weighs_one():
    assert balanced_class_weights(np.array([0, 1]), 3)[2] == 1.0
    several = np.array([[1, 0], [1, 0], [0, 0]], "f")
    assert balanced_class_weights(several, 2) == (0.5, 1.0)


def test_config_gives_the_loss_back():
    loss = LogitsLoss("single_label", 0.1, (1.0, 2.0))
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("problem_type", "weights"),
    [("multi_label", ()), ("multi_label", (1.0, 2.0, 0.5, 3.0)), ("regression", ())],
)
def test_no_other_constant_logits_have_a_lower_loss(problem_type, weights):
    """Up to the one that is added to each count, which 3,000 rows make small."""
    random = np.random.default_rng(0)
    labels = {
        "multi_label": (random.random((3000, 4)) < (0.05, 0.2, 0.5, 0.9)).astype("f"),
        "regression": random.normal(3.5, 1.0, 3000).astype("f"),
    }[problem_type]

    def loss(logits):
        rows = np.tile(np.array(logits, "f"), (3000, 1))
        return np.array(LogitsLoss(problem_type, 0.0, weights).call(labels, rows)).mean()

    best = np.array(constant_logits(labels, problem_type, weights))
    for index in range(len(best)):
        for change in (-0.1, 0.1):
            assert loss(best + change * (np.arange(len(best)) == index)) > loss(best)


def test_constant_logits_of_a_label_that_never_occurs_are_finite():
    assert np.isfinite(constant_logits(np.zeros([2, 3], "f"), "multi_label")).all()


def test_constant_logits_of_a_label_that_every_row_has_are_finite():
    labels = np.array([[1, 0], [1, 1], [1, 0]], "f")
    weights = balanced_class_weights(labels, 2)
    assert np.isfinite(constant_logits(labels, "multi_label", weights)).all()


def test_one_label_each_starts_at_no_bias():
    assert constant_logits(np.array([0, 0, 1]), "single_label") == ()
