"""A tokenizer.json for SentencePiece models: tokenizer.model files and GGUF's "llama" kind."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tf_finetune.errors import UserError
from tf_finetune.text.byte_bpe import CONTROL, USER_DEFINED, added_token, bos_processor

_NORMAL, _UNKNOWN, _BYTE = 1, 2, 6
_UNIGRAM, _BPE = 1, 2  # model types of a tokenizer.model

Prepend = Literal["first", "always", "never"]


@dataclass(frozen=True)
class _Pieces:
    """A vocabulary: for each id its piece, its score and its type."""

    pieces: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]

    def __post_init__(self) -> None:
        if self.types.count(_UNKNOWN) != 1:
            raise UserError(
                "the SentencePiece vocabulary has no piece for what is unknown. Copy the file from "
                "where the model comes from."
            )

    @property
    def ids(self) -> dict[str, int]:
        return {piece: id for id, piece in enumerate(self.pieces)}

    @property
    def unknown(self) -> int:
        return self.types.index(_UNKNOWN)

    @property
    def has_bytes(self) -> bool:
        return _BYTE in self.types

    def added(self) -> list[dict[str, Any]]:
        return [
            added_token(piece, id, kind != USER_DEFINED)
            for id, (piece, kind) in enumerate(zip(self.pieces, self.types, strict=True))
            if kind in (_UNKNOWN, CONTROL, USER_DEFINED)
        ]

    def bpe(self) -> dict[str, Any]:
        """The model: SentencePiece merges the pair whose piece has the best score."""
        ids, normal = self.ids, {}
        for piece, score, kind in zip(self.pieces, self.scores, self.types, strict=True):
            if kind == _NORMAL:
                normal[piece] = score
        merges = []
        for piece, score in normal.items():
            for at in range(1, len(piece)):
                left, right = piece[:at], piece[at:]
                if left in normal and right in normal:
                    merges.append((-score, ids[piece], ids[left], left, right))
        return {
            "type": "BPE",
            "unk_token": self.pieces[self.unknown],
            "fuse_unk": True,
            "byte_fallback": self.has_bytes,
            "vocab": ids,
            "merges": [[left, right] for *_, left, right in sorted(merges)],
        }

    def unigram(self) -> dict[str, Any]:
        return {
            "type": "Unigram",
            "unk_id": self.unknown,
            "vocab": [list(pair) for pair in zip(self.pieces, self.scores, strict=True)],
            "byte_fallback": self.has_bytes,
        }


def sentencepiece_json(
    model: bytes, *, prepend: Prepend | None = None, add_bos: bool = True
) -> str:
    """Writes the tokenizer.json of a tokenizer.model (or KerasHub's vocabulary.spm).

    Args:
        model: The file's bytes.
        prepend: Which pieces of a text get the space that SentencePiece puts before it: the
            text's first ("first"), also those after special tokens ("always": transformers'
            `legacy`), none. None: as the file says.
        add_bos: Whether the tokenizer puts BOS before each text.

    Returns:
        The file's content.

    Raises:
        UserError: It is no SentencePiece model, or neither BPE nor Unigram.
    """
    from sentencepiece import sentencepiece_model_pb2  # Costs an import of protobuf.

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(model)
    except Exception as error:  # protobuf's DecodeError is another in each implementation.
        raise UserError(f"no SentencePiece model: {error}. Copy it from the original.") from error
    found = [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    pieces = _Pieces(*([item[at] for item in found] for at in range(3)))
    kind, spec = proto.trainer_spec.model_type, proto.normalizer_spec
    if kind not in (_UNIGRAM, _BPE):
        raise UserError(
            f"a SentencePiece model of type {kind}, which is not supported (supported: BPE and "
            "Unigram). Give the model in Hugging Face's format, with a tokenizer.json."
        )
    normalizers: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        normalizers += [_replace({"Regex": r"\A +| +\z"}, ""), _replace({"Regex": " {2,}"}, " ")]
    return _written(
        pieces,
        pieces.bpe() if kind == _BPE else pieces.unigram(),
        prepend or _prepend(spec.add_dummy_prefix, spec.remove_extra_whitespaces),
        normalizers,
        bos=proto.trainer_spec.bos_piece if add_bos else None,
    )


def sentencepiece_json_from_gguf(metadata: Mapping[str, Any]) -> str:
    """Writes the tokenizer.json of a GGUF file whose `tokenizer.ggml.model` is "llama".

    Args:
        metadata: The file's keys `tokenizer.ggml.*`, without that prefix, and their values: tokens,
            scores, token_type, bos_token_id, add_bos_token, add_space_prefix.

    Returns:
        The file's content.

    Raises:
        UserError: The vocabulary has no piece for what is unknown.
    """
    tokens = list(metadata["tokens"])
    pieces = _Pieces(tokens, list(metadata["scores"]), list(metadata["token_type"]))
    add_bos = metadata.get("add_bos_token", True) and "bos_token_id" in metadata
    return _written(
        pieces,
        pieces.bpe(),
        "first" if metadata.get("add_space_prefix", True) else "never",
        [],
        bos=tokens[metadata["bos_token_id"]] if add_bos else None,
    )


def _written(
    pieces: _Pieces,
    model: dict[str, Any],
    prepend: Prepend,
    normalizers: list[dict[str, Any]],
    bos: str | None,
) -> str:
    decoders: list[dict[str, Any]] = [
        _replace({"String": "▁"}, " "),
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prepend != "never":
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": pieces.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": prepend,
            "split": False,
        },
        "post_processor": bos_processor(bos if bos in pieces.ids else None, pieces.ids),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }
    return json.dumps(content, ensure_ascii=False)


def _prepend(add_dummy_prefix: bool, remove_extra_whitespaces: bool) -> Prepend:
    if not add_dummy_prefix:
        return "never"
    # Where blanks are removed from the start, the library no longer knows the first piece.
    return "always" if remove_extra_whitespaces else "first"


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}
