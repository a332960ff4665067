"""DeBERTa's `config.json`, as arguments of `DebertaEncoder`."""

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


def deberta_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translates a `config.json` of model_type deberta-v2, which is v3's too.

    Args:
        config: Its content; a key that is missing has the value that transformers gives it.

    Returns:
        The arguments of `DebertaEncoder`, sizes, rates and form.

    Raises:
        UserError: It asks for what cannot be computed, or holds impossible values; the message
            names the key.
    """
    check_only(config, "hidden_act", "gelu")
    check_only(config, "conv_groups", 1)
    heads = read_size(config, "num_attention_heads")
    hidden = read_size(config, "hidden_size")
    check_heads(hidden, heads)
    check_only(config, "attention_head_size", hidden // heads)
    positions = read_size(config, "max_position_embeddings", 512)
    layers = read_size(config, "num_hidden_layers")
    convolution = read_size(config, "conv_kernel_size", 0, least=0)
    check_only(config, "conv_act", "tanh", "gelu")
    if convolution and (convolution % 2 == 0 or layers == 1):
        raise UserError(
            f"conv_kernel_size={convolution} and num_hidden_layers={layers}; only an odd size, and "
            "more than one layer, can be computed."
        )
    norms = str(config.get("norm_rel_ebd") or "none").lower().split("|")
    return {
        "vocabulary_size": read_size(config, "vocab_size"),
        "num_layers": layers,
        "num_heads": heads,
        "hidden_size": hidden,
        "intermediate_size": read_size(config, "intermediate_size"),
        "max_seq_length": positions,
        "num_types": read_size(config, "type_vocab_size", 0, least=0),
        "dropout": read_rate(config, "hidden_dropout_prob", 0.1),
        "attention_dropout": read_rate(config, "attention_probs_dropout_prob", 0.1),
        "epsilon": read_number(config, "layer_norm_eps", 1e-7),
        "embedding_size": read_size(config, "embedding_size", hidden),
        "has_positions": read_flag(config, "position_biased_input", True),
        "terms": _terms(config),
        "max_distance": _positive(config, "max_relative_positions") or positions,
        "buckets": _positive(config, "position_buckets"),
        "share_projections": read_flag(config, "share_att_key"),
        "normalizes_distances": "layer_norm" in [norm.strip() for norm in norms],
        "convolution_size": convolution,
        "convolution_activation": config.get("conv_act") or "tanh",
    }


def _terms(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns what distances are scored with; empty: they are not."""
    found = config.get("pos_att_type") or []
    listed = found.lower().split("|") if isinstance(found, str) else found
    terms = [str(term).strip() for term in listed] if isinstance(listed, list) else [""]
    if not set(terms) <= {"c2p", "p2c"}:
        raise UserError(
            f"pos_att_type={found!r}; only 'c2p', 'p2c', or both, 'p2c|c2p', can be computed."
        )
    return tuple(sorted(set(terms))) if read_flag(config, "relative_attention") else ()


def _positive(config: Mapping[str, Any], key: str) -> int:
    """Returns an integer, 0 for one below: DeBERTa says -1 for none."""
    value = config.get(key)
    if value is not None and type(value) is not int:
        raise UserError(f"{key}={value!r}; it must be an integer; -1 stands for none.")
    return max(value or 0, 0)
