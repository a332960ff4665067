"""The configurations of KerasHub's backbones in Hugging Face's terms."""

from collections.abc import Mapping
from typing import Any

from tf_finetune.errors import UserError

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
# KerasHub keeps no such number: those that the published models of the class have.
_MAX_POSITIONS = {"LlamaBackbone": 4096, "Llama3Backbone": 8192}


def hugging_face_config(
    name: str, family: str, values: Mapping[str, Any], tied: bool
) -> dict[str, Any]:
    """Returns the `config.json` that a backbone's configuration stands for.

    Args:
        name: The backbone's class.
        family: Its `model_type`.
        values: The class' arguments.
        tied: Whether the head's weights are the embeddings'.
    """
    vocabulary = values.get("vocabulary_size")
    hidden = values.get("hidden_dim")
    if family == "gpt2":
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": family,
            "vocab_size": vocabulary,
            "n_embd": hidden,
            "n_layer": values.get("num_layers"),
            "n_head": values.get("num_heads"),
            "n_inner": values.get("intermediate_dim"),
            "n_positions": values.get("max_sequence_length"),
            "layer_norm_epsilon": 1e-5,  # A constant in KerasHub's code.
            "activation_function": "gelu_new",
        }
    theta = values.get("rope_max_wavelength", values.get("rope_theta"))
    config = {
        "architectures": [_ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": values.get("intermediate_dim"),
        "num_hidden_layers": values.get("num_layers"),
        "num_attention_heads": values.get("num_query_heads", values.get("num_attention_heads")),
        "num_key_value_heads": values.get("num_key_value_heads"),
        "rms_norm_eps": values.get("layer_norm_epsilon"),
        "rope_theta": theta,
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "max_position_embeddings": _MAX_POSITIONS.get(name, 32768),
        "partial_rotary_factor": values.get("partial_rotary_factor", 1.0),
    }
    return config | _special(family, values)


def _special(family: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys that only some families have."""
    config: dict[str, Any] = {}
    if family == "mistral":
        config["sliding_window"] = values.get("sliding_window")
    if family == "qwen2" and values.get("use_sliding_window_attention"):
        # KerasHub's window is every layer's.
        config |= {"use_sliding_window": True, "max_window_layers": 0}
        config["sliding_window"] = values.get("sliding_window_size")
    if family == "qwen3" and values.get("sliding_window_size"):
        config |= {"use_sliding_window": True, "max_window_layers": 0}
        config["sliding_window"] = values["sliding_window_size"]
    if values.get("head_dim"):
        config["head_dim"] = values["head_dim"]
    if family == "smollm3":
        config |= {
            "attention_bias": values.get("attention_bias"),
            "mlp_bias": values.get("mlp_bias"),
            "no_rope_layers": [int(layer) for layer in values.get("rope_layer_enabled_list", ())],
            "max_position_embeddings": values.get("max_position_embeddings"),
        }
    if (factor := values.get("rope_position_scaling_factor", 1.0)) != 1.0:
        raise UserError(
            f"config.json has rope_position_scaling_factor={factor!r}, which KerasHub itself does "
            "not compute. Give the model in Hugging Face's format, or set it to 1.0."
        )
    factor = values.get("rope_scaling_factor", 1.0)
    if factor != 1.0:
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    if values.get("rope_frequency_adjustment_factor"):
        original = values.get("rope_pretraining_sequence_length")
        config["max_position_embeddings"] = 131072
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": values["rope_frequency_adjustment_factor"],
            "low_freq_factor": values.get("rope_low_freq_factor"),
            "high_freq_factor": values.get("rope_high_freq_factor"),
            "original_max_position_embeddings": original,
        }
    return config
