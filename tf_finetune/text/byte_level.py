"""Byte-level BPE (RoBERTa, CodeBERT, ModernBERT), in the TensorFlow graph."""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text
import tokenizers

from tf_finetune.errors import UserError
from tf_finetune.text.fingerprint import hash_parts
from tf_finetune.text.normalizers import WHITE_SPACE, make_normalizer
from tf_finetune.text.preprocessor import TokenPreprocessor
from tf_finetune.text.row_format import read_row_format
from tf_finetune.text.token_bytes import BYTES
from tf_finetune.text.tokenizer_json import REMEDY, added_tokens, check, flat, tokens_by_id
from tf_finetune.text.words import tokenize_words

_Component = Mapping[str, Any]

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # SentencePiece's types of pieces.
_BPE = 2

# GPT-2's words. What its `\s+(?!\S)` is for, RE2 cannot say: see `_words`.
_WORD = (
    rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^{WHITE_SPACE}\p{{L}}\p{{N}}]+"
    rf"|[{WHITE_SPACE}]+"
)
# Stands between words: no part of UTF-8, so that no text has it and nothing in _WORD matches it.
_BORDER = b"\xff"

# A string of TensorFlow's may end at a NUL; these are no bytes' characters.
_NUL, _OTHER = "\u0100", "\u0101"

_MODEL: dict[str, tuple[Any, ...]] = {
    "type": ("BPE", None),
    "dropout": (None,),
    "continuing_subword_prefix": ("", None),
    "end_of_word_suffix": ("", None),
    "byte_fallback": (False, None),
    "ignore_merges": (False, None),
}
_ADDED: dict[str, tuple[Any, ...]] = {
    "single_word": (False, None),
    "lstrip": (False, None),
    "rstrip": (False, None),
}


class ByteLevelPreprocessor(TokenPreprocessor):
    """BPE of bytes as GPT-2's, from a tokenizer.json.

    Equal, id for id, to Hugging Face's `tokenizers` 0.23.3 that runs the same file (no difference
    in 17,000 texts, real, code and random, nor in any character of the basic plane), but for

    - special tokens in the text: there `</s>` typed by a user becomes the control token, here it
      stays text; tokens that were added and are not special are found in the text as there;
    - a combining mark behind such a token of letters, where the text is normalized before;
    - a pair of which both segments are cut to an odd total: see `BertPreprocessor`.

    A byte that is not UTF-8 is left out.

    Attributes:
        vocabulary: The token of each id, in GPT-2's letters for bytes.
        tokenizer_json: Content of the tokenizer.json.
    """

    def __init__(
        self, content: Mapping[str, Any], pad: str | None = None, source: str | None = None
    ) -> None:
        """Builds the tokenizer.

        Args:
            content: Content of a tokenizer.json.
            pad: The token that pads; None: `[PAD]` or `<pad>`.
            source: The file's text; None: there is none yet.

        Raises:
            UserError: It is damaged, or has what cannot be done in the graph.
        """
        check(content.get("model"), "model", _MODEL)
        vocab = content["model"].get("vocab")
        if not isinstance(vocab, dict):
            raise UserError(f"model.vocab={str(vocab)[:40]}; only an object of ids can be read")
        self.vocabulary = tokens_by_id(vocab.items(), content)
        row = read_row_format(content.get("post_processor"), self.vocabulary, pad)
        super().__init__(**vars(row))
        self.tokenizer_json = source or json.dumps(content, ensure_ascii=False)
        steps = flat(content.get("normalizer"), "normalizers")
        self._normalizers = [make_normalizer(step) for step in steps]
        self._adds_space = _adds_space(content)
        added = _read_added(content, self._adds_space)
        # Of two that begin at one place the longer counts.
        self._added = "|".join(map(re.escape, sorted(added, key=len, reverse=True)))
        proto = _proto(self.vocabulary, _ranks(content["model"]), added)
        settings = json.dumps([steps, self._adds_space, self._added, vars(row)])
        self._fingerprint = hash_parts(["byte-level BPE", settings, proto])
        self._model = tf_text.SentencepieceTokenizer(model=proto, out_type=tf.int32)

    def fingerprint(self) -> str:
        """Returns a hash of the vocabulary, the merges and all that is done to texts and rows."""
        return self._fingerprint

    def tokenize(self, segments: Sequence[tf.Tensor]) -> list[tf.RaggedTensor]:
        """Cuts each string [batch] into tokens, int32 [batch, (tokens)]."""
        return [self._tokenize(segment) for segment in segments]

    def _tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        return tokenize_words(self._words(text), self._merge)

    def _merge(self, words: tf.Tensor) -> tf.RaggedTensor:
        # SentencePiece takes characters: each byte becomes the one of its number.
        characters = tf.strings.unicode_transcode(words, "ISO-8859-1", "UTF-8")
        return self._model.tokenize(tf.strings.regex_replace(characters, r"\x00", _NUL))

    def _words(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Returns string [batch, (words)]; words may be empty."""
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="ignore")
        for normalize in self._normalizers:
            text = normalize(text)
        if self._adds_space:
            text = tf.strings.regex_replace(text, "^[^ ]", r" \0")
        word = _WORD
        if self._added:
            text = tf.strings.regex_replace(text, self._added, _BORDER + rb"\0" + _BORDER)
            word = f"{self._added}|{_WORD}"
        # Of the blanks before a word the last one is the word's.
        blank = f"[{WHITE_SPACE}]"
        last = f"({blank})({blank}[^{WHITE_SPACE}])"
        text = tf.strings.regex_replace(text, last, rb"\1" + _BORDER + rb"\2")
        text = tf.strings.regex_replace(text, word, _BORDER + rb"\0")
        return tf.strings.split(text, _BORDER)


def _adds_space(content: _Component) -> bool:
    """Returns whether a blank is put before each text."""
    parts = flat(content.get("pre_tokenizer"), "pretokenizers")
    if [part["type"] for part in parts] != ["ByteLevel"]:
        kinds = ", ".join(repr(part["type"]) for part in parts) or None
        raise UserError(f"pre_tokenizer {kinds}; only 'ByteLevel' can be read. {REMEDY}")
    allowed = {"add_prefix_space": (True, False), "use_regex": (True, None)}
    check(parts[0], "pre_tokenizer", allowed)
    return bool(parts[0]["add_prefix_space"])


def _read_added(content: _Component, adds_space: bool) -> set[str]:
    """Returns the tokens that are looked for in the text before it is split."""
    found = [token for token in added_tokens(content) if not token.get("special")]
    for token in found:
        check(token, f"added token {token['content']!r}", _ADDED)
        if not token["content"] or adds_space:
            raise UserError(
                f"the added token {token['content']!r} beside add_prefix_space={adds_space}; only "
                f"one of some characters, beside false, can be read. {REMEDY}"
            )
    return {token["content"] for token in found}


def _ranks(model: _Component) -> dict[str, int]:
    """Returns the rank of the merge that makes each token, of those that merges can make.

    SentencePiece merges what makes a token in any way, `tokenizers` only the two parts that a rule
    names. That is the same if each token that its own letters are merged into comes from one rule:
    what stands within its borders is merged alike wherever it stands, so that of its last two parts
    there is one pair only.
    """
    try:
        merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
        ranks = {left + right: rank for rank, (left, right) in enumerate(merges)}
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE(model["vocab"], merges))
    except Exception as error:  # That of `tokenizers` is no other.
        raise UserError(f"damaged merges: {type(error).__name__}: {error}") from error
    encodings = bpe.encode_batch([*ranks])
    made = {
        token
        for token, encoding in zip(ranks, encodings, strict=True)
        if encoding.ids == [model["vocab"][token]]
    }
    counts = Counter(left + right for left, right in merges)
    twice = sorted(token for token in made if counts[token] > 1)
    if twice:
        raise UserError(f"{len(twice)} tokens that two merges make, as {twice[0]!r}. {REMEDY}")
    return {token: rank for token, rank in ranks.items() if token in made}


def _proto(vocabulary: Sequence[str], ranks: Mapping[str, int], added: Collection[str]) -> bytes:
    """Writes the model in SentencePiece's format, with each byte as the character of its number."""
    from sentencepiece import sentencepiece_model_pb2  # Costs an import of protobuf.

    bytes_left = {*BYTES}
    taken = {"".join(map(_character, token.encode())) for token in added}
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    for index, token in enumerate(vocabulary):
        # No text becomes a control piece; no character of a piece has such a number.
        piece, score, kind = f"{_OTHER}{index}", 0.0, _CONTROL
        if token in added:
            piece, kind = "".join(map(_character, token.encode())), _USER_DEFINED
        elif token in ranks or token in BYTES:
            letters = "".join(_character(BYTES[letter]) for letter in token)
            # A merge of less rank comes first; what no merge makes, a byte, has no score.
            if letters not in taken:
                piece, score, kind = letters, -float(ranks.get(token, 0)), _NORMAL
            bytes_left.discard(token)
        proto.pieces.add(piece=piece, score=score, type=kind)
    if bytes_left:
        raise UserError(
            f"no token for {len(bytes_left)} of the 256 bytes, as {min(bytes_left)!r}; a text with "
            f"one could not be read. {REMEDY}"
        )
    proto.pieces.add(piece=_OTHER, type=_UNKNOWN)  # There must be one; all bytes are known.
    proto.trainer_spec.model_type = _BPE
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    proto.normalizer_spec.escape_whitespaces = False
    return proto.SerializeToString()


def _character(byte: int) -> str:
    return chr(byte) if byte else _NUL
