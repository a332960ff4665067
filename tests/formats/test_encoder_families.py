"""Each architecture against what transformers computes; see `make_encoders.py`."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.thorough import mostly
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder_families import (
    FAMILIES,
    find_family,
    read_arguments,
    with_activation,
)
from tf_finetune.formats.huggingface_encoders import base_tensors, fill, read_tensors
from tf_finetune.formats.tensors import open_tensors
from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.encoder_weights import merged_weights, remake
from tf_finetune.models.lora import Lora

ENCODERS = Path(__file__).parent / "encoders"
NAMES = sorted(
    path.parent.name
    for path in ENCODERS.glob("*/config.json")
    if json.loads(path.read_text())["model_type"] in FAMILIES
)
# The options of `BertEncoder`; the other networks have tests of their own.
KINDS = ("albert", "bert", "distilbert", "electra", "mpnet", "roberta")
HAS_POOLER = ("bert", "albert")


def load(name: str, **options: Any) -> Any:
    """The base network of a stored checkpoint, without its tokenizer."""
    directory = ENCODERS / name
    file = directory / "config.json"
    config = json.loads(file.read_text())
    family = find_family(config, file)
    network = family.network(**{**read_arguments(family, config, file), **options})
    network.build()
    tensors = base_tensors(open_tensors(directory), family.prefix)
    stored = [part for part in network.stored() if set(part.names) <= set(tensors)]
    lacking = {name for part in network.stored() for name in part.names} - set(tensors)
    assert all("pooler" in name for name in lacking)
    fill(stored, tensors, directory, file)
    return network


def quiet() -> dict[str, float]:
    """Options of a network without dropout."""
    return dict.fromkeys(("dropout", "attention_dropout"), 0.0)


def reference(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(ENCODERS / name / "reference.npz"))


def inputs(name: str) -> dict[str, tf.Tensor]:
    found = reference(name)
    names = {"input_word_ids": "ids", "input_mask": "mask", "input_type_ids": "types"}
    return {ours: tf.constant(found[theirs], "int32") for ours, theirs in names.items()}


@pytest.mark.parametrize("name", NAMES)
def test_it_computes_what_transformers_does(name):
    found, outputs = reference(name), load(name)(inputs(name))
    real = found["mask"].astype(bool)
    sequence = outputs["sequence_output"].numpy()
    np.testing.assert_allclose(sequence[real], found["sequence"][real], atol=1e-5)
    if model_type(name) not in HAS_POOLER:
        np.testing.assert_allclose(outputs["pooled_output"], found["sequence"][:, 0], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    network, features = load(name), inputs(name)
    longer = {key: tf.pad(value, [[0, 0], [0, 5]]) for key, value in features.items()}
    real = features["input_mask"].numpy().astype(bool)
    before, after = (network(f)["sequence_output"].numpy() for f in (features, longer))
    np.testing.assert_allclose(after[:, :12][real], before[real], atol=1e-5)


def gradients(network: Any, features: Any, *, training: bool, jit_compile: bool = False) -> Any:
    """The gradients of a number that depends on all real tokens' rows."""
    weights = np.random.default_rng(0).normal(0, 1, (3, 12, 16)).astype("float32")

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step() -> Any:
        real = tf.cast(features["input_mask"], tf.float32)[..., None]
        with tf.GradientTape() as tape:
            sequence = tf.cast(network(features, training=training)["sequence_output"], tf.float32)
            loss = tf.reduce_sum(sequence * real * weights)
        return loss, tape.gradient(loss, [v.value for v in network.trainable_variables])

    loss, found = step()
    return float(loss), [None if g is None else tf.convert_to_tensor(g).numpy() for g in found]


@pytest.mark.parametrize(
    "name", mostly("albert", "bert", "mpnet", others=["distilbert", "electra", "roberta"])
)
def test_kernels_and_xla_have_the_gradients_of_the_operations(name):
    """Training runs kernels of our own gradients; without training TensorFlow derives them."""
    network, features = load(name, **quiet()), inputs(name)
    loss, expected = gradients(network, features, training=False)
    for jit_compile in (False, True):
        again, found = gradients(network, features, training=True, jit_compile=jit_compile)
        assert again == pytest.approx(loss, rel=1e-4)
        for variable, ours, theirs in zip(
            network.trainable_variables, found, expected, strict=True
        ):
            if theirs is not None:
                scale = max(1.0, float(np.abs(theirs).max()))
                np.testing.assert_allclose(ours, theirs, atol=2e-4 * scale, err_msg=variable.path)
    without = [
        v.path for v, g in zip(network.trainable_variables, expected, strict=True) if g is None
    ]
    assert all("pooler" in path for path in without), without


@pytest.mark.parametrize("name", KINDS)
def test_dropout_is_that_of_the_seed(name):
    features = inputs(name)
    first, second = (load(name, seed=3) for _ in range(2))
    ours, theirs = (n(features, training=True)["sequence_output"] for n in (first, second))
    np.testing.assert_array_equal(ours, theirs)
    assert np.any(first(features, training=True)["sequence_output"] != ours)


@pytest.mark.parametrize("name", KINDS)
def test_half_precision_is_near(name):
    exact = load(name)(inputs(name))["sequence_output"].numpy()
    half = load(name, dtype="mixed_bfloat16")(inputs(name))["sequence_output"]
    assert half.dtype == tf.bfloat16
    real = reference(name)["mask"].astype(bool)
    assert np.mean(np.abs(tf.cast(half, "float32").numpy() - exact)[real]) < 0.05


@pytest.mark.parametrize("name", KINDS)
def test_adapters_begin_without_a_change_and_merge(name):
    network, features = load(name, **quiet()), inputs(name)
    adapted = remake(network, Lora(rank=2, alpha=4.0))
    assert len(adapted.adapters) == len(network.modules) * len(network.blocks[1:])
    plain = network(features)["sequence_output"]
    np.testing.assert_allclose(adapted(features)["sequence_output"], plain, atol=1e-6)
    random = np.random.default_rng(0)
    for adapter in adapted.adapters.values():
        for factor in adapter:
            factor.assign(random.normal(0, 0.3, factor.shape))
    changed = adapted(features)["sequence_output"]
    assert np.abs(changed - plain).max() > 0.1
    merged = remake(adapted, None)
    np.testing.assert_allclose(merged(features)["sequence_output"], changed, atol=2e-5)
    trained = {id(v) for v in adapted.trainable_variables}
    factors = {id(factor) for adapter in adapted.adapters.values() for factor in adapter}
    pooler = getattr(adapted, "pooler", None)
    assert trained == factors | ({id(v) for v in pooler.variables} if pooler else set())


@pytest.mark.parametrize("name", KINDS)
def test_it_is_saved_with_a_keras_model(name, tmp_path):
    network, features = load(name), inputs(name)
    symbolic = {key: keras.Input((None,), dtype="int32", name=key) for key in features}
    model = keras.Model(symbolic, network(symbolic)["sequence_output"])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(features), model(features), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_its_weights_are_written_under_the_names_that_they_were_read_from(name):
    tensors = base_tensors(open_tensors(ENCODERS / name), FAMILIES[model_type(name)].prefix)
    network = load(name)
    written = dict(merged_weights(network))
    heads = ("classifier", "pooler", "pre_classifier", "dropout", "cls", "lm_head")
    lacking = [n for n in tensors if n not in written and not n.startswith(heads)]
    assert not lacking
    for key in written.keys() & tensors.keys():
        np.testing.assert_array_equal(written[key], tensors[key]().astype("float32"), err_msg=key)


def model_type(name: str) -> str:
    return json.loads((ENCODERS / name / "config.json").read_text())["model_type"]


def test_what_published_checkpoints_hold_beside_what_is_read():
    """DeBERTa-v3's have positions that its config.json switches off, and a copy of the tokens."""
    directory, network = ENCODERS / "deberta-v3", load("deberta-v3")
    family, file = FAMILIES["deberta-v2"], directory / "config.json"
    tensors = base_tensors(open_tensors(directory), family.prefix)
    rows = np.ones((40, 16), "float32")
    for name in ("position_embeddings.weight", "word_embeddings._weight"):
        more = {**tensors, f"embeddings.{name}": lambda: rows}
        fill(network.stored(), read_tensors(network, more, family), directory, file)
    more = {**tensors, "embeddings.another.weight": lambda: rows}
    with pytest.raises(UserError, match=r"hold embeddings\.another\.weight, which a network"):
        fill(network.stored(), read_tensors(network, more, family), directory, file)


@pytest.mark.parametrize(
    ("name", "key"),
    [("bert", "hidden_act"), ("distilbert", "activation"), ("modernbert", "hidden_activation")],
)
def test_another_activation_stands_where_the_architecture_looks(name, key):
    config = json.loads((ENCODERS / name / "config.json").read_text())
    assert with_activation(config, "gelu_new")[key] == "gelu_new"
    assert with_activation(config, None) == config


def test_layers_that_are_shared_are_frozen_as_one():
    network = load("albert")
    assert isinstance(network, BertEncoder) and len(network.blocks) == 2
    assert network.num_layers == 3


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("bert", {"model_type": "longformer"}, "model_type='longformer'; only bert, roberta"),
        ("bert", {"hidden_act": "relu"}, "hidden_act='relu'; only 'gelu' or 'gelu_new'"),
        (
            "bert",
            {"position_embedding_type": "relative_key"},
            "position_embedding_type='relative_key'; only 'absolute'",
        ),
        ("bert", {"is_decoder": True}, "is_decoder=True; only False"),
        ("bert", {"num_attention_heads": 3}, "hidden_size=16, which cannot be split into"),
        ("bert", {"num_hidden_layers": "2"}, "num_hidden_layers='2'; it must be an integer from 1"),
        ("bert", {"num_hidden_layers": 0}, "num_hidden_layers=0; it must be an integer from 1"),
        ("bert", {"layer_norm_eps": -1}, "layer_norm_eps=-1; it must be a number"),
        ("albert", {"num_hidden_groups": 2}, "num_hidden_groups=2; only 1 can be computed"),
        ("distilbert", {"activation": "relu"}, "activation='relu'; only 'gelu'"),
    ],
)
def test_what_cannot_be_computed_is_told(name, changed, message):
    config = json.loads((ENCODERS / name / "config.json").read_text()) | changed
    file = Path("some/config.json")
    with pytest.raises(UserError, match=f"some/config.json has {message}"):
        read_arguments(find_family(config, file), config, file)
