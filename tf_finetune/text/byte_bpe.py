"""A tokenizer.json for byte-level BPE, from a vocabulary and merges (GPT-2, Llama 3, Qwen, ...)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.errors import UserError

# Token types of GGUF files.
CONTROL, USER_DEFINED = 3, 4

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": use_regex,
    }


def _split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


# By the names of `tokenizer.ggml.pre`: what cuts a text into words.
_PRE_TOKENIZERS = {
    "gpt-2": [_byte_level(use_regex=True)],
    "smollm": [{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)],
    "llama-bpe": [_split(_LLAMA3), _byte_level(use_regex=False)],
    "qwen2": [_split(_QWEN2), _byte_level(use_regex=False)],
}
_PRE_TOKENIZERS["default"] = _PRE_TOKENIZERS["gpt-2"]


def byte_bpe_json(
    vocabulary: Mapping[str, int],
    merges: Sequence[str],
    pre_tokenizer: str,
    special: Sequence[str],
    *,
    added: Sequence[str] = (),
    bos: str | None = None,
) -> str:
    """Writes the tokenizer.json of a byte-level BPE.

    Args:
        vocabulary: Tokens, in GPT-2's letters for bytes, and their ids.
        merges: Pairs of tokens with a space between, in order of rank.
        pre_tokenizer: How a text is cut before: one of GGUF's names for it.
        special: Tokens of `vocabulary` that are control tokens.
        added: Tokens of `vocabulary` that stay whole wherever a text has them.
        bos: The special token that stands before each text; None: none does.

    Returns:
        The file's content.

    Raises:
        UserError: The way of cutting is not known.
    """
    if pre_tokenizer not in _PRE_TOKENIZERS:
        raise UserError(
            f"the tokenizer cuts texts in the way {pre_tokenizer!r}, which is not supported "
            f"(supported: {', '.join(_PRE_TOKENIZERS)}). Give the model in Hugging Face's format: "
            "its tokenizer.json says everything."
        )
    tokens = sorted([*special, *added], key=vocabulary.__getitem__)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(t, vocabulary[t], t in set(special)) for t in tokens],
        "normalizer": {"type": "NFC"} if pre_tokenizer == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _PRE_TOKENIZERS[pre_tokenizer]},
        "post_processor": bos_processor(bos, vocabulary),
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            # Llama 3 takes a word that is a token whole, without merges.
            "ignore_merges": pre_tokenizer == "llama-bpe",
            "byte_fallback": False,
            "vocab": dict(vocabulary),
            "merges": [pair.split(" ") for pair in merges],
        },
    }
    return json.dumps(content, ensure_ascii=False)


def byte_bpe_json_from_gguf(metadata: Mapping[str, Any]) -> str:
    """Writes the tokenizer.json of a GGUF file whose `tokenizer.ggml.model` is "gpt2".

    Args:
        metadata: The file's keys `tokenizer.ggml.*`, without that prefix, and their values: tokens,
            merges, token_type, pre, bos_token_id, add_bos_token.

    Returns:
        The file's content.

    Raises:
        UserError: The way of cutting is not known.
    """
    tokens, types = metadata["tokens"], metadata["token_type"]
    typed = list(zip(tokens, types, strict=True))
    return byte_bpe_json(
        {token: id for id, token in enumerate(tokens)},
        metadata["merges"],
        metadata.get("pre", "default"),
        [token for token, kind in typed if kind == CONTROL],
        added=[token for token, kind in typed if kind == USER_DEFINED],
        bos=tokens[metadata["bos_token_id"]] if metadata.get("add_bos_token") else None,
    )


def added_token(content: str, id: int, special: bool) -> dict[str, Any]:
    """Returns an entry of `added_tokens`."""
    return {
        "id": id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def bos_processor(bos: str | None, vocabulary: Mapping[str, int]) -> dict[str, Any] | None:
    """Returns the post-processor that puts one token before each text."""
    if bos is None:
        return None
    start = {"SpecialToken": {"id": bos, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            start,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 0}},
        ],
        "special_tokens": {bos: {"id": bos, "ids": [vocabulary[bos]], "tokens": [bos]}},
    }
