"""The tokenizers of language models, from the files and keys that checkpoints hold them in."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.formats.handles import read_object
from tf_finetune.formats.weight_parts import check_fetched
from tf_finetune.text.byte_bpe import added_token, byte_bpe_json, byte_bpe_json_from_gguf
from tf_finetune.text.sentencepiece import sentencepiece_json, sentencepiece_json_from_gguf
from tf_finetune.text.tokenizer import Tokenizer

# How the families split texts before the merges, where no file says it; llama.cpp's names.
_SPLITTERS = {"gpt2": "gpt-2", "llama": "llama-bpe", "smollm3": "llama-bpe", "mistral": "llama-bpe"}
_SPLITTERS |= {"qwen2": "qwen2", "qwen3": "qwen2"}


def read_tokenizer(directory: Path, family: str) -> Tokenizer:
    """Reads the tokenizer of a folder in Hugging Face's format.

    Args:
        directory: Contains `tokenizer.json`; or else `tokenizer.model`, of SentencePiece; or else
            `vocab.json` and `merges.txt`, of a byte-level BPE. For the last two,
            `tokenizer_config.json` lists the tokens that were added.
        family: The network's `model_type`.

    Returns:
        The tokenizer.

    Raises:
        UserError: There is none, or it is damaged.
    """
    file = directory / "tokenizer.json"
    if file.is_file():
        return _tokenizer(file, lambda: file.read_text(encoding="utf-8"))
    config_file = directory / "tokenizer_config.json"
    config = read_object(config_file) if config_file.is_file() else {}
    model = directory / "tokenizer.model"
    if model.is_file():
        return _tokenizer(model, lambda: _sentencepiece(model, config))
    if (directory / "vocab.json").is_file():
        merges = directory / "merges.txt"
        special = [token for _, token, is_special in _added(config) if is_special]
        vocabulary = read_object(directory / "vocab.json")
        vocabulary |= {token: id_ for id_, token, _ in _added(config)}
        return _tokenizer(merges, lambda: _byte_bpe(vocabulary, merges, special, family))
    raise UserError(
        f"{file} is missing, and so are tokenizer.model and vocab.json. Copy it from where the "
        "model comes from."
    )


def gguf_tokenizer(path: Path, metadata: Mapping[str, Any]) -> Tokenizer:
    """Makes the tokenizer of a GGUF file's metadata.

    Raises:
        UserError: It has none, or one of a kind that cannot be read.
    """
    prefix = "tokenizer.ggml."
    own = {key.removeprefix(prefix): v for key, v in metadata.items() if key.startswith(prefix)}
    kinds = {"gpt2": byte_bpe_json_from_gguf, "llama": sentencepiece_json_from_gguf}
    if own.get("model") not in kinds:
        raise UserError(
            f"{path} has {prefix}model={own.get('model')!r}; only gpt2 and llama can be read. Give "
            "the model in Hugging Face's format."
        )
    return _tokenizer(path, lambda: kinds[own["model"]](own))


def keras_hub_tokenizer(directory: Path, family: str) -> tuple[Tokenizer, dict[str, str]]:
    """Reads a KerasHub preset's tokenizer, and the special tokens that templates may name.

    Args:
        directory: The preset's, with `tokenizer.json` and `assets/tokenizer`.
        family: The network's `model_type`.

    Raises:
        UserError: A file is missing or damaged.
    """
    values = read_object(directory / "tokenizer.json").get("config", {})
    assets = directory / "assets" / "tokenizer"
    model = assets / "vocabulary.spm"
    if model.is_file():
        tokenizer = _tokenizer(model, lambda: _sentencepiece(model, {}))
        return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary, merges = read_object(assets / "vocabulary.json"), assets / "merges.txt"
    tokenizer = _tokenizer(merges, lambda: _byte_bpe(vocabulary, merges, (), family))
    names = {
        "bos_token": values.get("start_token") or values.get("bos_token"),
        "eos_token": values.get("end_token") or values.get("eos_token") or "<|endoftext|>",
    }
    return tokenizer, {name: token for name, token in names.items() if token in vocabulary}


def _tokenizer(file: Path, content: Callable[[], str]) -> Tokenizer:
    """Returns a tokenizer that was run once, so that a damaged one is told with its file."""
    try:
        check_fetched(file)
        tokenizer = Tokenizer(content())
        tokenizer.encode("a")
        return tokenizer
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read: {type(error).__name__}: {error}. Compare it with the "
            "original's."
        ) from error


def _sentencepiece(file: Path, config: Mapping[str, Any]) -> str:
    """Returns the `tokenizer.json` of a SentencePiece model, as transformers makes it."""
    content = json.loads(
        sentencepiece_json(
            file.read_bytes(),
            prepend="first" if config.get("legacy") is False else "always",
            add_bos=config.get("add_bos_token") is not False,
        )
    )
    known = {token["content"] for token in content["added_tokens"]}
    for id_, token, is_special in _added(config):
        if token not in known:
            content["added_tokens"].append(added_token(token, id_, is_special))
    return json.dumps(content, ensure_ascii=False)


def _byte_bpe(
    vocabulary: Mapping[str, int], merges: Path, special: Iterable[str], family: str
) -> str:
    """Returns the `tokenizer.json` of a byte-level BPE."""
    lines = merges.read_text(encoding="utf-8").split("\n")
    pairs = [line for line in lines if line and not line.startswith("#version")]
    unmerged = [*dict.fromkeys([*special, *_unmerged(vocabulary, pairs)])]
    return byte_bpe_json(vocabulary, pairs, _SPLITTERS[family], unmerged)


def _unmerged(vocabulary: Iterable[str], merges: Sequence[str]) -> list[str]:
    """Returns the tokens that no text is split into: neither a byte nor the result of a merge."""
    made = {merge.replace(" ", "") for merge in merges}
    return [token for token in vocabulary if len(token) > 1 and token not in made]


def _added(config: Mapping[str, Any]) -> list[tuple[int, str, bool]]:
    """Returns id, content and whether it is special of each token in `added_tokens_decoder`."""
    listed = config.get("added_tokens_decoder") or {}
    found = [(int(id_), token) for id_, token in listed.items()]
    return [(id_, token["content"], bool(token.get("special"))) for id_, token in sorted(found)]
