"""ModernBERT's `config.json`, as arguments of `ModernBertEncoder`."""

from collections.abc import Mapping
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.formats.config_values import (
    check_heads,
    check_only,
    read_flag,
    read_number,
    read_rate,
    read_size,
)

_KINDS = ("full_attention", "sliding_attention")


def modernbert_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translates a `config.json` of model_type modernbert, in the spelling of transformers 4 or 5.

    Args:
        config: Its content; a key that is missing has the value that transformers gives it.

    Returns:
        The arguments of `ModernBertEncoder`, sizes, rates and form.

    Raises:
        UserError: It asks for what cannot be computed, or holds impossible values; the message
            names the key.
    """
    check_only(config, "hidden_activation", "gelu")
    heads = read_size(config, "num_attention_heads", 12)
    hidden = read_size(config, "hidden_size", 768)
    check_heads(hidden, heads)
    if hidden // heads % 2:
        raise UserError(f"heads of {hidden // heads} values; RoPE needs an even number of them.")
    layers = read_size(config, "num_hidden_layers", 22)
    return {
        "vocabulary_size": read_size(config, "vocab_size", 50368),
        "num_layers": layers,
        "num_heads": heads,
        "hidden_size": hidden,
        "intermediate_size": read_size(config, "intermediate_size", 1152),
        "max_seq_length": read_size(config, "max_position_embeddings", 8192),
        "dropout": read_rate(config, "mlp_dropout", 0.0),
        "attention_dropout": read_rate(config, "attention_dropout", 0.0),
        "embedding_dropout": read_rate(config, "embedding_dropout", 0.0),
        "epsilon": read_number(config, "norm_eps", 1e-5),
        "window": read_size(config, "local_attention", 128, least=2),
        "local_layers": _local_layers(config, layers),
        "global_theta": _theta(config, "full_attention", "global_rope_theta", 160000.0),
        "local_theta": _theta(config, "sliding_attention", "local_rope_theta", 10000.0),
        "attention_bias": read_flag(config, "attention_bias"),
        "mlp_bias": read_flag(config, "mlp_bias"),
        "norm_bias": read_flag(config, "norm_bias"),
    }


def _local_layers(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    kinds = config.get("layer_types")
    if kinds is None:
        interval = read_size(config, "global_attn_every_n_layers", 3)
        return tuple(number for number in range(layers) if number % interval)
    if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= set(_KINDS):
        raise UserError(
            f"layer_types={kinds!r}; it must list {' or '.join(_KINDS)} for each of the "
            f"num_hidden_layers={layers} layers."
        )
    return tuple(number for number, kind in enumerate(kinds) if kind == "sliding_attention")


def _theta(config: Mapping[str, Any], kind: str, old_key: str, default: float) -> float:
    """Returns the base of the rotary frequencies of one kind of layers."""
    if scaling := config.get("rope_scaling"):
        raise UserError(f"rope_scaling={scaling!r}; only unscaled positions can be computed.")
    every = config.get("rope_parameters") or {}
    values = every.get(kind) or {} if isinstance(every, dict) else None
    if not isinstance(values, dict):
        raise UserError(
            f"rope_parameters={every!r}; it must give values for each kind of layer, "
            f"{' and '.join(_KINDS)}."
        )
    check_only(values, "rope_type", "default")
    return read_number(values, "rope_theta", read_number(config, old_key, default))
