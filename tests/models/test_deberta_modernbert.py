"""`DebertaEncoder` and `ModernBertEncoder` against transformers, and what both must keep."""

import dataclasses
import inspect
import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from tests.thorough import mostly
from tf_finetune.formats.deberta_config import deberta_arguments
from tf_finetune.formats.modernbert_config import modernbert_arguments
from tf_finetune.models import deberta_layer, modernbert_layer
from tf_finetune.models.deberta import DebertaEncoder
from tf_finetune.models.disentangled import by_token, distance_rows, fused_summed_weights
from tf_finetune.models.local_attention import attend, fused_window_weights
from tf_finetune.models.lora import Lora
from tf_finetune.models.modernbert import ModernBertEncoder
from tf_finetune.models.stored_weights import assign_weights

CHECKPOINTS = Path(__file__).parents[1] / "formats" / "encoders"
NAMES = ("deberta-v2", "deberta-v2-absolute", "deberta-v3", "modernbert", "modernbert-cls")
# Those of different operations.
FORMS = ("deberta-v2", "deberta-v3", "modernbert")
# One of each architecture, with what its published models use.
USUAL = ("deberta-v3", "modernbert")
MOST = mostly(*USUAL, others=[name for name in NAMES if name not in USUAL])
FEATURES = ("input_word_ids", "input_mask", "input_type_ids")
SPEC = {name: tf.TensorSpec((None, None), tf.int32) for name in FEATURES}
LORA = Lora(rank=3, alpha=6)


def make_encoder(name: str, dropout: float | None = 0.0, **options: Any) -> Any:
    """The checkpoint's network; `dropout=None` leaves its rates."""
    folder = CHECKPOINTS / name
    config = json.loads((folder / "config.json").read_text())
    deberta = name.startswith("deberta")
    arguments = deberta_arguments(config) if deberta else modernbert_arguments(config)
    if dropout is not None:
        arguments |= {key: dropout for key in arguments if key.endswith("dropout")}
    encoder = (DebertaEncoder if deberta else ModernBertEncoder)(**{**arguments, **options})
    encoder.build()
    prefix = "deberta." if deberta else "model."
    weights = {
        key.removeprefix(prefix): value
        for key, value in load_file(folder / "model.safetensors").items()
        if key.startswith(prefix)
    }
    stored = encoder.stored()
    assert sorted(key for part in stored for key in part.names) == sorted(weights)
    assign_weights(stored, weights.__getitem__)
    return encoder


def read_reference(name: str) -> tuple[dict[str, tf.Tensor], np.ndarray]:
    """The inputs, and the sequence that transformers computes."""
    stored = np.load(CHECKPOINTS / name / "reference.npz")
    inputs = {
        k: tf.constant(stored[v]) for k, v in zip(FEATURES, ("ids", "mask", "types"), strict=True)
    }
    return inputs, stored["sequence"]


def largest_difference(ours: Any, theirs: Any, mask: tf.Tensor) -> float:
    """What stands at padding is nobody's concern."""
    ours, theirs = (np.array(tf.cast(part, tf.float32)) for part in (ours, theirs))
    return float(np.abs(ours - theirs)[mask.numpy().astype(bool)].max())


def make_step(encoder: Any, training: bool = True, **options: Any) -> Any:
    """The loss and gradients of a step for batches of any shape."""

    @tf.function(input_signature=[SPEC], autograph=False, **options)
    def step(inputs: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = encoder(inputs, training=training)
            sequence = tf.cast(outputs["sequence_output"], tf.float32)
            shown = sequence * tf.cast(inputs["input_mask"], tf.float32)[:, :, None]
            shown = tf.concat(
                [shown, tf.cast(outputs["pooled_output"], tf.float32)[:, None]], axis=1
            )
            loss = tf.reduce_sum(shown**2 * tf.linspace(-1.0, 1.0, 16))
        gradients = tape.gradient(loss, [v.value for v in encoder.trainable_variables])
        return [loss, *(tf.convert_to_tensor(g) for g in gradients)]

    return step


def assert_same(ours: list[Any], theirs: list[Any], tolerance: float = 1e-4) -> None:
    """Compares gradients; the smallest are nothing but rounding."""
    largest = max(np.linalg.norm(part) for part in theirs[1:])
    for own, other in zip(ours, theirs, strict=True):
        own, other = np.array(own, "float32"), np.array(other, "float32")
        error = np.linalg.norm(own - other)
        assert error <= tolerance * np.linalg.norm(other) + tolerance / 100 * largest


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", mostly("eager", "xla", others=["graph"]))
def test_equals_transformers(name: str, way: str) -> None:
    encoder, (inputs, expected) = make_encoder(name, dropout=None), read_reference(name)
    graph = tf.function(encoder, input_signature=[SPEC], jit_compile=way == "xla", autograph=False)
    outputs = (encoder if way == "eager" else graph)(inputs)
    mask, limit = inputs["input_mask"], 1e-5 * np.abs(expected).max()
    assert largest_difference(outputs["sequence_output"], expected, mask) <= limit
    first = outputs["pooled_output"]
    assert largest_difference(first, expected[:, 0], tf.ones(len(first), tf.int32)) <= limit


@pytest.mark.parametrize("name", MOST)
def test_padding_changes_nothing(name: str) -> None:
    encoder, (inputs, _) = make_encoder(name), read_reference(name)
    mask = inputs["input_mask"]
    more = {k: tf.pad(v, ((0, 0), (0, 7)), constant_values=0) for k, v in inputs.items()}
    more["input_word_ids"] += 9 * (1 - more["input_mask"])
    for training in (False, True):
        expected = encoder(inputs, training=training)["sequence_output"]
        found = encoder(more, training=training)["sequence_output"][:, : mask.shape[1]]
        assert largest_difference(found, expected, mask) <= 2e-5
        one = {k: v[2:, :5] for k, v in inputs.items()}
        found = encoder(one, training=training)["sequence_output"]
        assert largest_difference(found, expected[2:, :5], one["input_mask"]) <= 2e-5


@pytest.mark.parametrize("name", MOST)
def test_gradients_of_the_kernels_are_those_of_the_plain_ops(name: str) -> None:
    encoder, (inputs, _) = make_encoder(name), read_reference(name)
    # In float32 predictions run op by op, with TensorFlow's own gradients.
    expected = make_step(encoder, training=False)(inputs)
    assert_same(make_step(encoder)(inputs), expected)


@pytest.mark.parametrize("name", mostly("deberta-v3", others=["deberta-v2", "modernbert"]))
def test_whole_step_compiled_by_xla_draws_the_same_dropout(name: str) -> None:
    inputs, _ = read_reference(name)
    steps = []
    for jit_compile in (False, True):
        encoder = make_encoder(name, dropout=None, lora=None)
        encoder.seed_generator.state.assign([7, 0])
        steps.append(make_step(encoder, jit_compile=jit_compile)(inputs))
    assert_same(*steps, 1e-3)


@pytest.mark.parametrize("name", mostly("deberta-v3", others=["deberta-v2", "modernbert"]))
def test_half_precision_is_close(name: str) -> None:
    inputs, expected = read_reference(name)
    encoder = make_encoder(name, dtype="mixed_bfloat16")
    for training in (False, True):
        outputs = encoder(inputs, training=training)
        assert {x.dtype for x in outputs.values()} == {tf.bfloat16}
        found = tf.cast(outputs["sequence_output"], tf.float32)
        mask = inputs["input_mask"].numpy().astype(bool)
        error = np.linalg.norm((found - expected).numpy()[mask])
        assert error <= 0.05 * np.linalg.norm(expected[mask])
    # Frozen ones too: what is rounded could not be merged and written back.
    adapted = make_encoder(name, dtype="mixed_bfloat16", lora=LORA)
    for network in (encoder, adapted):
        assert {part.variable.dtype for part in network.stored()} == {"float32"}
    exact, found = (make_step(e)(inputs) for e in (make_encoder(name), encoder))
    assert all(np.isfinite(part).all() for part in found)
    cosine = [
        np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(exact[1:], found[1:], strict=True)
        if np.linalg.norm(a) > 0.01 * max(np.linalg.norm(part) for part in exact[1:])
    ]
    # Processors without bfloat16 instructions round the sums of products too.
    assert min(cosine) > 0.8


@pytest.mark.parametrize("name", MOST)
def test_adapters_begin_with_the_base_and_are_trained_alone(name: str) -> None:
    inputs, expected = read_reference(name)
    encoder = make_encoder(name, lora=LORA)
    for training in (False, True):
        found = encoder(inputs, training=training)["sequence_output"]
        assert largest_difference(found, expected, inputs["input_mask"]) <= 2e-5
    factors = [factor for adapter in encoder.adapters.values() for factor in adapter]
    assert {id(v) for v in encoder.trainable_variables} == {id(v) for v in factors}
    assert {v.dtype for v in encoder.variables if "state" not in v.path} == {"float32"}
    kernels = {key.removesuffix(".weight") for part in encoder.stored() for key in part.names}
    assert set(encoder.adapters) <= kernels
    assert len(encoder.adapters) == encoder.num_layers * len(encoder.modules)


@pytest.mark.parametrize(
    "name", mostly("deberta-v3", others=[name for name in NAMES if name != "deberta-v3"])
)
def test_adapters_add_their_product_to_the_weights(name: str) -> None:
    inputs, _ = read_reference(name)
    encoder, merged = make_encoder(name, lora=LORA), make_encoder(name)
    random = np.random.default_rng(1)
    changes = {}
    for module, (a, b) in encoder.adapters.items():
        b.assign(random.normal(0, 0.3, b.shape))
        changes[f"{module}.weight"] = LORA.scaling * np.matmul(a, b).T
    weights = {key: value for part in merged.stored() for key, value in part.read()}
    assign_weights(merged.stored(), lambda key: weights[key] + changes.get(key, 0))
    for training in (False, True):
        found, expected = (e(inputs, training=training) for e in (encoder, merged))
        for output in found:
            mask = inputs["input_mask"] if output == "sequence_output" else tf.ones(3, tf.int32)
            assert largest_difference(found[output], expected[output], mask) <= 1e-4
    assert_same(make_step(encoder)(inputs), make_step(encoder, training=False)(inputs))


@pytest.mark.parametrize("name", USUAL)
def test_targets_select_modules(name: str) -> None:
    target = "query_proj" if name == "deberta-v3" else "Wqkv"
    encoder = make_encoder(name, lora=Lora(2, 4, targets=(target,)))
    assert all(module.endswith(f".{target}") for module in encoder.adapters)
    assert len(encoder.adapters) == encoder.num_layers


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("lora", [None, LORA], ids=["all", "lora"])
def test_saved_model_gives_the_same(name: str, lora: Lora | None, tmp_path: Path) -> None:
    encoder, (features, _) = make_encoder(name, dropout=None, lora=lora), read_reference(name)
    for adapter in encoder.adapters.values():
        adapter.b.assign(tf.fill(adapter.b.shape, 0.1))
    inputs = {key: keras.Input((None,), dtype="int32", name=key) for key in FEATURES}
    model = keras.Model(inputs, encoder(inputs)["pooled_output"])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(features), model(features), atol=1e-6)
    assert loaded.layers[-1].get_config() == encoder.get_config()
    assert loaded.layers[-1].lora == lora


@pytest.mark.parametrize("name", NAMES)
def test_the_config_holds_every_argument(name: str) -> None:
    encoder = make_encoder(name, dropout=None, seed=3, lora=LORA)
    made = type(encoder).from_config(encoder.get_config())
    arguments = set(inspect.signature(type(encoder)).parameters) - {"kwargs", "initializer"}
    assert arguments <= set(encoder.get_config())
    assert {key: getattr(made, key) for key in arguments} == {
        key: getattr(encoder, key) for key in arguments
    }


@pytest.mark.parametrize("name", MOST)
def test_dropout_follows_the_seed_state(name: str) -> None:
    encoder, (inputs, _) = make_encoder(name, dropout=None), read_reference(name)
    state = keras.ops.convert_to_numpy(encoder.seed_generator.state)
    first, second = (encoder(inputs, training=True)["sequence_output"] for _ in range(2))
    assert largest_difference(first, second, inputs["input_mask"]) > 0.01
    encoder.seed_generator.state.assign(state)  # as a resume does
    again = encoder(inputs, training=True)["sequence_output"]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(*(encoder(inputs)["sequence_output"] for _ in range(2)))


@pytest.mark.parametrize("name", USUAL)
def test_no_two_places_drop_alike(name: str, monkeypatch) -> None:
    seeds: list[tuple[int, ...]] = []
    deberta = name == "deberta-v3"
    layer = deberta_layer if deberta else modernbert_layer
    products = layer.linear_products
    monkeypatch.setattr(
        layer, "linear_products", lambda *a: seeds.append(tuple(np.array(a[4]))) or products(*a)
    )
    encoder = make_encoder(name, lora=dataclasses.replace(LORA, dropout=0.5))
    encoder.seed_generator.state.assign([7, 7])
    encoder(read_reference(name)[0], training=True)
    # Query, key and value see the tokens and the distances; the last layer is called twice.
    each = 5 if deberta else 4
    assert seeds[-each:] == seeds[-2 * each : -each]
    assert len(set(seeds)) == len(seeds) - each == each * encoder.num_layers


@pytest.mark.parametrize("name", FORMS)
def test_freezing_blocks_leaves_their_weights_out(name: str) -> None:
    encoder = make_encoder(name)
    assert len(encoder.blocks) == 1 + encoder.num_layers
    weights = {id(w) for layers in encoder.blocks for layer in layers for w in layer.weights}
    assert weights == {id(weight) for weight in encoder.trainable_weights}
    for layer in (*encoder.blocks[0], *encoder.blocks[1]):
        layer.trainable = False
    left = {id(w) for layers in encoder.blocks[2:] for layer in layers for w in layer.weights}
    assert {id(weight) for weight in encoder.trainable_weights} == left
    assert len(make_step(encoder)(read_reference(name)[0])) == 1 + len(left)


@pytest.mark.parametrize("name", USUAL)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_output_spec_is_what_the_network_gives(name: str, dtype: str) -> None:
    encoder, (inputs, _) = make_encoder(name, dtype=dtype), read_reference(name)
    spec = encoder.compute_output_spec(
        {key: keras.KerasTensor(x.shape, "int32") for key, x in inputs.items()}
    )
    assert {key: (x.shape, x.dtype) for key, x in spec.items()} == {
        key: (tuple(x.shape), x.dtype.name) for key, x in encoder(inputs).items()
    }


@pytest.mark.parametrize("name", USUAL)
def test_layers_of_a_form_share_one_trace(name: str, monkeypatch) -> None:
    calls = []
    deberta = name == "deberta-v3"
    layer = deberta_layer if deberta else modernbert_layer
    kernel = "fused_summed_weights" if deberta else "fused_geglu"
    own = getattr(layer, kernel)
    monkeypatch.setattr(layer, kernel, lambda *a, **k: calls.append(1) or own(*a, **k))
    # A width that no other test has traced.
    make = DebertaEncoder if deberta else ModernBertEncoder
    encoder = make(50, 7, 2, 20, 28, 24)
    encoder.build()
    make_step_of_sum(encoder).get_concrete_function(SPEC)
    # Each form once: the first, the local and the global layers; and the last one's first tokens.
    assert len(calls) == (2 if deberta else 4)


def make_step_of_sum(encoder: Any) -> Any:
    @tf.function(autograph=False)
    def step(inputs: dict[str, tf.Tensor]) -> list[Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(encoder(inputs, training=True)["pooled_output"])
        return tape.gradient(loss, [v.value for v in encoder.trainable_variables])

    return step


@pytest.mark.parametrize("name", FORMS)
def test_kernels_of_a_step_can_be_compiled_before_it(name: str) -> None:
    program = make_encoder(name, dropout=None).kernels()
    for rows, length in ((2, 9), (3, 30)):
        gradients = [g for g in program(tf.constant(rows), tf.constant(length)) if g is not None]
        assert gradients and all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients)


@pytest.mark.parametrize("kind", ["c2p", "p2c"])
def test_scores_by_distance_fall_on_their_tokens(kind: str) -> None:
    """Against the gather that they replace, with its gradient."""
    random, length = np.random.default_rng(0), 7
    query, key = (tf.constant(random.normal(size=(2, 3, length, 4)), tf.float32) for _ in range(2))
    table = tf.constant(random.normal(size=(2, 2 * length, 4)), tf.float32)
    weight = tf.constant(random.normal(size=(2, 3, length, length)), tf.float32)
    places = np.arange(length)
    columns = length - 1 - (places[:, None] - places)  # of the distance from a key to a query
    rows = query if kind == "c2p" else key
    results = []
    for placed in (True, False):
        with tf.GradientTape() as tape:
            tape.watch([rows, table])
            if placed:
                scores = deberta_layer._scores_of_distances(kind, query, key, table)
            else:
                seen = tf.gather(table, columns, axis=1)
                form = "hbqd,hqkd->hbqk" if kind == "c2p" else "hbkd,hqkd->hbqk"
                scores = tf.einsum(form, rows, seen)
            loss = tf.reduce_sum(scores * weight)
        results.append([scores, *tape.gradient(loss, [rows, table])])
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    first = deberta_layer._scores_of_first(kind, query[:, :, :1], key, table)
    np.testing.assert_allclose(first, results[1][0][:, :, :1], atol=1e-5)


def test_one_token_has_one_score() -> None:
    np.testing.assert_array_equal(by_token(tf.constant([[[3.0, 4.0]]])), [[[3.0]]])


def test_far_distances_share_rows() -> None:
    """The formula of the paper's code, distance by distance, at deberta-v3-base's sizes."""
    rows = distance_rows(512, 256, 256, 512)
    assert rows.shape == (1024,)
    for row, distance in zip(rows, range(511, -513, -1), strict=True):
        far = min(abs(distance), 511)
        if far > 128:
            far = 128 + math.ceil(math.log(far / 128) / math.log(511 / 128) * 127 - 1e-6)
        expected = 256 + int(math.copysign(far, distance))
        # The last distance is longer than any of 512 tokens, and stands for none.
        assert distance == -512 or row == expected, distance
    np.testing.assert_array_equal(distance_rows(4, 2, 0, 2), [3, 3, 3, 2, 1, 0, 0, 0])


@pytest.mark.parametrize("kernel", ["summed", "window"])
def test_attention_dropout_and_its_gradient(kernel: str) -> None:
    """The kernels' formula for the gradient against TensorFlow's own."""
    shape = (2, 3, 40, 40) if kernel == "summed" else (3, 2, 4, 10, 20)
    scores, others, weight = (tf.random.stateless_normal(shape, [1, n]) for n in range(3))
    if kernel == "summed":
        mask = tf.cast(tf.range(40) < tf.constant([[40], [9], [22]]), tf.int32)
        more, options, function = [others], {}, fused_summed_weights
    else:
        # A query that saw nothing would mean nothing.
        shifted = tf.range(80)[None] + tf.range(3)[:, None]
        mask = tf.cast(shifted % 3 > 0, tf.int32)
        mask = tf.reshape(mask, (3, 4, 20))
        more, options, function = [], {"half": 4}, fused_window_weights
    options = {**options, "scale": 0.5, "rate": tf.constant(0.1)}
    results = []
    for fuse in (True, False):
        with tf.GradientTape() as tape:
            tape.watch([scores, *more])
            drawn = function(scores, mask, tf.constant([5, 6]), *more, fuse=fuse, **options)
            loss = tf.reduce_sum(drawn * weight)
        results.append([drawn, *tape.gradient(loss, [scores, *more])])
    for ours, plain in zip(*results, strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-6)


@pytest.mark.parametrize("way", ["eager", "graph", "xla"])
@pytest.mark.parametrize(("half", "length"), [(1, 1), (1, 5), (3, 12), (3, 13), (8, 37)])
def test_blocks_see_what_a_dense_window_sees(way: str, half: int, length: int) -> None:
    query, key, value, weight = (
        tf.random.stateless_normal((2, 3, length, 4), [length, n]) for n in range(4)
    )
    mask = tf.cast(tf.range(length) < tf.constant([[length], [length // 2 + 1]]), tf.int32)
    places = np.arange(length)
    allowed = np.abs(places[:, None] - places) <= half
    allowed = allowed & mask.numpy().astype(bool)[:, None, None, :]
    # A query that sees nothing, for all in its window is padding, means nothing.
    shown = allowed.any(-1)[..., None] * np.ones((2, 3, length, 1))

    def dense(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        scores = tf.where(allowed, tf.matmul(query, key, transpose_b=True) / 2.0, -1e9)
        return tf.transpose(tf.matmul(tf.nn.softmax(scores), value), (0, 2, 1, 3))

    def blocks(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        return attend(query, key, value, mask, tf.zeros(2, tf.int32), half=half, rate=0.0)

    results = []
    for function in (dense, blocks):

        def run(*parts: tf.Tensor, function: Any = function) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(parts)
                result = function(*parts) * np.transpose(shown, (0, 2, 1, 3))
                loss = tf.reduce_sum(result * tf.transpose(weight, (0, 2, 1, 3)))
            return [result, *tape.gradient(loss, parts)]

        spec = tf.TensorSpec((None, 3, None, 4))
        if way != "eager":
            run = tf.function(run, input_signature=[spec] * 3, jit_compile=way == "xla")
        results.append(run(query, key, value))
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_long_text_needs_no_square_of_its_length() -> None:
    spec = tf.TensorSpec((1, 2, 4096, 8))

    @tf.function(input_signature=[spec] * 3, autograph=False)
    def run(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        mask, seed = tf.ones((1, 4096), tf.int32), tf.zeros(2, tf.int32)
        return attend(query, key, value, mask, seed, half=16, rate=0.0, fuse=False)

    graph = run.get_concrete_function().graph
    largest = max(
        math.prod(output.shape)
        for op in graph.get_operations()
        for output in op.outputs
        if output.shape.is_fully_defined()
    )
    assert largest < 4096 * 2 * 16 * 8
    assert run(*(tf.ones((1, 2, 4096, 8)) for _ in range(3))).shape == (1, 4096, 2, 8)
