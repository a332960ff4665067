"""KerasHub's presets of language models: its own backbones are what ours must equal."""

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.models import gpt2
from tf_finetune.models.llama import LlamaDecoder
from tf_finetune.models.stored_weights import assign_weights

MODELS = Path(__file__).parent / "language_models"
VOCABULARY = 270
SIZES = {"vocabulary_size": VOCABULARY, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 48}
HEADS = {"num_query_heads": 4, "num_key_value_heads": 2}
LLAMA3_ROPE = {
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 16,
}
SMOLLM3 = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True, False],
    "layer_types": ["full_attention", "full_attention"],
    "mlp_bias": True,
    "layer_norm_epsilon": 1e-4,
    "max_position_embeddings": 64,
    "rope_theta": 500.0,
    "partial_rotary_factor": 1.0,
}
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**HEADS, "layer_norm_epsilon": 1e-3}),
    "llama3": ("Llama3", {**HEADS, **LLAMA3_ROPE, "tie_word_embeddings": True}),
    "mistral": (
        "Mistral",
        {**HEADS, "sliding_window": 4, "head_dim": 12, "rope_scaling_factor": 2.0},
    ),
    "qwen": ("Qwen", {**HEADS, "use_sliding_window_attention": True, "sliding_window_size": 4}),
    "qwen3": ("Qwen3", {**HEADS, "head_dim": 16, "tie_word_embeddings": True}),
    "smollm3": ("SmolLM3", SMOLLM3),
    "gpt2": ("GPT2", {"num_heads": 4, "max_sequence_length": 64}),
}


def make(name: str, directory: Path) -> keras_hub.models.Backbone:
    kind, options = BACKBONES[name]
    backbone = getattr(keras_hub.models, f"{kind}Backbone")(**SIZES, **options)
    random = np.random.default_rng(0)
    for variable in backbone.weights:
        if "rotary" not in variable.path:
            is_scale = variable.path.endswith(("scale", "gamma"))
            variable.assign(0.2 * random.normal(size=variable.shape) + is_scale)
    backbone.save_to_preset(str(directory))
    model = json.loads((MODELS / "llama" / "tokenizer.json").read_text())["model"]
    assets = directory / "assets" / "tokenizer"
    assets.mkdir(parents=True)
    (assets / "vocabulary.json").write_text(json.dumps(model["vocab"]))
    (assets / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
    (directory / "tokenizer.json").write_text(json.dumps({"config": {"end_token": "<|end|>"}}))
    return backbone


@pytest.mark.parametrize("name", BACKBONES)
def test_it_computes_what_the_backbone_does(name, tmp_path):
    backbone = make(name, tmp_path / "preset")
    files = read_language_model(str(tmp_path / "preset"))
    assert files.tokens["eos_token"] == "<|end|>" and files.stop_ids == (2,)
    assert files.chat_template is None and files.directory is None
    config = decoder_config(files.config, name)
    if isinstance(config, gpt2.GPT2Config):
        if not hasattr(gpt2, "GPT2Decoder"):
            pytest.skip("there is no GPT2Decoder yet")
        network = gpt2.GPT2Decoder(config)
    else:
        network = LlamaDecoder(config)
    network.build()
    assign_weights(network.stored(), files.read)
    ids = tf.constant(np.random.default_rng(1).integers(0, VOCABULARY, (2, 12)), tf.int32)
    positions = tf.tile(tf.range(12)[None], (2, 1))
    ones = tf.ones_like(ids)
    found = network({"token_ids": ids, "segments": ones, "positions": positions})
    expected = backbone({"token_ids": ids, "padding_mask": ones})
    np.testing.assert_allclose(found, expected, atol=1e-4)
    logits = tf.matmul(found, tf.convert_to_tensor(network.head_kernel), transpose_b=True)
    np.testing.assert_allclose(logits, backbone.token_embedding(expected, reverse=True), atol=1e-3)


def test_names_and_shapes_of_gpt2_are_hugging_faces(tmp_path):
    make("gpt2", tmp_path / "preset")
    files = read_language_model(str(tmp_path / "preset"))
    original = read_language_model(str(MODELS / "gpt2"))
    assert files.names == original.names
    wider = {"mlp.c_fc.weight": (32, 48), "mlp.c_fc.bias": (48,), "mlp.c_proj.weight": (48, 32)}
    for name in files.names:
        layer_part = name.split(".", 3)[-1]
        assert files.read(name).shape == wider.get(layer_part, original.read(name).shape), name


def test_weights_in_bfloat16(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    backbone = make("qwen3", tmp_path / "preset")
    files = read_language_model(str(tmp_path / "preset"))
    found = files.read("model.embed_tokens.weight")
    expected = np.asarray(backbone.token_embedding.embeddings, "float32")
    np.testing.assert_array_equal(found, expected)


def change(directory: Path, **values: object) -> None:
    """Changes the preset's configuration, or the backbone's in it."""
    content = json.loads((directory / "config.json").read_text())
    for key, value in values.items():
        (content if key in content else content["config"])[key] = value
    (directory / "config.json").write_text(json.dumps(content))


def point_elsewhere(directory: Path) -> None:
    with h5py.File(directory / "model.weights.h5", "a") as file:
        del file["layers/qwen3_layer_norm/vars/0"]
        outside = [(__file__, 0, 128)]
        file.create_dataset(
            "layers/qwen3_layer_norm/vars/0", (32,), dtype="float32", external=outside
        )


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: change(d, registered_name="keras_hub>BertBackbone"), "a BertBackbone, which is"),
        (
            lambda d: change(d, rope_position_scaling_factor=2.0),
            "rope_position_scaling_factor=2.0, which KerasHub itself does not compute",
        ),
        (lambda d: change(d, config=3), "no language model that can be read from KerasHub"),
        (lambda d: (d / "model.weights.h5").unlink(), "model.weights.h5 is missing"),
        (lambda d: (d / "model.weights.h5").write_bytes(b"x" * 99), "model.weights.h5 is damaged"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda d: (d / "assets/tokenizer/merges.txt").unlink(), "merges.txt cannot be read"),
        (point_elsewhere, "is not held by model.weights.h5 itself"),
    ],
)
def test_a_broken_preset_is_told(break_it, message, tmp_path):
    make("qwen3", tmp_path / "preset")
    break_it(tmp_path / "preset")
    with pytest.raises(UserError, match=message) as error:
        read_language_model(str(tmp_path / "preset")).read("model.norm.weight")
    assert str(error.value).startswith(f"--model={tmp_path / 'preset'}: ")
