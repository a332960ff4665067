"""The products of adapters against the matrices that they stand for."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.models.linear import Linear, linear_products
from tf_finetune.models.lora import Lora

MODULES = {"attn.query": 5, "attn.key": 3, "attn.value": 4}
INPUTS = 7


def make_linear(lora: Lora, **options: object) -> Linear:
    """With random weights, B too."""
    linear = Linear(INPUTS, MODULES, biased=tuple(MODULES), lora=lora, **options)
    linear.build()
    random = np.random.default_rng(0)
    for variable in linear.weights:
        variable.assign(random.normal(0, 0.5, variable.shape))
    return linear


@pytest.mark.parametrize(
    "lora",
    [
        Lora(rank=2, alpha=6),
        Lora(rank=4, alpha=6, rslora=True),
        Lora(rank=2, alpha=1, targets=("key",)),
        Lora(rank=3, alpha=3, targets=("attn.query", "value")),
    ],
)
def test_product_and_gradients_equal_the_merged_matrix(lora: Lora) -> None:
    linear = make_linear(lora)
    rows, weight = (tf.random.stateless_normal((6, n), [1, n]) for n in (INPUTS, 12))
    scaling = lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)
    factors = [factor.value for adapter in linear.adapters.values() for factor in adapter]
    watched = [rows, *factors]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(watched)
        ours = tf.add_n(
            [
                part + tf.zeros((6, 12))
                for part in linear_products(rows, linear.tensors(), linear.form)
            ]
        )
        columns = [
            scaling * tf.matmul(*linear.adapters[name])
            if name in linear.adapters
            else tf.zeros((INPUTS, size))
            for name, size in MODULES.items()
        ]
        merged = tf.convert_to_tensor(linear.kernel) + tf.concat(columns, axis=1)
        expected = tf.matmul(rows, merged) + linear.bias
        losses = [tf.reduce_sum(result**2 * weight) for result in (ours, expected)]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    for own, other in zip(*(tape.gradient(loss, watched) for loss in losses), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)
    assert {variable.path for variable in linear.trainable_variables} == {
        factor.path for adapter in linear.adapters.values() for factor in adapter
    }


def test_initial_values_are_those_of_peft() -> None:
    keras.utils.set_random_seed(0)
    linear = Linear(1000, {"query": 8}, lora=Lora(rank=16, alpha=32))
    linear.build()
    a, b = (np.array(factor) for factor in linear.adapters["query"])
    bound = 1 / math.sqrt(1000)
    assert np.abs(a).max() <= bound
    # Uniform: a third of the square of its bound.
    np.testing.assert_allclose((a**2).mean(), bound**2 / 3, rtol=0.05)
    assert not b.any()


def test_dropout_takes_from_the_adapters_alone_and_keeps_the_mean() -> None:
    linear = make_linear(Lora(rank=2, alpha=4, dropout=0.3))
    rows = tf.ones((20_000, INPUTS))
    product, low_rank, _ = linear_products(
        rows, linear.tensors(), linear.form, tf.constant(0.3), tf.constant([1, 2])
    )
    whole, undropped, _ = linear_products(rows, linear.tensors(), linear.form)
    np.testing.assert_array_equal(product, whole)
    deviation = np.std(low_rank, axis=0) / math.sqrt(len(rows))
    assert (np.abs(np.mean(low_rank, axis=0) - undropped[0]) < 5 * deviation).all()
    assert deviation.min() > 0


@pytest.mark.parametrize("module", ["query", "attn.query", "y", "ttn.query", "attn"])
def test_a_target_is_the_end_of_a_name_at_a_dot(module: str) -> None:
    chosen = Lora(rank=1, alpha=1, targets=(module,)).selects("attn.query")
    assert chosen == (module in ("query", "attn.query"))
