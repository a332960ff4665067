"""Language models in GGUF files, in Hugging Face's terms: configuration, names, layout, text."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune.errors import UserError
from tf_finetune.formats.decoder_tokenizers import gguf_tokenizer
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.gguf_file import GGUFFile
from tf_finetune.formats.language_model import LanguageModelFiles, stop_ids
from tf_finetune.models.rope import Rope

_FAMILIES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
# llama.cpp rotates neighbours, not halves, in these: the rows of query and key are in that order.
_PERMUTED = ("llama", "smollm3")
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GPT2_NAMES = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
# Those of its kernels: GGUF's are [outputs, inputs], GPT-2's [inputs, outputs].
_GPT2_KERNELS = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def read_gguf(handle: str, path: Path) -> LanguageModelFiles:
    """Opens a language model in a GGUF file.

    Args:
        handle: The handle, as the user wrote it.
        path: The file.

    Returns:
        The model; a tensor is dequantised when it is read.

    Raises:
        UserError: The file is damaged, in parts, or of a family that cannot be read.
    """
    file = GGUFFile(path)
    family = file.metadata.get("general.architecture")
    if family not in _FAMILIES:
        raise UserError(
            f"{path} has general.architecture={family!r}; only {', '.join(_FAMILIES)} can be read. "
            "Give the model in Hugging Face's format if its family is another one of ours."
        )
    if file.metadata.get("split.count", 1) > 1:
        raise UserError(f"{path} is one of several parts. Join them with llama-gguf-split --merge.")
    tokenizer, tokens = gguf_tokenizer(path, file.metadata), _tokens(file.metadata)
    config = _config(file, family)
    decoder_config(config, handle)
    places = {own: name for name in file.tensors if (own := _name(name, family))}

    def load(name: str) -> np.ndarray:
        return _stored(name, file.read(places[name]), config)

    ends = [file.metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    return LanguageModelFiles(
        handle=handle,
        config=config,
        names=frozenset(places),
        load=load,
        tokenizer=tokenizer,
        chat_template=file.metadata.get("tokenizer.chat_template"),
        tokens=tokens,
        stop_ids=stop_ids(tokenizer, tokens, ends),
        directory=None,
    )


def _tokens(metadata: dict[str, Any]) -> dict[str, str]:
    """Returns the special tokens that templates may name."""
    vocabulary = metadata["tokenizer.ggml.tokens"]
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    ids = {
        f"{name}_token": metadata.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in names.items()
    }
    return {
        name: vocabulary[id_]
        for name, id_ in ids.items()
        if id_ is not None and id_ < len(vocabulary)
    }


def _config(file: GGUFFile, family: str) -> dict[str, Any]:
    """Returns the `config.json` that the file's metadata stand for."""
    values = {
        key.removeprefix(f"{family}."): value
        for key, value in file.metadata.items()
        if key.startswith(f"{family}.")
    }
    if values.get("expert_count"):
        raise UserError(
            f"{family}.expert_count={values['expert_count']}, a mixture of experts, which cannot "
            "be read."
        )
    vocabulary, hidden = file.tensors["token_embd.weight"].shape
    config: dict[str, Any] = {
        "architectures": [_FAMILIES[family]],
        "model_type": family,
        "vocab_size": vocabulary,
        **{
            f"{name}_token_id": file.metadata.get(f"tokenizer.ggml.{key}_token_id")
            for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        },
    }
    heads: Any = values.get("attention.head_count")
    if family == "gpt2":
        return config | {
            "n_embd": hidden,
            "n_layer": values.get("block_count"),
            "n_head": heads,
            "n_inner": values.get("feed_forward_length"),
            "n_positions": values.get("context_length"),
            "layer_norm_epsilon": _short(values.get("attention.layer_norm_epsilon")),
            "activation_function": "gelu_new",
        }
    head_dim = values.get("attention.key_length", values.get("rope.dimension_count"))
    config |= {
        "hidden_size": hidden,
        "intermediate_size": values.get("feed_forward_length"),
        "num_hidden_layers": values.get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": values.get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": values.get("context_length"),
        "rms_norm_eps": _short(values.get("attention.layer_norm_rms_epsilon")),
        "rope_theta": _short(values.get("rope.freq_base", 10000.0)),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors and family != "qwen2",
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
    }
    if scaling := _rope_scaling(file, values, config):
        config["rope_scaling"] = scaling
    if family == "qwen3":
        del config["mlp_bias"]
    if family == "smollm3":
        # llama.cpp has no key for it either.
        config["no_rope_layer_interval"] = 4
    return config


def _rope_scaling(
    file: GGUFFile, values: dict[str, Any], config: dict[str, Any]
) -> dict[str, Any] | None:
    """Returns `rope_scaling`, whose numbers for Llama 3.1 are found from a tensor of GGUF's.

    Raises:
        UserError: The tensor is of other numbers than those that Llama 3.1 and later have.
    """
    kind = values.get("rope.scaling.type", "none")
    if kind != "none":
        return {"rope_type": kind, "factor": _short(values.get("rope.scaling.factor", 1.0))}
    if "rope_freqs.weight" not in file.tensors:
        return None
    divisors = file.read("rope_freqs.weight")
    original = values.get("rope.scaling.original_context_length", 8192)
    numbers = {
        "factor": float(divisors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    theta, head_dim = config["rope_theta"], config["head_dim"]
    scaled = Rope(theta, "llama3", **numbers, original_max_positions=original)
    expected = Rope(theta).frequencies(head_dim) / scaled.frequencies(head_dim)
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-3):
        raise UserError(
            "its tensor rope_freqs.weight scales RoPE by other factors than Llama 3.1's "
            "(low_freq_factor 1, high_freq_factor 4, 8192 positions). Give the model in Hugging "
            "Face's format."
        )
    return {"rope_type": "llama3", **numbers, "original_max_position_embeddings": original}


def _short(value: Any) -> Any:
    """Returns the shortest decimal number with the same float32, 1e-05 for 9.99999974e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _name(stored: str, family: str) -> str | None:
    """Returns Hugging Face's name of a tensor; None: it has none."""
    names = _GPT2_NAMES if family == "gpt2" else _NAMES
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", stored)
    if found is None or found[2] not in names:
        return None
    layers = "transformer.h" if family == "gpt2" else "model.layers"
    layer = f"{layers}.{found[1]}." if found[1] else ""
    return f"{layer}{names[found[2]]}.{found[3]}"


def _stored(name: str, value: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Returns a tensor in the layout of Hugging Face's."""
    if name.endswith(_GPT2_KERNELS):
        return value.T
    if config["model_type"] not in _PERMUTED or (".q_proj." not in name and ".k_proj." not in name):
        return value
    query = ".q_proj." in name
    heads = config["num_attention_heads" if query else "num_key_value_heads"]
    pairs = value.reshape(heads, value.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(value.shape)
