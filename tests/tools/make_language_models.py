"""Makes tests/formats/language_models: a tiny random checkpoint of each family, and its logits.

    .venv-bench/bin/python tests/tools/make_language_models.py [directory]

Needs torch and transformers, which the tests do not. Beside each checkpoint, as transformers saves
it, `expected.npz` holds three texts' ids (`ids_0` ...) with their logits (`logits_0` ...), and two
prompts (`prompt_0`, ...) with what `generate` adds to them greedily (`answer_0`, ...).
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

DIRECTORY = Path(__file__).resolve().parents[1] / "formats" / "language_models"
LENGTHS = (14, 9, 11)
NEW_TOKENS = 12

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
# By the checkpoint's name its `model_type` and what else its `config.json` says.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "llama",
        {**SIZES, "num_hidden_layers": 3, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    ),
    "llama3": (
        "llama",
        {
            **SIZES,
            "head_dim": 12,
            "attention_bias": True,
            "mlp_bias": True,
            "rms_norm_eps": 1e-3,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "mistral": ("mistral", {**SIZES, "sliding_window": 5, "num_key_value_heads": 1}),
    "qwen2": (
        "qwen2",
        {
            **SIZES,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 1,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0},
        },
    ),
    "qwen3": (
        "qwen3",
        {**SIZES, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 8},
    ),
    "smollm3": (
        "smollm3",
        {**SIZES, "num_hidden_layers": 3, "no_rope_layer_interval": 2, "pad_token_id": None},
    ),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 40, "n_positions": 64}),
}
# Of the kind of Llama 2 and Mistral; the others' split bytes.
SENTENCEPIECE = ("mistral",)
TEMPLATE = """{% for message in messages -%}
<|start|>{{ message['role'] }}
{{ message['content'] }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|start|>assistant
{% endif %}"""
MERGES = ["t h", "Ġ th", "i n", "e r", "a n", "Ġ a", "Ġth e", "o n", "r e", "in g"]


def byte_bpe() -> Tokenizer:
    """Returns a byte-level BPE of all bytes and a few merges."""
    tokens = ["<|end_of_text|>", "<|start|>", "<|end|>", "<|pad|>"]
    tokens += sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens += [merge.replace(" ", "") for merge in MERGES]
    model = models.BPE(
        {token: index for index, token in enumerate(tokens)},
        [tuple(merge.split(" ")) for merge in MERGES],
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens[:4]])
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    """Returns a BPE with byte fallback, as transformers converts those of SentencePiece."""
    tokens = ["<unk>", "<s>", "</s>", "<|start|>", "<|end|>"]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    merges = [merge.replace("Ġ", "▁") for merge in MERGES]
    tokens += sorted(set("▁abcdefghijklmnopqrstuvwxyz.,?"))
    tokens += [merge.replace(" ", "") for merge in merges]
    model = models.BPE(
        {token: index for index, token in enumerate(tokens)},
        [tuple(merge.split(" ")) for merge in merges],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens[:5]])
    return tokenizer


def make_model(kind: str, values: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Any:
    """Returns a model of random weights, none of which is without effect."""
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **{"pad_token_id": tokenizer.pad_token_id, **values},
    )
    torch.manual_seed(len(kind))
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_norm = weight.ndim == 1 and not name.endswith("bias")
            weight.copy_(torch.randn_like(weight) * 0.2 + is_norm)
    return model


def expected(model: Any) -> dict[str, np.ndarray]:
    """Returns ids and logits; checks that padding and packing do not change transformers'."""
    random = np.random.default_rng(0)
    rows = [random.integers(5, model.config.vocab_size, length) for length in LENGTHS]
    result: dict[str, np.ndarray] = {}
    for number, row in enumerate(rows):
        with torch.no_grad():
            logits = model(torch.tensor(row[None])).logits[0].numpy()
        result |= {f"ids_{number}": row.astype("int32"), f"logits_{number}": logits}
        if number < 2:
            answer = model.generate(
                torch.tensor(row[None]),
                attention_mask=torch.ones(1, len(row), dtype=torch.int64),
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )[0, len(row) :]
            answer = answer.numpy().astype("int32")
            result |= {f"prompt_{number}": row.astype("int32"), f"answer_{number}": answer}
    alone = [result[f"logits_{number}"] for number in range(len(rows))]
    for left in (True, False):
        np.testing.assert_allclose(padded(model, rows, left), np.concatenate(alone), atol=2e-5)
    np.testing.assert_allclose(packed(model, rows), np.concatenate(alone), atol=2e-5)
    return result


def padded(model: Any, rows: list[np.ndarray], left: bool) -> np.ndarray:
    """Returns the logits of all rows' tokens, computed in one batch."""
    longest = max(LENGTHS)
    ids, mask = np.full((len(rows), longest), 3), np.zeros((len(rows), longest), "int64")
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(len(row))
        ids[number, place], mask[number, place] = row, 1
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    with torch.no_grad():
        logits = model(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            position_ids=torch.tensor(positions),
        ).logits.numpy()
    return logits[mask == 1]


def packed(model: Any, rows: list[np.ndarray]) -> np.ndarray:
    """Returns the logits of all rows' tokens, computed in one row whose positions restart."""
    positions = np.concatenate([np.arange(len(row)) for row in rows])[None]
    with torch.no_grad():
        ids = torch.tensor(np.concatenate(rows)[None])
        output = model(ids, position_ids=torch.tensor(positions), use_cache=False)
    return output.logits[0].numpy()


def main(directory: Path) -> None:
    """Writes all checkpoints."""
    for name, (kind, values) in MODELS.items():
        folder = directory / name
        shutil.rmtree(folder, ignore_errors=True)
        if name in SENTENCEPIECE:
            names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=sentencepiece_bpe(), **names)
        else:
            names = {"eos_token": "<|end|>", "pad_token": "<|pad|>"}
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_bpe(), **names)
        tokenizer.chat_template = TEMPLATE
        model = make_model(kind, values, tokenizer)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "model.safetensors").chmod(0o644)
        print(name, f"{(folder / 'model.safetensors').stat().st_size} bytes of weights")
        np.savez_compressed(folder / "expected.npz", **expected(model))


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY)
