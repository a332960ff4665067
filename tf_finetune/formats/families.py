"""The families of language models: from a `config.json` to a decoder's configuration."""

from collections.abc import Mapping
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.formats.config_values import check_only, read_flag, read_number, read_size
from tf_finetune.models.gpt2_config import GPT2Config
from tf_finetune.models.llama_config import LlamaConfig
from tf_finetune.models.rope import SCALINGS, Rope

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gpt2")

# What transformers takes for a key that is missing, where that differs between the families.
_MAX_POSITIONS = {"llama": 2048, "mistral": 131072}
_THETA = {"smollm3": 2000000.0}
_TIED = ("smollm3",)
# Families of encoders that people know, to say what to do with them.
_ENCODERS = (
    *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie"),
    *("mobilebert", "modernbert", "mpnet", "nomic_bert", "roberta", "xlm-roberta"),
)
# Heads that do not generate.
_OTHER_HEADS = (
    *("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"),
    *("ForMaskedLM", "ForImageClassification", "ForMultipleChoice"),
)


def decoder_config(config: Mapping[str, Any], handle: str) -> LlamaConfig | GPT2Config:
    """Makes a decoder's configuration of Hugging Face's.

    Args:
        config: The content of a `config.json`; a key that is missing has the value that
            transformers gives it.
        handle: The model's handle, for error messages.

    Returns:
        The configuration.

    Raises:
        UserError: The model is of another kind or family, is quantised, or computes what no decoder
            of ours does; the message names the key.
    """
    try:
        family = _family(config)
        return _gpt2(config) if family == "gpt2" else _llama(family, config)
    except UserError as error:
        raise UserError(f"--model={handle}: its config.json has {error}") from None


def _family(config: Mapping[str, Any]) -> str:
    """Returns the model's family; refuses what does not generate text from token ids alone."""
    family = config.get("model_type")
    heads = config.get("architectures") or []
    readable = f"Models that can be read: {', '.join(FAMILIES)}."
    found = f"model_type={family!r}"
    if family in _ENCODERS:
        raise UserError(
            f"{found}, an encoder, which does not generate text. Fine-tune it with "
            f"run_classifier.py --encoder. {readable}"
        )
    if any("vision" in key or "audio" in key for key in config):
        raise UserError(f"{found}, a model of images or sounds. {readable}")
    if config.get("is_encoder_decoder"):
        raise UserError(f"{found}, an encoder with a decoder. {readable}")
    if isinstance(heads, list) and any(str(head).endswith(_OTHER_HEADS) for head in heads):
        raise UserError(f"architectures={heads!r}, a head that does not generate text. {readable}")
    if family not in FAMILIES:
        raise UserError(f"{found}, a family that is not supported. {readable}")
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UserError(
            f"quantization_config (quant_method={method!r}): weights that are quantised cannot be "
            "read. Take the checkpoint in bfloat16 or float32 that it was made from, or a GGUF "
            "file of it."
        )
    return str(family)


def _llama(family: str, config: Mapping[str, Any]) -> LlamaConfig:
    check_only(config, "hidden_act", "silu", "swish")
    heads = read_size(config, "num_attention_heads")
    hidden = read_size(config, "hidden_size")
    kv_heads = read_size(config, "num_key_value_heads", heads)
    head_dim = read_size(config, "head_dim", 128 if family == "qwen3" else hidden // heads)
    if heads % kv_heads:
        raise UserError(
            f"num_attention_heads={heads}, which cannot be shared by "
            f"num_key_value_heads={kv_heads}. Compare it with the original's."
        )
    if head_dim % 2:
        raise UserError(f"heads of {head_dim} values; RoPE needs an even number of them.")
    layers = read_size(config, "num_hidden_layers")
    max_positions = read_size(config, "max_position_embeddings", _MAX_POSITIONS.get(family, 32768))
    attention_bias = family != "mistral" and read_flag(config, "attention_bias")
    rope_layers = _rope_layers(config, layers) if family == "smollm3" else None
    return LlamaConfig(
        vocab_size=read_size(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=read_size(config, "intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        epsilon=read_number(config, "rms_norm_eps", 1e-6),
        rope=_rope(config, _THETA.get(family, 10000.0), max_positions),
        max_positions=max_positions,
        tie_embeddings=read_flag(config, "tie_word_embeddings", family in _TIED),
        qkv_bias=family == "qwen2" or attention_bias,
        output_bias=family != "qwen2" and attention_bias,
        mlp_bias=family in ("llama", "smollm3") and read_flag(config, "mlp_bias"),
        qk_norm=family == "qwen3",
        windows=_windows(family, config, layers, rope_layers),
        rope_layers=rope_layers,
    )


def _gpt2(config: Mapping[str, Any]) -> GPT2Config:
    check_only(config, "activation_function", "gelu_new", "gelu_pytorch_tanh")
    for key, value in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
        ("tie_word_embeddings", True),
    ):
        check_only(config, key, value)
    hidden = read_size(config, "n_embd")
    heads = read_size(config, "n_head")
    if hidden % heads:
        raise UserError(f"n_embd={hidden}, which cannot be split into n_head={heads} heads.")
    return GPT2Config(
        vocab_size=read_size(config, "vocab_size"),
        hidden_size=hidden,
        num_layers=read_size(config, "n_layer"),
        num_heads=heads,
        intermediate_size=read_size(config, "n_inner", 4 * hidden),
        max_positions=read_size(config, "n_positions", 1024),
        epsilon=read_number(config, "layer_norm_epsilon", 1e-5),
    )


def _rope(config: Mapping[str, Any], theta: float, max_positions: int) -> Rope:
    """Returns the rotary embeddings, from the spelling of transformers 4 or 5."""
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    values = config.get(key) or {}
    if not isinstance(values, dict) or any(isinstance(value, dict) for value in values.values()):
        raise UserError(f"{key}={values!r}; only one set of values for all layers can be read.")
    theta = read_number(values, "rope_theta", read_number(config, "rope_theta", theta))
    part = values.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if part not in (None, 1, 1.0):
        raise UserError(f"partial_rotary_factor={part!r}; only 1.0 can be computed.")
    kind = values.get("rope_type", values.get("type", "default"))
    if kind == "default":
        return Rope(theta=theta)
    if kind == "linear":
        return Rope(theta=theta, scaling="linear", factor=read_number(values, "factor"))
    if kind != "llama3":
        raise UserError(
            f"{key} of type {kind!r}; only {', '.join(SCALINGS)} can be computed. For texts "
            "no longer than those it was first trained on, remove the key."
        )
    original = "original_max_position_embeddings"
    return Rope(
        theta=theta,
        scaling="llama3",
        factor=read_number(values, "factor"),
        low_freq_factor=read_number(values, "low_freq_factor"),
        high_freq_factor=read_number(values, "high_freq_factor"),
        original_max_positions=read_size(
            config, original, read_size(values, original, max_positions)
        ),
    )


def _rope_layers(config: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    """Returns which layers of a SmolLM3 have RoPE: those with a 1 in `no_rope_layers`."""
    listed = config.get("no_rope_layers")
    if listed is None:
        interval = read_size(config, "no_rope_layer_interval", 4)
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    return tuple(bool(value) for value in _per_layer(listed, "no_rope_layers", layers))


def _windows(
    family: str, config: Mapping[str, Any], layers: int, rope_layers: tuple[bool, ...] | None
) -> tuple[int | None, ...] | None:
    """Returns each layer's sliding window in tokens, its own included; None: all are without."""
    if family == "llama":
        return None
    missing = None if family == "smollm3" else 4096
    if config.get("sliding_window", missing) is None:
        return None
    window = read_size(config, "sliding_window", missing)
    if family == "mistral":
        return (window,) * layers
    if not read_flag(config, "use_sliding_window"):
        return None
    if types := config.get("layer_types"):
        slides = [kind == "sliding_attention" for kind in _per_layer(types, "layer_types", layers)]
    elif rope_layers is not None:
        slides = [not has_rope for has_rope in rope_layers]
    else:
        first = config.get("max_window_layers", 28)
        slides = [layer >= first for layer in range(layers)]
    return tuple(window if slide else None for slide in slides) if any(slides) else None


def _per_layer(values: Any, key: str, layers: int) -> list[Any]:
    if not isinstance(values, list) or len(values) < layers:
        raise UserError(f"{key}={values!r}; it must list a value for each of {layers} layers.")
    return values[:layers]
