"""An encoder's tokenizer from the files of its publisher."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.formats.handles import read_json, read_object
from tf_finetune.formats.wordpiece_files import read_vocab_txt, read_wordpiece
from tf_finetune.text.byte_bpe import byte_bpe_json
from tf_finetune.text.byte_level import ByteLevelPreprocessor
from tf_finetune.text.preprocessor import TokenPreprocessor
from tf_finetune.text.row_format import default_row_format, template_processing
from tf_finetune.text.tokenizer_json import REMEDY, tokens_by_id
from tf_finetune.text.unigram import UnigramPreprocessor
from tf_finetune.text.unigram_json import unigram_json

# SentencePiece models, and the family whose tokenizer each is.
_SENTENCEPIECE = {
    "spm.model": "deberta-v2",
    "spiece.model": "albert",
    "sentencepiece.bpe.model": "xlm-roberta",
}
_FLAGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space")
_OTHER_TOKENS = {"unk_token": ("[UNK]", "<unk>"), "mask_token": ("[MASK]", "<mask>")}
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def read_tokenizer(handle: str, directory: Path) -> TokenPreprocessor:
    """Reads the tokenizer of an encoder.

    Args:
        handle: The encoder's handle, for error messages.
        directory: Contains `tokenizer.json`; or else `vocab.txt`, or `vocab.json` and `merges.txt`,
            or a SentencePiece model (`spm.model`, `spiece.model`, `sentencepiece.bpe.model`).
            `tokenizer_config.json` says what these do not.

    Returns:
        The preprocessor: a `BertPreprocessor` for WordPiece, a `UnigramPreprocessor` or a
        `ByteLevelPreprocessor`.

    Raises:
        UserError: A file is missing or damaged, or the tokenizer is of a kind that cannot be run
            inside the graph.
    """
    config = _read_config(handle, directory)
    pad = _pad_token(handle, directory, config)
    file, vocab_txt = directory / "tokenizer.json", directory / "vocab.txt"
    if file.is_file() and (not vocab_txt.is_file() or _is_wordpiece(file)):
        content, source = read_json(handle, file), file.read_text(encoding="utf-8")
        return _made(handle, file, lambda: _from_json(content, source, config, pad))
    if vocab_txt.is_file():
        return _made(handle, vocab_txt, lambda: read_vocab_txt(vocab_txt, config, pad))
    merges = directory / "merges.txt"
    if merges.is_file():
        vocabulary = read_json(handle, directory / "vocab.json")
        return _made(handle, merges, lambda: _from_merges(vocabulary, merges, config, pad))
    for name, family in _SENTENCEPIECE.items():
        model = directory / name
        if model.is_file():
            family = "camembert" if _is_camembert(directory, config) else family
            return _made(handle, model, partial(_from_sentencepiece, model, family, config, pad))
    raise UserError(
        f"--encoder={handle}: {vocab_txt} is missing, and so are tokenizer.json, merges.txt, "
        f"{', '.join(_SENTENCEPIECE)}. Copy the tokenizer's files from where the model comes from."
    )


def special_tokens(preprocessor: Any) -> dict[str, str]:
    """Returns the special tokens by the names that Hugging Face's `tokenizer_config.json` uses.

    Args:
        preprocessor: One of `read_tokenizer`.

    Returns:
        By `cls_token`, `sep_token`, `pad_token`, and by `unk_token`, `mask_token`, `bos_token` and
        `eos_token` if there is one, the token.
    """
    tokens, known = preprocessor.vocabulary, {*preprocessor.vocabulary}
    start, end = tokens[preprocessor.start_id], tokens[preprocessor.end_id]
    found = {"cls_token": start, "sep_token": end, "pad_token": tokens[preprocessor.pad_id]}
    for name, choices in _OTHER_TOKENS.items():
        there = [token for token in choices if token in known]
        if there:  # MPNet has both <unk> and [UNK], and uses the latter.
            found[name] = there[0]
    if start == "<s>":
        found |= {"bos_token": start, "eos_token": end}
    return found


def _made(handle: str, file: Path, make: Callable[[], TokenPreprocessor]) -> TokenPreprocessor:
    """Returns a tokenizer that was run once, so that a damaged one is told with its file."""
    try:
        preprocessor = make()
        preprocessor.tokenize([tf.constant(["a"])])
        if file.name != "tokenizer.json":
            _check_added_tokens(file.with_name("added_tokens.json"), preprocessor)
    except UserError as error:
        raise UserError(f"--encoder={handle}: {file}: {error}.") from error
    except tf.errors.OpError as error:
        raise UserError(
            f"--encoder={handle}: {file} cannot be run inside the graph: {error.message}. {REMEDY}."
        ) from error
    return preprocessor


def _check_added_tokens(file: Path, preprocessor: Any) -> None:
    """Refuses tokens that were added to a vocabulary, beside it: they would be split as words."""
    added = read_object(file) if file.is_file() else {}
    if missing := [token for token in added if token not in preprocessor.vocabulary]:
        raise UserError(
            f"{file.name} adds {missing[0]!r}, which is found only by a tokenizer.json. Write one: "
            "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )


def _read_config(handle: str, directory: Path) -> dict[str, Any]:
    file = directory / "tokenizer_config.json"
    config = read_json(handle, file) if file.is_file() else {}
    for key in _FLAGS:
        if not isinstance(config.get(key), bool | None):
            raise UserError(
                f"--encoder={handle}: {file} has {key}={config[key]!r}; allowed are true, false "
                "and null."
            )
    return config


def _pad_token(handle: str, directory: Path, config: Mapping[str, Any]) -> str | None:
    """Returns the token that pads, as the files beside the tokenizer's say; None: none does."""
    file = directory / "special_tokens_map.json"
    for source in (config, read_json(handle, file) if file.is_file() else {}):
        token = source.get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    return None


def _is_camembert(directory: Path, config: Mapping[str, Any]) -> bool:
    """Whether a `sentencepiece.bpe.model` is CamemBERT's, whose ids are not XLM-R's."""
    file = directory / "config.json"
    kind = read_object(file).get("model_type") if file.is_file() else None
    return kind == "camembert" or "Camembert" in str(config.get("tokenizer_class"))


def _is_wordpiece(file: Path) -> bool:
    """Returns whether a tokenizer.json is of a WordPiece; what is damaged is none."""
    try:
        return _kind(read_object(file)) == "WordPiece"
    except UserError:
        return False


def _kind(content: Mapping[str, Any]) -> Any:
    """Returns the kind of a tokenizer.json's model, which old ones do not name."""
    model = content.get("model")
    model = model if isinstance(model, dict) else {}
    implied = "BPE" if "merges" in model else "Unigram" if "unk_id" in model else "WordPiece"
    return model.get("type") or implied


def _from_json(
    content: Mapping[str, Any], source: str, config: Mapping[str, Any], pad: str | None
) -> TokenPreprocessor:
    padding = content.get("padding")
    if pad is None and isinstance(padding, dict) and isinstance(padding.get("pad_token"), str):
        pad = padding["pad_token"]
    kind = _kind(content)
    if kind == "WordPiece":
        return read_wordpiece(content, config, pad, source)
    if kind == "Unigram":
        return UnigramPreprocessor(content, pad, source)
    if kind == "BPE":
        return ByteLevelPreprocessor(content, pad, source)
    raise UserError(f"model.type={kind!r}; only WordPiece, Unigram and BPE can be read. {REMEDY}")


def _from_merges(
    vocabulary: Mapping[str, Any], file: Path, config: Mapping[str, Any], pad: str | None
) -> ByteLevelPreprocessor:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}. It must be text in UTF-8") from error
    merges = [line for line in lines if line and not line.startswith("#version")]
    tokens = tokens_by_id(vocabulary.items(), {})
    special = [token for token in _ROBERTA if token in vocabulary]
    content = json.loads(byte_bpe_json(vocabulary, merges, "gpt-2", special))
    content["post_processor"] = template_processing(default_row_format(tokens, pad), tokens)
    splitter = content["pre_tokenizer"]["pretokenizers"][0]
    splitter["add_prefix_space"] = bool(config.get("add_prefix_space"))
    return ByteLevelPreprocessor(content, pad)


def _from_sentencepiece(
    file: Path, family: str, config: Mapping[str, Any], pad: str | None
) -> UnigramPreprocessor:
    if config.get("split_by_punct"):
        raise UserError(
            "beside a tokenizer_config.json with split_by_punct=true; only false can be computed. "
            f"{REMEDY}"
        )
    return UnigramPreprocessor(unigram_json(file.read_bytes(), family, config), pad)
