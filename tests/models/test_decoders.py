"""What holds for the decoders of every family: packing, LoRA, precision, recomputation, traces."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.thorough import mostly
from tf_finetune.models import fused_decoder, gpt2_layer, llama_layer
from tf_finetune.models.gpt2 import GPT2Decoder
from tf_finetune.models.gpt2_config import GPT2Config
from tf_finetune.models.llama import LlamaDecoder
from tf_finetune.models.llama_config import LlamaConfig
from tf_finetune.models.lora import Lora
from tf_finetune.models.stored_weights import assign_weights

VOCABULARY, HIDDEN, LAYERS = 31, 24, 2
# Queries and keys in groups, biases, norms of heads, a window, a layer without RoPE.
LLAMA = LlamaConfig(
    VOCABULARY,
    HIDDEN,
    intermediate_size=40,
    num_layers=LAYERS,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
    qk_norm=True,
    windows=(None, 3),
    rope_layers=(True, False),
)
GPT2 = GPT2Config(
    VOCABULARY, HIDDEN, num_layers=LAYERS, num_heads=4, intermediate_size=40, max_positions=16
)
LORA = Lora(rank=3, alpha=6)

Maker = Callable[..., Any]


def make(network: type, config: Any, **options: Any) -> Any:
    """A decoder with random weights, the same for all options."""
    decoder = network(config, **options)
    decoder.build()
    random = np.random.default_rng(0)
    for part in decoder.stored():
        mean = 1.0 if part.variable.name == "gamma" else 0.0
        part.variable.assign(random.normal(mean, 0.3, part.variable.shape))
    return decoder


@pytest.fixture(params=["llama", "gpt2"])
def new_decoder(request) -> Maker:
    if request.param == "llama":
        return lambda **options: make(LlamaDecoder, LLAMA, **options)
    return lambda **options: make(GPT2Decoder, GPT2, **options)


def make_features(*rows: list[int], length: int = 12) -> dict[str, tf.Tensor]:
    """A row for each list of the lengths of its documents; random ids, then padding."""
    random = np.random.default_rng(1)
    features = {name: np.zeros((len(rows), length), int) for name in ("segments", "positions")}
    for number, documents in enumerate(rows):
        start = 0
        for segment, size in enumerate(documents, start=1):
            features["segments"][number, start : start + size] = segment
            features["positions"][number, start : start + size] = range(size)
            start += size
    features["token_ids"] = random.integers(0, VOCABULARY, (len(rows), length))
    return {name: tf.constant(value, tf.int32) for name, value in features.items()}


def random_adapters(decoder: Any) -> None:
    """Gives the adapters values as if they had learnt."""
    random = np.random.default_rng(2)
    for adapter in decoder.adapters.values():
        adapter.b.assign(random.normal(0, 0.2, adapter.b.shape))


def make_step(
    decoder: Any, training: bool = True, first: int = 0, **options: Any
) -> Callable[..., list[Any]]:
    """A step's loss and gradients; the loss sees real tokens alone, from the first on."""

    @tf.function(autograph=False, **options)
    def step(features: dict[str, Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            hidden = tf.cast(decoder(features, training=training), tf.float32)
            weights = tf.linspace(-1.0, 1.0, HIDDEN)
            real = tf.cast(features["segments"] > 0, tf.float32)[..., None]
            loss = tf.reduce_mean((real * hidden**2 * weights)[:, first:])
        found = tape.gradient(loss, [v.value for v in decoder.trainable_variables])
        return [loss, *(tf.convert_to_tensor(gradient) for gradient in found)]

    return step


def assert_close(ours: list[Any], theirs: list[Any], tolerance: float = 1e-4) -> None:
    for own, other in zip(ours, theirs, strict=True):
        error, size = np.linalg.norm(own - other), np.linalg.norm(other)
        assert error <= tolerance * size + 1e-7


def test_a_packed_row_gives_what_its_documents_give_alone(new_decoder) -> None:
    decoder, packed = new_decoder(), make_features([5, 3, 4])
    hidden = decoder(packed)[0]
    for start, size in ((0, 5), (5, 3), (8, 4)):
        alone = {name: value[:, start : start + size] for name, value in packed.items()}
        alone["segments"] = tf.ones((1, size), tf.int32)
        np.testing.assert_allclose(
            hidden[start : start + size], decoder(alone)[0], rtol=1e-4, atol=1e-5
        )


def test_padding_changes_nothing(new_decoder) -> None:
    decoder = new_decoder()
    features = make_features([7], [4, 2])
    short = {name: value[:, :7] for name, value in features.items()}
    for training in (False, True):
        long, cut = (decoder(f, training=training) for f in (features, short))
        np.testing.assert_allclose(long[0, :7], cut[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(long[1, :6], cut[1, :6], rtol=1e-4, atol=1e-5)


def test_no_token_sees_what_comes_after_it(new_decoder) -> None:
    decoder, features = new_decoder(), make_features([12])
    before = decoder(features)[0]
    ids = features["token_ids"].numpy()
    ids[0, 6] = (ids[0, 6] + 1) % VOCABULARY
    after = decoder({**features, "token_ids": tf.constant(ids)})[0]
    np.testing.assert_array_equal(before[:6], after[:6])
    assert (np.abs(before[6:] - after[6:]).max(axis=1) > 1e-4).all()


@pytest.mark.parametrize("lora", [None, LORA])
def test_gradients_of_the_kernels_equal_automatic_ones(new_decoder, lora) -> None:
    features = make_features([5, 3, 4], [9])
    decoder = new_decoder(lora=lora)
    random_adapters(decoder)
    kernels, plain = (make_step(decoder, training)(features) for training in (True, False))
    assert_close(kernels, plain)
    assert all(np.linalg.norm(gradient) > 0 for gradient in plain)


@pytest.mark.parametrize("lora", [None, LORA])
def test_gradient_checkpointing_changes_no_gradient(new_decoder, lora) -> None:
    features = make_features([5, 3, 4], [9])
    decoder = new_decoder(lora=lora)
    random_adapters(decoder)
    kept = make_step(decoder)(features)
    decoder.gradient_checkpointing = True
    assert_close(make_step(decoder)(features), kept)


@pytest.mark.parametrize(
    "options", mostly({}, {"lora": LORA}, others=[{"gradient_checkpointing": True}])
)
def test_what_all_rows_begin_with_is_computed_once_to_the_same(new_decoder, options) -> None:
    features = make_features([12], [9], [6])
    ids = features["token_ids"].numpy()
    ids[:, :5] = ids[0, :5]
    features["token_ids"] = tf.constant(ids)
    decoder = new_decoder(**options)
    random_adapters(decoder)
    whole = make_step(decoder, first=5)(features)
    expected = decoder(features, training=True)[:, 5:]
    decoder.prefix = tuple(ids[0, :5].tolist())
    assert_close(make_step(decoder, first=5)(features), whole)
    hidden = decoder(features, training=True)
    real = features["segments"].numpy()[:, 5:] > 0
    np.testing.assert_allclose(hidden[:, 5:][real], expected[real], rtol=1e-4, atol=1e-5)
    assert not hidden[:, :5].numpy().any()
    # What is not trained on may begin otherwise.
    assert decoder(features)[:, :5].numpy().any()


def test_gradient_checkpointing_keeps_less(new_decoder) -> None:
    """Between forward and backward a layer hands over its inputs alone."""

    def intermediates(checkpointing: bool) -> int:
        decoder = new_decoder(gradient_checkpointing=checkpointing)
        spec = {
            name: tf.TensorSpec((2, 12), tf.int32)
            for name in ("token_ids", "segments", "positions")
        }
        graph = make_step(decoder).get_concrete_function(spec).graph
        calls = [op for op in graph.get_operations() if "PartitionedCall" in op.type]
        return max(len(call.outputs) for call in calls)

    assert intermediates(True) < intermediates(False)


def test_adapters_begin_with_the_base(new_decoder) -> None:
    features = make_features([5, 3, 4], [9])
    base, decoder = new_decoder(), new_decoder(lora=LORA)
    for training in (False, True):
        expected = base(features, training=training)
        np.testing.assert_allclose(
            decoder(features, training=training), expected, rtol=1e-4, atol=1e-5
        )
    trained = {path.rpartition("/")[2] for path in (v.path for v in decoder.trainable_variables)}
    assert all(name.endswith(("_lora_a", "_lora_b")) for name in trained)
    random_adapters(decoder)
    assert np.abs(decoder(features) - expected).max() > 0.1


def test_adapters_equal_a_base_that_they_are_merged_into(new_decoder) -> None:
    features = make_features([5, 3, 4], [9])
    decoder, merged = new_decoder(lora=LORA), new_decoder()
    random_adapters(decoder)
    deltas = {
        f"{module}.weight": LORA.scaling * np.matmul(adapter.a, adapter.b)
        for module, adapter in decoder.adapters.items()
    }
    weights = {name: value for part in decoder.stored() for name, value in part.read()}
    transposed = {name: part.transposed for part in decoder.stored() for name in part.names}
    for name, delta in deltas.items():
        weights[name] = weights[name] + (delta.T if transposed[name] else delta)
    assign_weights(merged.stored(), weights.__getitem__)
    np.testing.assert_allclose(decoder(features), merged(features), rtol=1e-3, atol=1e-4)


def test_adapters_stand_beside_the_targets_alone(new_decoder) -> None:
    decoder = new_decoder(lora=LORA)
    modules = sorted({name.split(".", 3)[3] for name in decoder.adapters})
    target = modules[0].rpartition(".")[2]
    chosen = new_decoder(lora=Lora(rank=2, alpha=4, targets=(target,))).adapters
    assert {name for name in decoder.adapters if name.endswith(f".{target}")} == set(chosen)
    assert len(decoder.adapters) == LAYERS * len(modules)
    assert all(adapter.a.shape[1] == 2 == adapter.b.shape[0] for adapter in chosen.values())


def test_dropout_is_the_adapters_alone(new_decoder) -> None:
    features = make_features([5, 3, 4], [9])
    decoder = new_decoder(lora=Lora(rank=3, alpha=6, dropout=0.5), seed=1)
    plain = decoder(features)
    np.testing.assert_allclose(decoder(features, training=True), plain, rtol=1e-4, atol=1e-5)
    random_adapters(decoder)
    state = keras.ops.convert_to_numpy(decoder.seed_generator.state)
    first, second = (decoder(features, training=True).numpy() for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    decoder.seed_generator.state.assign(state)  # as a resume does
    np.testing.assert_array_equal(decoder(features, training=True), first)
    np.testing.assert_array_equal(decoder(features), decoder(features))


@pytest.mark.parametrize("options", [{"lora": LORA}, {"trainable": False}], ids=["lora", "frozen"])
def test_frozen_weights_are_kept_as_they_are_used(new_decoder, options) -> None:
    decoder = new_decoder(dtype="mixed_bfloat16", **options)
    dtypes = {part.variable.dtype for part in decoder.stored() if part.variable.ndim > 1}
    assert dtypes == {"bfloat16"}
    norms = {part.variable.dtype for part in decoder.stored() if part.variable.name == "gamma"}
    assert norms == {"float32"}
    assert {variable.dtype for variable in decoder.trainable_variables} <= {"float32"}
    assert not {part.variable.path for part in decoder.stored() if part.variable.trainable}
    trained = new_decoder(dtype="mixed_bfloat16")
    assert {part.variable.dtype for part in trained.stored()} == {"float32"}


@pytest.mark.parametrize("lora", [None, LORA])
def test_half_precision_is_close(new_decoder, lora) -> None:
    features = make_features([5, 3, 4], [9])
    real = features["segments"].numpy() > 0
    exact = new_decoder()(features).numpy()[real]
    decoder = new_decoder(lora=lora, dtype="mixed_bfloat16")
    for training in (False, True):
        hidden = decoder(features, training=training)
        assert hidden.dtype == tf.bfloat16
        error = np.linalg.norm(tf.cast(hidden, tf.float32).numpy()[real] - exact)
        assert error < 0.02 * np.linalg.norm(exact)


def split_heads(*products: Any) -> Any:
    angles = tf.ones((1, ROWS, 1))
    options = {"num_kv_heads": 1, "head_dim": 2, "num_norms": 0, "rotates": False, "epsilon": 0.1}
    parts = fused_decoder.fused_split_heads(angles, angles, *products, **options)
    return tf.concat([tf.reshape(part, (-1, 2)) for part in parts], axis=0)


ROWS = 4096
NORM = {"epsilon": 0.1, "learns": True}


@pytest.mark.parametrize(
    "kernel",
    [
        fused_decoder.fused_gelu,
        fused_decoder.fused_swiglu,
        split_heads,
        lambda *parts: fused_decoder.fused_add_rms_norm(
            tf.ones((ROWS, 8)), tf.ones(8), *parts, **NORM
        )[0],
        lambda *parts: fused_decoder.fused_add_layer_norm(
            tf.ones((ROWS, 8)), tf.ones(8), tf.ones(8), *parts, **NORM
        )[0],
    ],
    ids=["gelu", "swiglu", "split_heads", "add_rms_norm", "add_layer_norm"],
)
def test_a_bias_gradient_is_summed_in_float32(kernel) -> None:
    """A sum of thousands of terms in bfloat16 would stop growing."""
    x = tf.random.stateless_normal((ROWS, 8), [1, 2])
    found = []
    for dtype in (tf.float32, tf.bfloat16):
        bias = tf.ones(8, dtype)
        with tf.GradientTape() as tape:
            tape.watch(bias)
            loss = tf.reduce_sum(tf.cast(kernel(tf.cast(x, dtype), bias), tf.float32))
        found.append(tf.cast(tape.gradient(loss, bias), tf.float32))
    assert np.abs(found[0]).min() > 100
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)


@pytest.mark.parametrize("lora", [None, LORA])
def test_layers_and_decoders_share_one_trace(monkeypatch, lora) -> None:
    """Widths that no other test has."""
    calls = []
    for module, name in ((llama_layer, "fused_swiglu"), (gpt2_layer, "fused_gelu")):
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, k=kernel, **o: calls.append(1) or k(*a, **o))
    features = make_features([5, 3, 4], [9])
    llama = LlamaConfig(VOCABULARY, HIDDEN, 44, 3, num_heads=2, num_kv_heads=1, head_dim=10)
    gpt2 = GPT2Config(VOCABULARY, HIDDEN, 3, num_heads=2, intermediate_size=44, max_positions=9)
    for network, config in ((LlamaDecoder, llama), (GPT2Decoder, gpt2)):
        for decoder in (make(network, config, lora=lora) for _ in range(2)):
            make_step(decoder)(features)
        assert len(calls) == 1
        calls.clear()


@pytest.mark.parametrize("options", [{}, {"lora": LORA}], ids=["all", "lora"])
def test_a_step_compiled_whole_by_xla_has_the_same_gradients(new_decoder, options) -> None:
    features = make_features([5, 3, 4], [9])
    decoder = new_decoder(**options)
    random_adapters(decoder)
    compiled, plain = (
        make_step(decoder, jit_compile=jit_compile)(features) for jit_compile in (True, False)
    )
    assert_close(compiled, plain)


def test_one_trace_serves_every_shape(new_decoder) -> None:
    decoder = new_decoder()
    names = ("token_ids", "segments", "positions")
    spec = {name: tf.TensorSpec((None, None), tf.int32) for name in names}
    step = make_step(decoder, input_signature=[spec])
    for features in (make_features([5, 3, 4], [9]), make_features([3], [5], [1], length=6)):
        assert_close(step(features), make_step(decoder)(features))
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_output_is_what_the_specification_says(new_decoder, dtype) -> None:
    decoder, features = new_decoder(dtype=dtype), make_features([12])
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in features}
    model = keras.Model(inputs, decoder(inputs))
    assert model.output.shape == (None, None, HIDDEN)
    hidden = model(features)
    assert (hidden.shape, hidden.dtype.name) == ((1, 12, HIDDEN), model.output.dtype)


def test_weights_go_out_and_in_by_their_names(new_decoder) -> None:
    decoder, copy = new_decoder(), new_decoder()
    weights = {name: value for part in decoder.stored() for name, value in part.read()}
    for part in copy.stored():
        part.variable.assign(np.zeros(part.variable.shape))
    assign_weights(copy.stored(), weights.__getitem__)
    features = make_features([5, 3, 4])
    np.testing.assert_array_equal(copy(features), decoder(features))
    assert sum(len(part.names) for part in decoder.stored()) == len(weights)
    name = decoder.stored()[-1].names[0]
    with pytest.raises(ValueError, match=rf"{name} has the shape \[3, 5\], not \["):
        assign_weights(copy.stored(), {**weights, name: np.zeros((3, 5))}.__getitem__)
