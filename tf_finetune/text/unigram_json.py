"""A tokenizer.json for an encoder's SentencePiece model, as transformers 4 converts it."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.text.byte_bpe import added_token
from tf_finetune.text.row_format import RowFormat, template_processing

_CONTROL, _USER_DEFINED = 3, 4  # SentencePiece's types of pieces.
_UNIGRAM = 1
_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


@dataclass(frozen=True)
class _Family:
    """Special tokens, and how ids differ from those in the SentencePiece model.

    Attributes:
        first: Pieces, and their scores, that stand in place of the model's first ones.
        replaced: How many of the model's they stand in place of.
    """

    start: str
    end: str
    pad: str
    unknown: str
    mask: str
    first: tuple[tuple[str, float], ...] = ()
    replaced: int = 0

    @property
    def is_fairseq(self) -> bool:
        return bool(self.first)


# fairseq counted its own special tokens before the model's pieces.
_FAIRSEQ = ("<s>", "</s>", "<pad>", "<unk>", "<mask>")
_UNUSED = (("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0))
_FAMILIES = {
    "albert": _Family("[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]"),
    "camembert": _Family(*_FAIRSEQ, first=(*_UNUSED, ("<unk>NOTUSED", -100.0)), replaced=1),
    "deberta-v2": _Family("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"),
    "xlm-roberta": _Family(
        *_FAIRSEQ,
        first=(("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)),
        replaced=3,
    ),
}


def unigram_json(model: bytes, family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the tokenizer.json of a SentencePiece model.

    Args:
        model: Content of `spm.model`, `spiece.model` or `sentencepiece.bpe.model`.
        family: `albert`, `camembert`, `deberta-v2` or `xlm-roberta`.
        config: Content of `tokenizer_config.json`: `do_lower_case`, `keep_accents`.

    Returns:
        The file's content.

    Raises:
        UserError: It is no SentencePiece model, no Unigram, or lacks a special token.
    """
    from sentencepiece import sentencepiece_model_pb2  # Costs an import of protobuf.

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(model)
    except Exception as error:  # protobuf's DecodeError is another in each implementation.
        raise UserError(f"no SentencePiece model: {error}. Copy it from the original") from error
    kind, known = proto.trainer_spec.model_type, _FAMILIES[family]
    if kind != _UNIGRAM:
        raise UserError(
            f"a SentencePiece model of type {kind}; only 1, Unigram, can be read. Give a "
            "tokenizer.json"
        )
    kept = proto.pieces[known.replaced :]
    pieces = [*known.first, *((piece.piece, _score(piece, family)) for piece in kept)]
    if known.mask not in {piece.piece for piece in kept}:
        pieces.append((known.mask, 0.0))
    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    needed = (known.pad, known.start, known.end, known.unknown)
    missing = [token for token in needed if token not in ids]
    if missing:
        raise UserError(f"no piece {' and no '.join(missing)}, as {family}'s have")
    special = {*needed, known.mask, *(piece for piece, _ in known.first)}
    special |= {piece.piece for piece in kept if piece.type == _CONTROL}
    found = {piece.piece for piece in kept if piece.type == _USER_DEFINED} - special
    added = sorted(special | found, key=ids.__getitem__)
    pad_id, start_id, end_id, unknown_id = (ids[token] for token in needed)
    separator_ids = (end_id, end_id) if known.is_fairseq else (end_id,)
    row = RowFormat(pad_id, start_id, end_id, separator_ids, int(not known.is_fairseq))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(token, ids[token], token in special) for token in added],
        "normalizer": {
            "type": "Sequence",
            "normalizers": _normalizers(proto.normalizer_spec.precompiled_charsmap, family, config),
        },
        "pre_tokenizer": _METASPACE,
        "post_processor": template_processing(row, [piece for piece, _ in pieces]),
        "decoder": _METASPACE,
        "model": {
            "type": "Unigram",
            "unk_id": unknown_id,
            "vocab": [list(piece) for piece in pieces],
            "byte_fallback": False,
        },
    }


def _score(piece: Any, family: str) -> float:
    # ALBERT cuts a comma from the digit before it.
    text = piece.piece
    is_cut = family == "albert" and text[-1:] == "," and text[-2:-1].isdigit()
    return piece.score - 100 if is_cut else piece.score


def _normalizers(charsmap: bytes, family: str, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    collapse = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    precompiled = {
        "type": "Precompiled",
        "precompiled_charsmap": base64.b64encode(charsmap).decode(),
    }
    steps = [precompiled] * bool(charsmap)
    lower = [{"type": "Lowercase"}] * bool(config.get("do_lower_case", family == "albert"))
    if family == "albert":
        quotes = [
            {"type": "Replace", "pattern": {"String": quote}, "content": '"'}
            for quote in ("``", "''")
        ]
        accents = [{"type": "NFKD"}, {"type": "StripAccents"}]
        return [*quotes, *accents * (not config.get("keep_accents")), *lower, *steps, collapse]
    if family == "deberta-v2":
        strip = {"type": "Strip", "strip_left": True, "strip_right": True}
        return [*lower, strip, *steps, collapse]
    strip = {"type": "Strip", "strip_left": False, "strip_right": True}
    return [*steps, strip, collapse | {"content": "▁"}]
