"""Adapters beside the weights of a BERT: what they compute, what they train, how they merge."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.models import bert_layers
from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.bert_weights import make_bert, read_bert
from tf_finetune.models.encoder_weights import remake
from tf_finetune.models.lora import Lora

LORA = Lora(rank=3, alpha=6)
MODULES = (
    *("attention.self.query", "attention.self.key", "attention.self.value"),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
)


def make_encoder(lora: Lora | None = None, **options: Any) -> BertEncoder:
    """Two layers; the weights are random, the same whatever the adapters."""
    encoder = BertEncoder(50, 2, 2, 16, 24, 12, seed=1, dropout=0.0, **options)
    encoder.build()
    random = np.random.default_rng(0)
    for weight in encoder.weights:
        weight.assign(random.normal("gamma" in weight.path, 0.3, weight.shape))
    return encoder if lora is None else remake(encoder, lora)


def teach(encoder: BertEncoder) -> BertEncoder:
    """Gives the adapters values as if they had learnt."""
    random = np.random.default_rng(1)
    for layer in encoder.layers:
        for adapter in layer.adapters.values():
            adapter.b.assign(random.normal(0, 0.3, adapter.b.shape))
    return encoder


def make_inputs() -> dict[str, tf.Tensor]:
    random = np.random.default_rng(2)
    mask = np.arange(9) < np.array([[9], [4], [6]])
    arrays = random.integers(0, 50, (3, 9)), mask, mask & (np.arange(9) > 2)
    names = ("input_word_ids", "input_mask", "input_type_ids")
    return {n: tf.constant(a, tf.int32) for n, a in zip(names, arrays, strict=True)}


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-4) -> None:
    mask = make_inputs()["input_mask"].numpy().astype(bool)
    for name, cut in (("pooled_output", slice(None)), ("sequence_output", mask)):
        a, b = (np.array(tf.cast(outputs[name], tf.float32))[cut] for outputs in (ours, theirs))
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def test_adapters_begin_with_the_base() -> None:
    inputs = make_inputs()
    for training in (False, True):
        expected = make_encoder()(inputs, training=training)
        assert_same(make_encoder(LORA)(inputs, training=training), expected, 1e-6)


@pytest.mark.parametrize(
    "lora",
    [LORA, Lora(2, 5, targets=("key",), rslora=True), Lora(2, 5, targets=("query", "dense"))],
    ids=["all", "key", "query and dense"],
)
def test_merged_weights_compute_the_same(lora: Lora) -> None:
    inputs, encoder = make_inputs(), teach(make_encoder(lora))
    merged = remake(encoder, None)
    assert merged.lora is None and len(merged.weights) == len(make_encoder().weights)
    for training in (False, True):
        assert_same(encoder(inputs, training=training), merged(inputs, training=training))
    base, found = read_bert(make_encoder()), read_bert(encoder)
    changed = {name for name, value in base.items() if not np.array_equal(value, found[name])}
    assert changed == {
        f"transformer/layer_{number}/{name}/kernel"
        for number in range(2)
        for module, name in zip(
            MODULES,
            (
                *(f"self_attention/{part}" for part in ("query", "key", "value")),
                *("self_attention/attention_output", "intermediate", "output"),
            ),
            strict=True,
        )
        if lora.selects(module)
    }
    key = "transformer/layer_1/self_attention/key/kernel"
    if lora.selects("attention.self.key"):
        adapter = encoder.layers[1].adapters["attention.self.key"]
        delta = lora.scaling * np.matmul(adapter.a, adapter.b)
        np.testing.assert_allclose(found[key] - base[key], delta, atol=1e-6)


def test_adapters_and_the_pooler_alone_are_trained() -> None:
    encoder = make_encoder(LORA)
    trained = {id(variable) for variable in encoder.trainable_variables}
    adapters = [
        factor for layer in encoder.layers for pair in layer.adapters.values() for factor in pair
    ]
    assert trained == {id(variable) for variable in (*adapters, *encoder.pooler.weights)}
    assert len(adapters) == 2 * 2 * len(MODULES)
    assert tuple(encoder.layers[0].adapters) == MODULES
    frozen = {variable.dtype for variable in encoder.non_trainable_weights}
    assert frozen == {"float32"}  # Rounded weights could not be merged in float32.


def gradients(encoder: BertEncoder, output: str, jit_compile: bool = False) -> list[np.ndarray]:
    inputs = make_inputs()
    mask = tf.cast(inputs["input_mask"], tf.float32)[..., None]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            found = tf.cast(encoder(inputs, training=True)[output], tf.float32)
            shown = found * (mask if output == "sequence_output" else 1.0)
            loss = tf.reduce_sum(shown**2 * tf.linspace(-1.0, 1.0, 16))
        variables = [
            factor.value
            for layer in encoder.layers
            for adapter in layer.adapters.values()
            for factor in adapter
        ]
        return [loss, *tape.gradient(loss, variables)]

    return [np.array(part) for part in step()]


@pytest.mark.parametrize("output", ["pooled_output", "sequence_output"])
def test_gradients_are_those_of_the_merged_weights(output: str) -> None:
    """By the chain rule: dA = s·dW·Bᵀ, dB = s·Aᵀ·dW, with dW of the merged weights."""
    encoder = teach(make_encoder(LORA))
    loss, *found = gradients(encoder, output)
    merged, inputs = remake(encoder, None), make_inputs()
    mask = tf.cast(inputs["input_mask"], tf.float32)[..., None]
    with tf.GradientTape() as tape:
        shown = merged(inputs)[output] * (mask if output == "sequence_output" else 1.0)
        expected_loss = tf.reduce_sum(shown**2 * tf.linspace(-1.0, 1.0, 16))
    kernels = [dense.kernel.value for layer in merged.layers for dense in layer.products]
    by_kernels = [np.array(g) for g in tape.gradient(expected_loss, kernels)]
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)
    expected = []
    for number, layer in enumerate(encoder.layers):
        heads, *others = by_kernels[4 * number : 4 * number + 4]
        for by_kernel, adapter in zip(
            [*np.split(heads, 3, axis=1), *others], layer.adapters.values(), strict=True
        ):
            a, b = (np.array(factor) for factor in adapter)
            expected += [LORA.scaling * by_kernel @ b.T, LORA.scaling * a.T @ by_kernel]
    for own, other in zip(found, expected, strict=True):
        assert np.linalg.norm(own - other) <= 1e-3 * np.linalg.norm(other) + 1e-6


def test_a_step_compiled_whole_by_xla_has_the_same_gradients() -> None:
    encoder = teach(make_encoder(LORA))
    compiled, plain = (gradients(encoder, "sequence_output", jit) for jit in (True, False))
    for own, other in zip(compiled, plain, strict=True):
        assert np.linalg.norm(own - other) <= 1e-3 * np.linalg.norm(other) + 1e-6


def test_half_precision_is_close() -> None:
    inputs = make_inputs()
    encoder = teach(remake(make_encoder(dtype="mixed_bfloat16"), LORA))
    exact = make_bert(read_bert(encoder), num_heads=2, dropout=0.0, dtype="float32")(inputs)
    for training in (False, True):
        outputs = encoder(inputs, training=training)
        assert outputs["pooled_output"].dtype == tf.bfloat16
        assert_same(outputs, exact, 0.05)


def test_dropout_of_the_adapters_follows_the_seed_state() -> None:
    inputs = make_inputs()
    lora = Lora(3, 6, dropout=0.5)
    encoder = teach(make_encoder(lora))
    state = keras.ops.convert_to_numpy(encoder.seed_generator.state)
    first, second = (encoder(inputs, training=True)["sequence_output"].numpy() for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    encoder.seed_generator.state.assign(state)  # as a resume does
    np.testing.assert_array_equal(encoder(inputs, training=True)["sequence_output"], first)
    assert_same(encoder(inputs), remake(encoder, None)(inputs))


def test_no_two_products_drop_alike(monkeypatch) -> None:
    seeds = []
    products = bert_layers.linear_products
    monkeypatch.setattr(
        bert_layers,
        "linear_products",
        lambda *arguments: seeds.append(tuple(np.array(arguments[4]))) or products(*arguments),
    )
    encoder = make_encoder(Lora(3, 6, dropout=0.5))
    encoder.seed_generator.state.assign([7, 7])
    encoder(make_inputs(), training=True)
    # The last layer is called twice, for the first tokens and for all.
    first, last, again = seeds[:4], seeds[4:8], seeds[8:]
    assert last == again and len({*first, *last}) == 8
    # The first numbers after a step's seed are those of hidden rows and attention weights.
    assert all(abs(seed[0] - 7) > 2**16 for seed in seeds)


def test_a_saved_encoder_has_its_adapters(tmp_path: Path) -> None:
    encoder, inputs = teach(make_encoder(Lora(2, 5, 0.1, ("query", "output.dense")))), make_inputs()
    symbols = {name: keras.Input((None,), dtype="int32", name=name) for name in inputs}
    model = keras.Model(symbols, encoder(symbols)["sequence_output"])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)
    assert loaded.layers[-1].lora == encoder.lora
    assert "lora" not in make_encoder().get_config()
