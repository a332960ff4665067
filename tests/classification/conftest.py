"""Fixtures for classifiers: the stored checkpoints of transformers, with a tokenizer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ENCODERS = Path(__file__).resolve().parents[1] / "formats" / "encoders"


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[str], Path]:
    """Returns a stored checkpoint with a WordPiece tokenizer of its ids."""

    def folder_of(name: str) -> Path:
        folder = Path(shutil.copytree(ENCODERS / name, tmp_path / f"base-{name}"))
        config = json.loads((folder / "config.json").read_text())
        is_bert = config.get("pad_token_id", 0) == 0
        special = ["[PAD]", "[CLS]", "[SEP]"] if is_bert else ["<s>", "<pad>", "</s>"]
        words = ["the", "film", "is", "good", "a", "bad", "plot", ",", "!", "##o", "##d", "##e"]
        vocabulary = [*special, "[UNK]", "[MASK]", *words]
        start, end = (special[1], special[2]) if is_bert else (special[0], special[2])
        ids = {token: index for index, token in enumerate(vocabulary)}
        pair_type = int(config.get("type_vocab_size", 0) > 1)
        separators = [end] if is_bert else [end, end]

        def piece(token: str, type_id: int = 0) -> dict[str, Any]:
            kind = "Sequence" if token in "AB" else "SpecialToken"
            return {kind: {"id": token, "type_id": type_id}}

        tokenizer = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    **{"id": ids[token], "content": token, "single_word": False, "lstrip": False},
                    **{"rstrip": False, "normalized": False, "special": True},
                }
                for token in (*special, "[UNK]", "[MASK]")
            ],
            "normalizer": {
                **{"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
                **{"strip_accents": None, "lowercase": True},
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [piece(start), piece("A"), piece(end)],
                "pair": [
                    *(piece(start), piece("A"), *map(piece, separators)),
                    *(piece("B", pair_type), piece(end, pair_type)),
                ],
                "special_tokens": {
                    token: {"id": token, "ids": [ids[token]], "tokens": [token]}
                    for token in (start, end)
                },
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                **{"type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 100},
                **{"continuing_subword_prefix": "##", "vocab": ids},
            },
        }
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        said = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": special[not is_bert]}
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
        return folder

    return folder_of
