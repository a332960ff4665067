"""`BertEncoder` against KerasHub's `BertBackbone`, and its dropout, dtypes, saving and graphs."""

from functools import partial
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.formats.keras_hub import from_backbone
from tf_finetune.models import bert_layers, fused
from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.bert_weights import make_bert, read_bert

FEATURES = ("input_word_ids", "input_mask", "input_type_ids")
VOCABULARY = 50


def make_backbone(dtype: str = "float32", dropout: float = 0.1) -> keras_hub.models.BertBackbone:
    """Two layers with random weights, far enough from their usual small values to matter."""
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_heads=4,
        hidden_dim=32,
        intermediate_dim=48,
        max_sequence_length=24,
        dropout=dropout,
        dtype=dtype,
    )
    random = np.random.default_rng(0)
    for weight in backbone.weights:
        if weight.trainable:
            weight.assign(random.normal("gamma" in weight.path, 0.3, weight.shape))
    return backbone


def make_inputs(batch: int = 3, length: int = 11, vocabulary: int = VOCABULARY) -> dict[str, Any]:
    """Random ids, two segments, and padding after a length of its own for each row."""
    random = np.random.default_rng(1)
    position = np.arange(length)
    lengths = random.integers(2, length + 1, (batch, 1))
    mask = position < lengths
    types = (position > lengths // 2) & mask
    arrays = random.integers(0, vocabulary, (batch, length)), mask, types
    return {
        name: tf.constant(array, tf.int32) for name, array in zip(FEATURES, arrays, strict=True)
    }


def run_backbone(
    backbone: keras_hub.models.BertBackbone, inputs: dict[str, Any], training: bool = False
) -> dict[str, Any]:
    names = {"token_ids": FEATURES[0], "padding_mask": FEATURES[1], "segment_ids": FEATURES[2]}
    return backbone({own: inputs[name] for own, name in names.items()}, training=training)


def make_model(encoder: BertEncoder, output: str = "pooled_output") -> keras.Model:
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES}
    return keras.Model(inputs, encoder(inputs)[output])


def largest_difference(ours: dict[str, Any], theirs: dict[str, Any], inputs: Any) -> float:
    """Over both outputs; what stands at padding is nobody's concern."""
    mask = tf.cast(inputs["input_mask"], tf.float32)[..., None]
    pooled = ours["pooled_output"] - theirs["pooled_output"]
    sequence = (ours["sequence_output"] - theirs["sequence_output"]) * mask
    return max(float(tf.reduce_max(abs(x))) for x in (pooled, sequence))


@pytest.mark.parametrize("training", [False, True])
def test_equals_the_backbone(training: bool) -> None:
    backbone, inputs = make_backbone(), make_inputs()
    ours = from_backbone(backbone, dropout=0.0)(inputs, training=training)
    assert largest_difference(ours, run_backbone(backbone, inputs), inputs) <= 1e-5


def test_equals_a_trained_backbone(minilm_dir: Path) -> None:
    backbone = keras_hub.models.BertBackbone.from_preset(str(minilm_dir))
    inputs = make_inputs(4, 40, 30522)
    ours = from_backbone(backbone)(inputs)
    assert largest_difference(ours, run_backbone(backbone, inputs), inputs) <= 1e-5


@pytest.mark.parametrize("output", ["pooled_output", "sequence_output"])
def test_gradients_equal_the_backbone(output: str) -> None:
    backbone, inputs = make_backbone(dropout=0.0), make_inputs()
    encoder = from_backbone(backbone)
    weight = tf.random.stateless_normal((32,), [1, 2])
    mask = tf.cast(inputs["input_mask"], tf.float32)[..., None]

    def gradients(outputs: dict[str, Any], tape: tf.GradientTape, variables: list[Any]) -> Any:
        shown = outputs[output] * (mask if output == "sequence_output" else 1.0)
        loss = tf.reduce_sum(weight * shown**2)
        raw = tape.gradient(loss, [v.value for v in variables])
        return [
            tf.zeros(v.shape) if g is None else tf.convert_to_tensor(g)
            for g, v in zip(raw, variables, strict=True)
        ]

    with tf.GradientTape() as tape:
        outputs = encoder(inputs, training=True)
    ours = gradients(outputs, tape, encoder.trainable_variables)
    with tf.GradientTape() as tape:
        outputs = run_backbone(backbone, inputs, training=True)
    theirs = gradients(outputs, tape, backbone.trainable_variables)
    for variable, gradient in zip(backbone.trainable_variables, theirs, strict=True):
        variable.assign(gradient)
    own = from_backbone(backbone)  # now holds the backbone's gradients as its weights
    largest = max(float(tf.norm(g)) for g in ours)
    for variable, gradient in zip(own.trainable_variables, ours, strict=True):
        expected = tf.convert_to_tensor(variable.value)
        # The gradient by the key's bias is zero but for rounding: softmax ignores shifts.
        error = float(tf.norm(gradient - expected))
        assert error <= 1e-4 * float(tf.norm(expected)) + 1e-7 * largest, variable.path


def test_weights_by_name_make_the_same_encoder() -> None:
    encoder, inputs = from_backbone(make_backbone()), make_inputs()
    copy = make_bert(read_bert(encoder), num_heads=4, dropout=0.3)
    assert (copy.dropout, copy.vocabulary_size, copy.max_seq_length) == (0.3, VOCABULARY, 24)
    assert len(copy.trainable_weights) == len(encoder.trainable_weights)
    for own, other in zip(copy.trainable_weights, encoder.trainable_weights, strict=True):
        np.testing.assert_array_equal(own, other)
    assert largest_difference(copy(inputs), encoder(inputs), inputs) == 0


def test_saved_model_gives_the_same(tmp_path: Path) -> None:
    model = make_model(from_backbone(make_backbone()))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = make_inputs()
    np.testing.assert_allclose(loaded(inputs), model(inputs), atol=1e-6)
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(dtype: str) -> None:
    inputs = make_inputs()
    exact = from_backbone(make_backbone())(inputs)
    encoder = from_backbone(make_backbone(dtype), dropout=0.0)
    for training in (False, True):
        outputs = encoder(inputs, training=training)
        assert {x.dtype.name for x in outputs.values()} == {dtype.removeprefix("mixed_")}
        outputs = {name: tf.cast(x, tf.float32) for name, x in outputs.items()}
        assert largest_difference(outputs, exact, inputs) < 0.1
    assert {weight.dtype for weight in encoder.trainable_weights} == {"float32"}


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_takes_large_values_and_rows_of_padding(dtype: str) -> None:
    backbone, inputs = make_backbone(dtype), make_inputs()
    for weight in backbone.trainable_weights:
        weight.assign(weight * 5)
    inputs["input_mask"] *= tf.constant([[1], [0], [1]])
    encoder = from_backbone(backbone)
    with tf.GradientTape() as tape:
        outputs = encoder(inputs, training=True)
        loss = tf.reduce_mean(tf.cast(outputs["sequence_output"], tf.float32) ** 2)
    assert np.isfinite(loss)
    for gradient in tape.gradient(loss, [v.value for v in encoder.layers[1].trainable_variables]):
        assert np.isfinite(tf.cast(gradient, tf.float32)).all()


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_output_spec_is_what_the_network_gives(dtype: str) -> None:
    encoder, inputs = from_backbone(make_backbone(dtype)), make_inputs()
    spec = encoder.compute_output_spec(
        {name: keras.KerasTensor(x.shape, "int32") for name, x in inputs.items()}
    )
    outputs = encoder(inputs)
    assert {name: (x.shape, x.dtype) for name, x in spec.items()} == {
        name: (tuple(x.shape), x.dtype.name) for name, x in outputs.items()
    }


def test_one_trace_serves_every_shape() -> None:
    encoder = from_backbone(make_backbone())
    model = make_model(encoder)
    traces = []

    @tf.function(
        input_signature=[{name: tf.TensorSpec((None, None), tf.int32) for name in FEATURES}]
    )
    def step(inputs: dict[str, Any]) -> list[Any]:
        traces.append(1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(inputs, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    for shape in ((3, 11), (2, 24)):
        gradients = step(make_inputs(*shape))
        assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients)
    assert len(traces) == 1
    assert isinstance(gradients[0], tf.IndexedSlices)  # the token table: only rows seen


def test_whole_step_compiled_by_xla_draws_the_same_dropout() -> None:
    inputs = make_inputs()

    def loss_and_gradients(jit_compile: bool) -> list[Any]:
        encoder = from_backbone(make_backbone())
        encoder.seed_generator.state.assign([7, 0])

        @tf.function(jit_compile=jit_compile)
        def step() -> list[Any]:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(encoder(inputs, training=True)["pooled_output"] ** 2)
            gradients = tape.gradient(loss, [v.value for v in encoder.trainable_variables])
            return [loss, *(tf.convert_to_tensor(g) for g in gradients)]

        return step()

    for compiled, plain in zip(loss_and_gradients(True), loss_and_gradients(False), strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-4)


def trace_step(encoder: BertEncoder, jit_compile: bool = False) -> Any:
    """Traces a training step's loss and gradients for batches of any shape."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(inputs: dict[str, Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            outputs = encoder(inputs, training=True)["pooled_output"]
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2)
        gradients = tape.gradient(loss, [v.value for v in encoder.trainable_variables])
        return [loss, *(tf.convert_to_tensor(g) for g in gradients)]

    spec = {name: tf.TensorSpec((None, None), tf.int32) for name in FEATURES}
    return step.get_concrete_function(spec)


def test_layers_share_one_trace(monkeypatch) -> None:
    gelus = []
    gelu = fused.fused_gelu
    monkeypatch.setattr(fused, "fused_gelu", lambda *a, **k: gelus.append(1) or gelu(*a, **k))
    # A width that no other test has traced.
    encoder = BertEncoder(VOCABULARY, 5, 2, 20, 28)
    encoder.build()
    trace_step(encoder)
    assert len(gelus) == 2  # all layers', and the last one's for the first tokens


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_shared_trace_changes_no_bit(dtype: str, monkeypatch) -> None:
    def run() -> list[Any]:
        encoder = from_backbone(make_backbone(dtype))
        encoder.seed_generator.state.assign([7, 0])
        keras.utils.set_random_seed(1)
        encoder.layers[0].query_key_value.enable_lora(2)
        encoder.layers[0].query_key_value.lora_kernel_b.assign(tf.fill((2, 96), 0.1))
        encoder.layers[0].output_dense.trainable = False
        return trace_step(encoder)(make_inputs())

    shared = run()
    monkeypatch.setattr(bert_layers, "_shared_transform", bert_layers._transform)
    for ours, plain in zip(shared, run(), strict=True):
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_xla_sees_no_call_of_a_layer(jit_compile: bool) -> None:
    """Behind one it would take the weights for constants and compile anew at every step."""
    graph = trace_step(from_backbone(make_backbone()), jit_compile).graph
    calls = [op.get_attr("f").name for op in graph.get_operations() if op.type == "PartitionedCall"]
    assert sum("forward__transform" in name for name in calls) == (0 if jit_compile else 1)


def test_strategy_replicas_train() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        encoder = from_backbone(make_backbone())

    @tf.function
    def step(inputs: dict[str, Any]) -> Any:
        def replica(inputs: dict[str, Any]) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(encoder(inputs, training=True)["pooled_output"] ** 2)
            gradients = tape.gradient(loss, [v.value for v in encoder.trainable_variables])
            return tf.add_n([tf.norm(tf.convert_to_tensor(g)) for g in gradients])

        return strategy.run(replica, (inputs,))

    assert float(step(make_inputs())) > 0


def test_freezing_a_block_leaves_its_weights_out() -> None:
    encoder = from_backbone(make_backbone())
    assert len(encoder.blocks) == 3
    every = len(encoder.trainable_weights)
    for layer in (*encoder.blocks[0], *encoder.blocks[1]):
        layer.trainable = False
    frozen = [weight.path for weight in encoder.non_trainable_weights]
    assert every - len(encoder.trainable_weights) == 5 + 12
    assert all(path.split("/")[1] in ("embeddings", "layer_0") for path in frozen[:-1])


def test_lora_trains_from_the_same_outputs() -> None:
    encoder, inputs = from_backbone(make_backbone()), make_inputs()
    before = encoder(inputs)["sequence_output"]
    encoder.layers[0].query_key_value.enable_lora(2)
    np.testing.assert_allclose(encoder(inputs)["sequence_output"], before, atol=1e-6)
    encoder.layers[0].query_key_value.lora_kernel_b.assign(tf.fill((2, 96), 0.1))
    after = encoder(inputs)["sequence_output"]
    merged = make_bert(read_bert(encoder), num_heads=4)(inputs)["sequence_output"]
    assert float(tf.reduce_max(abs(after - before))) > 0.01
    np.testing.assert_allclose(after, merged, atol=1e-4)


def test_dropout_keeps_the_mean_and_drops_at_the_rate() -> None:
    rate, size = 0.1, 400_000
    drawn = np.array(fused.dropout(tf.ones((size // 100, 100)), tf.constant([3, 4]), rate))
    assert set(np.unique(drawn)) == {0.0, np.float32(1 / 0.9)}
    sigma = (rate * (1 - rate) / size) ** 0.5
    assert abs((drawn == 0).mean() - rate) < 4 * sigma
    # Neighbours, along rows and along columns, are dropped independently.
    dropped = drawn == 0
    for pairs in (dropped[1:] & dropped[:-1], dropped[:, 1:] & dropped[:, :-1]):
        assert abs(pairs.mean() - rate**2) < 5 * (rate**2 / size) ** 0.5


def test_dropout_of_different_seeds_is_independent() -> None:
    rate, seeds = 0.5, ([0, 0], [0, 1], [1, 0], [1, 1], [2**31 - 1, 0], [-5, 9])
    drawn = [np.array(fused.dropout(tf.ones(100_000), tf.constant(s), rate)) == 0 for s in seeds]
    for first in range(len(seeds)):
        for second in range(first):
            assert abs((drawn[first] == drawn[second]).mean() - 0.5) < 5 * 0.5 / 100_000**0.5


def test_dropout_changes_with_the_step_and_follows_the_seed_state() -> None:
    inputs = make_inputs()
    encoder = from_backbone(make_backbone())
    assert encoder.seed_generator.state in encoder.non_trainable_variables
    state = keras.ops.convert_to_numpy(encoder.seed_generator.state)
    first = encoder(inputs, training=True)["sequence_output"]
    second = encoder(inputs, training=True)["sequence_output"]
    assert float(tf.reduce_max(abs(first - second))) > 0.01
    encoder.seed_generator.state.assign(state)  # as a resume does
    np.testing.assert_array_equal(encoder(inputs, training=True)["sequence_output"], first)
    plain = encoder(inputs)["sequence_output"]
    np.testing.assert_array_equal(encoder(inputs)["sequence_output"], plain)


def test_attention_dropout_and_its_gradient() -> None:
    scores = tf.random.stateless_normal((2, 3, 40, 40), [1, 2])
    mask = tf.ones((2, 40), tf.int32)
    weight = tf.random.stateless_normal(scores.shape, [3, 4])
    arguments = mask, tf.constant([5, 6])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(scores)
        kernel = fused.fused_attention_weights(scores, *arguments, scale=0.5, rate=0.1)
        plain, undropped = fused.attention_weights(scores, *arguments, scale=0.5, rate=0.1)
        losses = tf.reduce_sum(kernel * weight), tf.reduce_sum(plain * weight)
    np.testing.assert_allclose(undropped, tf.nn.softmax(0.5 * scores), atol=1e-6)
    np.testing.assert_allclose(kernel, plain, atol=1e-6)
    assert abs((np.array(kernel) == 0).mean() - 0.1) < 0.02
    ours, automatic = (tape.gradient(loss, scores) for loss in losses)
    np.testing.assert_allclose(ours, automatic, atol=1e-6)


@pytest.mark.parametrize("rate", [0.1, tf.constant(0.1)], ids=["number", "tensor"])
def test_norm_with_dropout_and_its_gradient(rate) -> None:
    x, residual, weight = (tf.random.stateless_normal((50, 72), [1, n]) for n in range(3))
    bias, gamma, beta = (tf.random.stateless_normal((72,), [2, n]) for n in range(3))
    arguments, seed = [x, bias, residual, gamma, beta], tf.constant([5, 6])
    gradients = []
    for function in (fused.fused_residual_norm, lambda *a, **k: fused.residual_norm(*a, **k)[0]):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = function(*arguments, seed, rate=rate, epsilon=1e-12)
            loss = tf.reduce_sum(result * weight)
        gradients.append([result, *tape.gradient(loss, arguments)])
    for ours, automatic in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, automatic, atol=2e-5)
    undropped = fused.fused_residual_norm(*arguments, seed, training=False, rate=0.0, epsilon=1e-12)
    mean, variance = tf.nn.moments(x + bias + residual, axes=[1], keepdims=True)
    expected = (x + bias + residual - mean) / tf.sqrt(variance) * gamma + beta
    np.testing.assert_allclose(undropped, expected, atol=1e-5)


def test_dropout_of_rows_and_its_gradient() -> None:
    x, rate = tf.ones((500, 72)), tf.constant(0.1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = fused.fused_dropout(x, tf.constant([5, 6]), rate=rate)
    np.testing.assert_array_equal(tape.gradient(result, x), result)
    assert abs((result.numpy() == 0).mean() - 0.1) < 0.01
    np.testing.assert_allclose(result.numpy().max(), 1 / 0.9, rtol=1e-6)
    np.testing.assert_array_equal(fused.dropout(x, tf.constant([5, 6]), 0.1), result)
    np.testing.assert_array_equal(fused.dropout(x, tf.constant([5, 6]), tf.constant(0.0)), x)


@pytest.mark.parametrize(
    "add",
    [
        partial(fused.fused_gelu, approximate=True),
        partial(fused.gelu, approximate=False),
        lambda x, bias: fused.add_bias(x, bias) ** 2,
    ],
)
def test_a_bias_gradient_is_summed_in_float32(add) -> None:
    """A sum of thousands of terms in bfloat16 would stop growing at 256 times a term."""
    x = tf.random.stateless_normal((4096, 8), [1, 2])
    expected = []
    for dtype in (tf.float32, tf.bfloat16):
        bias = tf.ones(8, dtype)
        with tf.GradientTape() as tape:
            tape.watch(bias)
            loss = tf.reduce_sum(tf.cast(add(tf.cast(x, dtype), bias), tf.float32))
        expected.append(tf.cast(tape.gradient(loss, bias), tf.float32).numpy())
    np.testing.assert_allclose(expected[1], expected[0], rtol=0.01)
