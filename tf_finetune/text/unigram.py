"""Unigram tokenizers (XLM-R, CamemBERT, ALBERT, DeBERTa-v3), in the TensorFlow graph."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text

from tf_finetune.errors import UserError
from tf_finetune.text.fingerprint import hash_parts
from tf_finetune.text.normalizers import collapses_blanks, make_normalizer
from tf_finetune.text.preprocessor import TokenPreprocessor
from tf_finetune.text.row_format import read_row_format
from tf_finetune.text.tokenizer_json import REMEDY, added_tokens, check, flat, tokens_by_id
from tf_finetune.text.words import tokenize_words

_Component = Mapping[str, Any]

_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3  # SentencePiece's types of pieces.
_UNIGRAM = 1
# Characters that a charsmap may remove, or turn into a space. Which, it is asked: see `_blanks`.
_UNSEEN = [*range(0x21), *range(0x7F, 0xA1), 0x1680, *range(0x2000, 0x2010), *range(0x2028, 0x2030)]
_UNSEEN += [*range(0x205F, 0x2065), 0x2581, 0x3000, 0xFEFF, 0xFFFD]
_METASPACE: dict[str, tuple[Any, ...]] = {
    "replacement": ("▁",),
    "prepend_scheme": ("always", None),
    "add_prefix_space": (True, None),
    "split": (True, None),
}


class UnigramPreprocessor(TokenPreprocessor):
    """Unigram as in SentencePiece, from a tokenizer.json.

    Equal, id for id, to Hugging Face's `tokenizers` 0.23.3 that runs the same file, but for

    - special tokens in the text: there `</s>` typed by a user becomes the control token, here it
      stays text;
    - pieces of equal score, as "..." and "." in "....": which comes first hangs on the rounding of
      sums, there of 64 bits, here of 32 (2 of 6,000 real texts with multilingual-e5);
    - marks that follow their letter (NFD), half-width kana with sound marks, Korean in single
      letters: there the charsmap is applied to the shortest part of such a cluster and the rest is
      lost or left, here, as in SentencePiece, which trained the models, to the longest (6 of 3,000
      random strings of mixed Unicode);
    - a pair of which both segments are cut to an odd total: see `BertPreprocessor`.

    A byte that is not UTF-8 is left out.

    Attributes:
        vocabulary: The token of each id.
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
        pieces = _read_pieces(content)
        ids = ((piece, index) for index, (piece, _) in enumerate(pieces))
        self.vocabulary = tokens_by_id(ids, content)
        row = read_row_format(content.get("post_processor"), self.vocabulary, pad)
        super().__init__(**vars(row))
        self.tokenizer_json = source or json.dumps(content, ensure_ascii=False)
        before, charsmap, after = _read_normalizers(content)
        splits = _read_pre_tokenizer(content)
        if not (splits or any(map(collapses_blanks, after if charsmap else before))):
            raise UserError(
                "neither the pre_tokenizer 'WhitespaceSplit' nor a normalizer that makes one blank "
                f"of many; one of them must be there to be read. {REMEDY}"
            )
        # White space that the charsmap leaves is stripped here, the rest by SentencePiece.
        strips = [step for step in after if step["type"] == "Strip"]
        self._normalizers = [make_normalizer(step) for step in (*before, *strips)]
        proto = sentencepiece_model(content)
        self._model = tf_text.SentencepieceTokenizer(model=proto, out_type=tf.int32)
        self._space, removed = _unseen(self._model, splits)
        # Otherwise a blank at the end of a text is a token.
        strips_end = splits or any(step.get("strip_right") for step in strips)
        self._end = None if strips_end else f"(?s).* {removed}"
        self._blank_id = next(
            (index for index, (piece, _) in enumerate(pieces) if piece == "▁"),
            content["model"]["unk_id"],
        )
        settings = json.dumps([before, strips, splits, vars(row)])
        self._fingerprint = hash_parts(["Unigram", settings, proto])

    def fingerprint(self) -> str:
        """Returns a hash of the vocabulary and of all that is done to texts and rows."""
        return self._fingerprint

    def tokenize(self, segments: Sequence[tf.Tensor]) -> list[tf.RaggedTensor]:
        """Cuts each string [batch] into pieces, int32 [batch, (tokens)]."""
        return [self._tokenize(segment) for segment in segments]

    def _tokenize(self, text: tf.Tensor) -> tf.RaggedTensor:
        text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="ignore")
        for normalize in self._normalizers:
            text = normalize(text)
        text = tf.strings.regex_replace(text, self._space, " ")
        pieces = tokenize_words(tf.strings.split(text, " "), self._model.tokenize)
        if self._end is None:
            return pieces
        ends = tf.cast(tf.strings.regex_full_match(text, self._end), tf.int64)
        blanks = tf.fill([tf.reduce_sum(ends)], self._blank_id)
        return tf.concat([pieces, tf.RaggedTensor.from_row_lengths(blanks, ends)], axis=1)


def _read_pieces(content: _Component) -> list[tuple[str, float]]:
    allowed = {"type": ("Unigram", None), "byte_fallback": (False, None)}
    check(content.get("model"), "model", allowed)
    vocab, unknown = content["model"].get("vocab"), content["model"].get("unk_id")
    try:
        pieces = [(piece + "", score + 0.0) for piece, score in vocab]
    except (TypeError, ValueError) as error:
        raise UserError(f"model.vocab, which is no list of pieces and scores: {error}") from error
    names = {piece for piece, _ in pieces}
    if "" in names or len(names) < len(pieces):
        raise UserError(
            "model.vocab, which has an empty piece or one piece twice. Take the original's file"
        )
    if type(unknown) is not int or not 0 <= unknown < len(pieces):
        raise UserError(f"model.unk_id={unknown!r} for {len(pieces)} pieces")
    for token in added_tokens(content):
        if not token.get("special"):
            raise UserError(
                f"the added token {token['content']!r}, which is looked for in the text before it "
                f"is split; only special ones can be read. {REMEDY}"
            )
    return pieces


def _read_normalizers(content: _Component) -> tuple[list[_Component], bytes, list[_Component]]:
    """Returns the normalizers before the charsmap, the charsmap, and those after it."""
    steps = flat(content.get("normalizer"), "normalizers")
    at = [index for index, step in enumerate(steps) if step["type"] == "Precompiled"]
    if not at:
        return [*steps], b"", []
    before, charsmap, after = steps[: at[0]], steps[at[0]], steps[at[0] + 1 :]
    for step in after:
        # SentencePiece normalizes by the charsmap and does these things then.
        if step["type"] != "Strip" and not collapses_blanks(step):
            raise UserError(
                f"normalizer {json.dumps(step)[:90]} after 'Precompiled', where only 'Strip' and "
                f"'Replace' of blanks by one can be read. {REMEDY}"
            )
    try:
        return [*before], base64.b64decode(charsmap["precompiled_charsmap"], validate=True), after
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"a damaged normalizer 'Precompiled': {error}") from error


def _read_pre_tokenizer(content: _Component) -> bool:
    """Returns whether texts are split at white space."""
    parts = flat(content.get("pre_tokenizer"), "pretokenizers")
    kinds = [part["type"] for part in parts]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise UserError(
            f"pre_tokenizer {', '.join(map(repr, kinds)) or None}; only 'Metaspace', also after "
            f"'WhitespaceSplit', can be read. {REMEDY}"
        )
    check(parts[-1], "pre_tokenizer", _METASPACE)
    return len(parts) == 2


def sentencepiece_model(content: _Component) -> bytes:
    """Makes a SentencePiece model whose ids are those of a tokenizer.json's Unigram.

    Args:
        content: Content of the tokenizer.json.

    Returns:
        Its ModelProto. It does what the charsmap does, but none of the other normalizers.

    Raises:
        UserError: The vocabulary or the charsmap is damaged.
    """
    from sentencepiece import sentencepiece_model_pb2  # Costs an import of protobuf.

    special = {token["content"] for token in added_tokens(content)}
    unknown = content["model"]["unk_id"]
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    for index, (piece, score) in enumerate(_read_pieces(content)):
        # No text becomes a control piece.
        kind = _UNKNOWN if index == unknown else _CONTROL if piece in special else _NORMAL
        proto.pieces.add(piece=piece, score=score, type=kind)
    proto.trainer_spec.model_type = _UNIGRAM
    proto.normalizer_spec.precompiled_charsmap = _read_normalizers(content)[1]
    proto.normalizer_spec.add_dummy_prefix = True
    proto.normalizer_spec.remove_extra_whitespaces = True
    proto.normalizer_spec.escape_whitespaces = True
    return proto.SerializeToString()


def _unseen(model: tf_text.SentencepieceTokenizer, splits: bool) -> tuple[str, str]:
    """Returns what matches one space, and what any characters that the charsmap removes."""
    characters = [chr(point) for point in _UNSEEN]
    *rows, spaced, joined = model.tokenize([f"a{c}a" for c in [*characters, " ", ""]]).to_list()
    found = list(zip(characters, rows, strict=True))
    removed = [c for c, row in found if row == joined]
    # What the charsmap leaves, the pre-tokenizer splits at. For Python, separators are white space.
    white = [c for c in characters if splits and c.isspace() and not "\x1c" <= c <= "\x1f"]
    spaces = [c for c, row in found if row == spaced or c == "▁" or (c in white and row != joined)]
    return _class(spaces), f"{_class(removed)}*" if removed else ""


def _class(characters: Sequence[str]) -> str:
    return "[" + "".join(rf"\x{{{ord(character):X}}}" for character in characters) + "]"
