"""What a config.json says, as a decoder's configuration."""

import json
from pathlib import Path

import pytest

from tf_finetune.errors import UserError
from tf_finetune.formats.families import decoder_config
from tf_finetune.models.gpt2_config import GPT2Config
from tf_finetune.models.rope import Rope

MODELS = Path(__file__).parent / "language_models"

# That of meta-llama/Llama-3.2-1B, as transformers 4 wrote it.
LLAMA_32 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "eos_token_id": 128001,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}


def read(name: str) -> dict:
    return json.loads((MODELS / name / "config.json").read_text())


def test_llama_as_transformers_4_wrote_it():
    config = decoder_config(LLAMA_32, "x")
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (128256, 2048, 8192)
    assert (config.num_layers, config.num_heads, config.num_kv_heads) == (16, 32, 8)
    assert (config.head_dim, config.epsilon, config.max_positions) == (64, 1e-5, 131072)
    assert config.rope == Rope(500000.0, "llama3", 32.0, 1.0, 4.0, 8192)
    assert config.tie_embeddings
    assert not (config.qkv_bias or config.output_bias or config.mlp_bias or config.qk_norm)
    assert config.windows is None and config.rope_layers is None


def test_both_spellings_of_rope_are_the_same():
    scaling = dict(LLAMA_32["rope_scaling"])
    new = {key: value for key, value in LLAMA_32.items() if not key.startswith("rope_")}
    new["rope_parameters"] = scaling | {"rope_theta": 500000.0}
    assert decoder_config(new, "x") == decoder_config(LLAMA_32, "x")
    old = LLAMA_32 | {"rope_scaling": {"type": "linear", "factor": 2}}
    assert decoder_config(old, "x").rope == Rope(500000.0, "linear", 2.0)
    assert decoder_config(LLAMA_32 | {"rope_scaling": None}, "x").rope == Rope(500000.0)


def test_keys_that_are_missing_have_transformers_defaults():
    few = ("model_type", "vocab_size", "hidden_size", "intermediate_size")
    few += ("num_hidden_layers", "num_attention_heads")
    config = decoder_config({key: LLAMA_32[key] for key in few}, "x")
    assert (config.num_kv_heads, config.head_dim, config.epsilon) == (32, 64, 1e-6)
    assert (config.max_positions, config.tie_embeddings, config.rope) == (2048, False, Rope())


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("llama3", {}, {"qkv_bias": True, "output_bias": True, "mlp_bias": True, "head_dim": 12}),
        ("llama3", {}, {"tie_embeddings": False, "epsilon": 1e-3}),
        ("mistral", {}, {"windows": (5, 5), "num_kv_heads": 1, "qkv_bias": False}),
        ("mistral", {"sliding_window": None}, {"windows": None}),
        ("qwen2", {}, {"windows": (None, 4), "qkv_bias": True, "output_bias": False}),
        ("qwen2", {"layer_types": None, "max_window_layers": 0}, {"windows": (4, 4)}),
        ("qwen2", {"use_sliding_window": False}, {"windows": None}),
        ("qwen2", {}, {"rope": Rope(1e6, "linear", 4.0)}),
        ("qwen3", {}, {"qk_norm": True, "head_dim": 8, "qkv_bias": False}),
        ("qwen3", {"attention_bias": True}, {"qkv_bias": True, "output_bias": True}),
        ("smollm3", {}, {"rope_layers": (True, False, True), "windows": None}),
        ("smollm3", {"no_rope_layers": None}, {"rope_layers": (True, False, True)}),
        (
            *("smollm3", {"use_sliding_window": True, "sliding_window": 3, "layer_types": None}),
            {"windows": (None, 3, None)},
        ),
    ],
)
def test_what_the_families_have_of_their_own(name, changes, expected):
    config = decoder_config(read(name) | changes, "x")
    assert {key: getattr(config, key) for key in expected} == expected


def test_gpt2():
    config = read("gpt2")
    assert decoder_config(config, "x") == GPT2Config(270, 32, 2, 4, 40, 64, 1e-5)
    assert decoder_config(config | {"n_inner": None}, "x").intermediate_size == 128


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"model_type": "bert"}, r"'bert', an encoder, which.*run_classifier.*llama, mis"),
        ("llama", {"model_type": "gemma3"}, r"'gemma3', a family that is not supported.*qwen3, sm"),
        ("llama", {"model_type": "idefics", "vision_config": {}}, "a model of images"),
        ("llama", {"model_type": "t5", "is_encoder_decoder": True}, "an encoder with a decoder"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "does not generate text"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quant_method='gptq'"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu'; only 'silu' or 'swish'"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "'yarn'; only default, l",
        ),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "of type 'dynamic'"),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "rope_parameters of type 'longr"),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "factor=None; it must be a number"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "only one set"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ("llama", {"num_hidden_layers": None}, "num_hidden_layers=None; it must be an integer"),
        ("llama", {"vocab_size": "270"}, "vocab_size='270'; it must be an integer from 1"),
        ("llama", {"num_key_value_heads": 3}, "cannot be shared by num_key_value_heads=3"),
        ("llama", {"head_dim": 7}, "heads of 7 values"),
        ("llama", {"rms_norm_eps": 0}, "rms_norm_eps=0; it must be a number above 0"),
        ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings='yes'; it must be true or"),
        ("smollm3", {"no_rope_layers": [1]}, r"no_rope_layers=\[1\]; it must list a value for"),
        ("gpt2", {"activation_function": "relu"}, "activation_function='relu'; only 'gelu_new'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", {"n_head": 5}, "n_embd=32, which cannot be split into n_head=5 heads"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(name, changes, message):
    with pytest.raises(UserError, match=message) as error:
        decoder_config(read(name) | changes, "the/handle")
    assert str(error.value).startswith("--model=the/handle: its config.json has ")
