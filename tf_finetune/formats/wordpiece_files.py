"""WordPiece tokenizers from `tokenizer.json` or `vocab.txt`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.text.row_format import default_row_format, read_row_format
from tf_finetune.text.tokenizer_json import REMEDY, added_tokens, check, tokens_by_id
from tf_finetune.text.wordpiece import BertPreprocessor, is_cased, read_vocabulary
from tf_finetune.text.words import WordRules

# What tokenizer.json must say, for our WordPiece does nothing else. None: the key may be absent.
_WORDPIECE: dict[str, dict[str, tuple[Any, ...]]] = {
    "model": {"type": ("WordPiece", None), "continuing_subword_prefix": ("##",)},
    "normalizer": {
        "type": ("BertNormalizer",),
        "clean_text": (True, False),
        "handle_chinese_chars": (True, False),
        "lowercase": (True, False),
        "strip_accents": (None, True, False),
    },
    "pre_tokenizer": {"type": ("BertPreTokenizer",)},
}
# What tokenizer_config.json calls the normalizer's settings.
_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# RE2 counts no further than a thousand.
_LONGEST_WORD = 999


def read_wordpiece(
    content: Mapping[str, Any],
    config: Mapping[str, Any],
    pad: str | None = None,
    source: str | None = None,
) -> BertPreprocessor:
    """Makes the tokenizer of a tokenizer.json.

    Args:
        content: Content of the tokenizer.json.
        config: Content of `tokenizer_config.json`.
        pad: The token that pads; None: `[PAD]` or `<pad>`.
        source: The file's text; None: there is none yet.

    Returns:
        The preprocessor.

    Raises:
        UserError: It is damaged, has what cannot be done in the graph, or contradicts `config`.
    """
    for part, keys in _WORDPIECE.items():
        check(content.get(part), part, keys)
    model, normalizer = content["model"], content["normalizer"]
    vocab, longest = model.get("vocab"), model.get("max_input_chars_per_word", 100)
    if not isinstance(vocab, dict):
        raise UserError(
            f"model.vocab={str(vocab)[:40]}; only an object of tokens and ids can be read"
        )
    if type(longest) is not int or not 0 < longest <= _LONGEST_WORD:
        raise UserError(
            f"model.max_input_chars_per_word={longest!r}; only 1 to {_LONGEST_WORD} can be read. "
            f"{REMEDY}"
        )
    for token in added_tokens(content):
        if token["content"] not in vocab and not token.get("special"):
            raise UserError(
                f"the added token {token['content']!r}, which is looked for in the text before it "
                "is split; only WordPiece's own tokens and special ones can be read. Write all "
                "tokens by their ids into vocab.txt, one a line, and remove tokenizer.json to have "
                "it split as any word"
            )
    for key, name in _SETTINGS.items():
        if config.get(key) not in (None, normalizer[name]):
            raise UserError(
                f"normalizer.{name}={normalizer[name]}, but tokenizer_config.json has "
                f"{key}={config[key]}. Make them agree"
            )
    vocabulary = tokens_by_id(vocab.items(), content)
    broken = next((token for token in vocabulary if "\n" in token), None)
    if broken is not None:
        raise UserError(f"the token {broken!r}, which is not a line; no text has it")
    return BertPreprocessor(
        vocabulary,
        normalizer["lowercase"],
        normalizer.get("strip_accents"),
        rules=WordRules(normalizer["clean_text"], normalizer["handle_chinese_chars"], longest),
        row=read_row_format(content.get("post_processor"), vocabulary, pad),
        unknown=str(model.get("unk_token")),
        tokenizer_json=source,
    )


def read_vocab_txt(
    file: Path, config: Mapping[str, Any], pad: str | None = None
) -> BertPreprocessor:
    """Makes the tokenizer of a vocab.txt, as BERT's or MPNet's.

    Args:
        file: The tokens, one a line.
        config: Content of `tokenizer_config.json`.
        pad: The token that pads; None: `[PAD]` or `<pad>`.

    Returns:
        The preprocessor.

    Raises:
        UserError: It is no text, or no such vocabulary.
    """
    try:
        vocabulary = read_vocabulary(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read: {error}. It must be text in UTF-8, one token a line"
        ) from error
    lower_case = config.get("do_lower_case")
    return BertPreprocessor(
        vocabulary,
        not is_cased(vocabulary) if lower_case is None else lower_case,
        config.get("strip_accents"),
        rules=WordRules(handle_chinese_chars=config.get("tokenize_chinese_chars") is not False),
        row=default_row_format(vocabulary, pad) if pad else None,
    )
