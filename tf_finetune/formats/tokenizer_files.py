"""A BERT's tokenizer from the files of its publisher: `vocab.txt`, or else `tokenizer.json`."""

from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.formats.handles import read_json
from tf_finetune.text.wordpiece import (
    BertPreprocessor,
    bert_preprocessor,
    is_cased,
    read_vocabulary,
)

# What tokenizer.json must say, for our WordPiece does nothing else. None: the key may be absent.
_WORDPIECE: dict[str, dict[str, tuple[Any, ...]]] = {
    "model": {
        "type": ("WordPiece", None),
        "unk_token": ("[UNK]",),
        "continuing_subword_prefix": ("##",),
        "max_input_chars_per_word": (100,),
    },
    "normalizer": {
        "type": ("BertNormalizer",),
        "clean_text": (True,),
        "handle_chinese_chars": (True,),
        "lowercase": (True, False),
        "strip_accents": (None, True, False),
    },
    "pre_tokenizer": {"type": ("BertPreTokenizer",)},
}
_AS_SAVED_MODEL = (
    "Give the model as a SavedModel, and its preprocessor's SavedModel by --preprocessor."
)


def read_tokenizer(handle: str, directory: Path) -> BertPreprocessor:
    """Reads the tokenizer of a BERT.

    Args:
        handle: The encoder's handle, for error messages.
        directory: Contains `vocab.txt` and, with the casing of its text, `tokenizer_config.json`;
            without the first, `tokenizer.json` says it all.

    Returns:
        The preprocessor.

    Raises:
        UserError: A file is missing or damaged, or the tokenizer is no WordPiece as BERT's.
    """
    config_file = directory / "tokenizer_config.json"
    config = read_json(handle, config_file) if config_file.is_file() else {}
    if config.get("tokenize_chinese_chars", True) is False:
        raise UserError(
            f"--encoder={handle}: {config_file} has tokenize_chinese_chars=false; only "
            f"tokenizers that make each Chinese character a word can be read. {_AS_SAVED_MODEL}"
        )
    for key in ("do_lower_case", "strip_accents"):
        if not isinstance(config.get(key), bool | None):
            raise UserError(
                f"--encoder={handle}: {config_file} has {key}={config[key]!r}; allowed are true, "
                "false and null."
            )
    vocabulary_file, file = directory / "vocab.txt", directory / "tokenizer.json"
    if vocabulary_file.is_file():
        try:
            vocabulary = read_vocabulary(vocabulary_file)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"--encoder={handle}: {vocabulary_file} cannot be read: {error}. It must be text "
                "in UTF-8, one token a line."
            ) from error
        lower_case = config.get("do_lower_case")
        lower_case = not is_cased(vocabulary) if lower_case is None else lower_case
        return bert_preprocessor(handle, vocabulary, lower_case, config.get("strip_accents"))
    if not file.is_file():
        raise UserError(
            f"--encoder={handle}: {vocabulary_file} is missing, and so is tokenizer.json. Put the "
            "model's WordPiece vocabulary there, one token a line."
        )
    content = read_json(handle, file)
    try:
        vocabulary = _read_vocabulary(content)
        normalizer = content["normalizer"]
        if config.get("do_lower_case") not in (None, normalizer["lowercase"]):
            raise UserError(
                f"normalizer.lowercase={normalizer['lowercase']}, but tokenizer_config.json has "
                f"do_lower_case={config['do_lower_case']}. Make them agree"
            )
    except UserError as error:
        raise UserError(f"--encoder={handle}: {file} has {error}.") from error
    return bert_preprocessor(
        handle, vocabulary, bool(normalizer["lowercase"]), normalizer.get("strip_accents")
    )


def _read_vocabulary(content: dict[str, Any]) -> list[str]:
    """Returns the token of each id in a `tokenizer.json`; checks that it is a BERT's WordPiece."""
    for part, keys in _WORDPIECE.items():
        section = content.get(part)
        for key, allowed in keys.items():
            value = section.get(key) if isinstance(section, dict) else None
            if value not in allowed:
                choices = " or ".join(repr(choice) for choice in allowed if choice is not None)
                raise UserError(
                    f"{part}.{key}={value!r}; only {choices} can be read. {_AS_SAVED_MODEL[:-1]}"
                )
    vocab, added = content["model"].get("vocab"), content.get("added_tokens")
    if not isinstance(vocab, dict):
        raise UserError(
            f"model.vocab={str(vocab)[:40]}; only an object of tokens and ids can be read"
        )
    ids: dict[str, Any] = dict(vocab)
    for token in added if isinstance(added, list) else []:
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(text, str):
            raise UserError(f"an added token without content: {token!r}")
        if text not in ids and not token.get("special"):
            raise UserError(
                f"the added token {text!r}, which is looked for in the text before it is split; "
                "only WordPiece's own tokens and special ones can be read. Write all tokens by "
                "their ids into vocab.txt, one a line, to have it split as any word"
            )
        ids.setdefault(text, token.get("id"))
    for token, index in ids.items():
        if type(index) is not int or index < 0:
            raise UserError(f"the id {index!r} for {token!r}; ids are integers from 0")
        if "\n" in token or token != token.encode(errors="ignore").decode():
            raise UserError(f"the token {token!r}, which is not a line of UTF-8")
    vocabulary = sorted(ids, key=ids.__getitem__)
    for index, token in enumerate(vocabulary):
        if ids[token] < index:
            raise UserError(
                f"id {ids[token]} for both {vocabulary[index - 1]!r} and {token!r}; each token "
                "must have its own. Take the original's file"
            )
        if ids[token] > index:
            raise UserError(
                f"no token of id {index}, but {token!r} of id {ids[token]}; ids must count from 0 "
                "without a hole. Take the original's file"
            )
    return vocabulary
