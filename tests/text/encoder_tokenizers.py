"""The tokenizers of encoders as they are shipped, made of two real vocabularies."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from tf_finetune.text.byte_level import ByteLevelPreprocessor
from tf_finetune.text.preprocessor import TokenPreprocessor
from tf_finetune.text.unigram import UnigramPreprocessor

COLLAPSE = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
SPLIT = {"type": "WhitespaceSplit"}
STRIP_RIGHT = {"type": "Strip", "strip_left": False, "strip_right": True}
QUOTES = [
    {"type": "Replace", "pattern": {"String": quote}, "content": '"'} for quote in ("``", "''")
]
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
# Name: normalizers, None for the charsmap; pre-tokenizers; processor of pairs, if not XLM-R's.
UNIGRAM: dict[str, tuple[list[Any], list[Any], str | None]] = {
    "xlm-roberta": ([None], [SPLIT, METASPACE], None),
    "xlm-roberta of transformers 4": (
        [None, STRIP_RIGHT, COLLAPSE | {"content": "▁"}],
        [METASPACE],
        None,
    ),
    "albert": (
        [*QUOTES, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, None],
        [SPLIT, METASPACE],
        "bert",
    ),
    "deberta-v3": (
        [{"type": "Strip", "strip_left": True, "strip_right": True}, None, COLLAPSE],
        [METASPACE],
        "bert",
    ),
    "deberta-v3 of transformers 5": (
        [
            {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "},
            {"type": "NFC"},
            STRIP_RIGHT,
        ],
        [METASPACE],
        "bert",
    ),
}
BYTE_LEVEL = ("roberta", "roberta with a prefix space", "modernbert")
KINDS = ("multilingual-e5", *UNIGRAM, *BYTE_LEVEL)


def unigram(name: str, shipped: str) -> dict[str, Any]:
    """A tokenizer.json with a part of the real vocabulary."""
    content = json.loads(shipped)
    if name == "multilingual-e5":
        return content
    charsmap = content["normalizer"]["normalizers"][0]
    steps, splitters, processor = UNIGRAM[name]
    content["normalizer"]["normalizers"] = [step or charsmap for step in steps]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": splitters}
    del content["model"]["vocab"][40_000:]
    content["model"]["vocab"].append(["<mask>", 0.0])
    content["added_tokens"][-1]["id"] = 40_000
    if processor == "bert":
        content["post_processor"] = {
            "type": "BertProcessing",
            "sep": ["</s>", 2],
            "cls": ["<s>", 0],
        }
    return content


def byte_level(name: str, files: tuple[Path, Path]) -> dict[str, Any]:
    """RoBERTa's, or ModernBERT's with GPT-2's vocabulary in place of its own."""
    vocabulary = json.loads(files[0].read_text(encoding="utf-8"))
    lines = files[1].read_text(encoding="utf-8").split("\n")[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    del vocabulary["<|endoftext|>"]
    ids = {token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}
    ids |= {token: index + 4 for token, index in vocabulary.items()}
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space="prefix" in name)
    special = ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    if name == "modernbert":
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.add_tokens([" " * length for length in range(24, 1, -1)])
        tokenizer.add_tokens(["|||EMAIL_ADDRESS|||", "[unused0]", "[unused1]"])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B </s>",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        )
    return json.loads(tokenizer.to_str())


def pair(content: dict[str, Any]) -> tuple[TokenPreprocessor, Tokenizer]:
    """Ours, and Hugging Face's that leaves special tokens in a text alone."""
    source = json.dumps(content)
    is_bpe = content["model"]["type"] == "BPE"
    ours = ByteLevelPreprocessor if is_bpe else UnigramPreprocessor
    theirs = Tokenizer.from_str(source)
    theirs.encode_special_tokens = True
    return ours(content, source=source), theirs
