import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.runs.config import OptimizerConfig
from tf_finetune.training.optimizer import AdamW, WarmupDecay, build_optimizer, decays, layer_rates


def variables() -> list[keras.Variable]:
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    layer.kernel.assign(np.arange(6).reshape(2, 3) / 10)
    layer.bias.assign([0.1, 0.2, 0.3])
    return [layer.kernel, layer.bias]


def adamw(weight, gradients, rate, decay, b1=0.9, b2=0.999, eps=1e-8):
    """Loshchilov & Hutter (2019), algorithm 2."""
    m = v = 0.0
    for t, gradient in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * gradient**2
        update = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        weight = weight * (1 - rate * decay) - rate * update
    return weight


# With gradients near epsilon the place where it is added shows.
@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_update_is_the_papers_and_biases_do_not_decay(scale):
    kernel, bias = variables()
    start = [v.numpy() for v in (kernel, bias)]
    optimizer = AdamW(0.01, weight_decay=0.1, max_grad_norm=0)
    rng = np.random.default_rng(0)
    gradients = [
        [(scale * rng.normal(size=v.shape)).astype("f") for v in (kernel, bias)] for _ in range(5)
    ]
    for pair in gradients:
        optimizer.apply([tf.constant(g) for g in pair], [kernel, bias])
    expected = adamw(start[0], [g[0] for g in gradients], 0.01, 0.1)
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-5)
    expected = adamw(start[1], [g[1] for g in gradients], 0.01, 0.0)
    np.testing.assert_allclose(bias.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("encoder/layer_0/output/kernel", True),
        ("encoder/layer_0/output/bias", False),
        ("encoder/embeddings/norm/gamma", False),
        # A wrapped SavedModel's, with whatever was before the last part.
        ("encoder/transformer_layer_0_output_layer_norm_beta", False),
        ("encoder/pooler_transform_bias:0", False),
        ("encoder/word_embeddings_embeddings", True),
    ],
)
def test_biases_and_norms_do_not_decay_by_any_name(path, expected):
    assert decays(path) == expected


def test_equals_keras_adamw():
    ours, theirs = variables(), variables()
    gradients = [tf.ones((2, 3)), tf.constant([0.5, -2.0, 0.0])]
    mine = AdamW(0.01, weight_decay=0.05, max_grad_norm=0.5)
    keras_own = keras.optimizers.AdamW(0.01, weight_decay=0.05, epsilon=1e-8, global_clipnorm=0.5)
    keras_own.exclude_from_weight_decay(var_names=["bias"])
    for _ in range(4):
        mine.apply(gradients, ours)
        keras_own.apply(gradients, theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)
    norm = np.sqrt(6 + 0.25 + 4)
    assert float(mine.gradient_norm) == pytest.approx(norm, rel=1e-6)


def test_sparse_gradients_equal_dense_ones():
    dense, sparse = variables()[0], variables()[0]
    rows = tf.IndexedSlices(tf.ones((3, 3)), tf.constant([1, 1, 0]), tf.constant([2, 3]))
    AdamW(0.01).apply([tf.convert_to_tensor(rows)], [dense])
    optimizer = AdamW(0.01)
    optimizer.apply([rows], [sparse])
    np.testing.assert_array_equal(dense.numpy(), sparse.numpy())
    # A row that comes twice counts once, with the sum.
    assert float(optimizer.gradient_norm) == pytest.approx(15**0.5)


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_schedule_follows_its_formula(decay):
    schedule = WarmupDecay(2.0, total_steps=100, warmup_steps=10, decay=decay)
    for step in range(100):
        done = (step - 10) / 90
        after = {"linear": 1 - done, "cosine": (1 + np.cos(np.pi * done)) / 2, "constant": 1.0}
        expected = 2 * (step + 1) / 10 if step < 10 else 2 * after[decay]
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-5)


def test_schedule_without_warmup_starts_at_the_peak():
    assert float(WarmupDecay(1.0, 10, 0, "linear")(0)) == 1.0


def test_lower_layers_learn_at_lower_rates():
    layers = [keras.layers.Dense(2, name=f"layer_{i}") for i in range(3)]
    head = keras.layers.Dense(2, name="head")
    model = keras.Sequential([keras.Input((2,)), *layers, head])
    rates = layer_rates([[layer] for layer in layers], 0.5)
    assert [rates[layer.kernel.path] for layer in layers] == [0.125, 0.25, 0.5]
    config = OptimizerConfig(learning_rate=1.0, weight_decay=0.0)
    optimizer = build_optimizer(None, config, layer_rates=rates)
    before = [layer.kernel.numpy() for layer in (*layers, head)]
    optimizer.apply(
        [tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables
    )
    moved = [
        float(np.abs(layer.kernel.numpy() - b).max())
        for layer, b in zip((*layers, head), before, strict=True)
    ]
    np.testing.assert_allclose(moved, [0.125, 0.25, 0.5, 1.0], rtol=1e-3)


def test_config_gives_the_optimizer_back():
    config = OptimizerConfig(learning_rate=3e-5)
    optimizer = build_optimizer(10, config, layer_rates={"a/kernel": 0.5})
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert copy.get_config() == optimizer.get_config()
    assert isinstance(copy, AdamW) and copy.layer_rates == {"a/kernel": 0.5}
