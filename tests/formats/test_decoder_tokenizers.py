"""Tokenizers of checkpoints without tokenizer.json; that of GGUF is in test_gguf.py."""

import io
import json
import shutil
from pathlib import Path

import pytest
import sentencepiece

from tf_finetune.errors import UserError
from tf_finetune.formats.decoder_tokenizers import keras_hub_tokenizer, read_tokenizer

MODELS = Path(__file__).parent / "language_models"
TEXTS = ["The tin man, then.", "on  and on\n\nHello über 3.14 🙂", "then <|end|> s", ""]


def split_files(directory: Path, target: Path, vocabulary: str = "vocab.json") -> dict[str, int]:
    """Writes vocabulary and merges of a tokenizer.json as files of their own."""
    model = json.loads((directory / "tokenizer.json").read_text())["model"]
    target.mkdir(parents=True)
    (target / vocabulary).write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (target / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    return model["vocab"]


def test_a_vocabulary_and_merges(tmp_path):
    split_files(MODELS / "gpt2", tmp_path / "x")
    original = read_tokenizer(MODELS / "gpt2", "gpt2")
    found = read_tokenizer(tmp_path / "x", "gpt2")
    for text in TEXTS:
        assert found.encode(text).ids == original.encode(text).ids
    assert found.special_ids == original.special_ids


def test_tokens_that_were_added_to_a_vocabulary(tmp_path):
    size = len(split_files(MODELS / "qwen2", tmp_path / "x"))
    added = {str(size): {"content": "<tool>", "special": True}}
    (tmp_path / "x" / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": added})
    )
    found = read_tokenizer(tmp_path / "x", "qwen2")
    assert found.encode("a<tool>").ids[1:] == [size]
    assert size in found.special_ids


@pytest.fixture(scope="module")
def model() -> bytes:
    """A BPE of SentencePiece's, with byte fallback."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for text in TEXTS if text] * 20 + ["some more words"] * 9),
        model_writer=written,
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return written.getvalue()


@pytest.mark.parametrize("file", ["tokenizer.model", "assets/tokenizer/vocabulary.spm"])
def test_a_model_of_sentencepiece(model, file, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(model)
    if file == "tokenizer.model":
        found = read_tokenizer(tmp_path, "llama")
    else:
        (tmp_path / "tokenizer.json").write_text('{"config": {}}')
        found, tokens = keras_hub_tokenizer(tmp_path, "mistral")
        assert tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in TEXTS:
        assert found.encode(text).ids == original.encode(text)
    assert found.prefix_ids == (1,)


def test_tokens_that_were_added_to_sentencepieces(model, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model)
    added = {
        "1": {"content": "<s>", "special": True},
        "320": {"content": "<|im_start|>", "special": True},
    }
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": added, "add_bos_token": False, "legacy": False})
    )
    found = read_tokenizer(tmp_path, "llama")
    ids = found.encode("<|im_start|>some").ids
    # Not legacy: the space goes before the text alone.
    assert ids[0] == 320
    assert ids == found.encode("x<|im_start|>some").ids[-len(ids) :]
    assert (found.vocab_size, found.prefix_ids) == (321, ())


def test_a_preset_of_keras_hub(tmp_path):
    split_files(MODELS / "llama", tmp_path / "assets" / "tokenizer", "vocabulary.json")
    values = {"start_token": "<|start|>", "end_token": "<|end|>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"config": values}))
    original = read_tokenizer(MODELS / "llama", "llama")
    found, tokens = keras_hub_tokenizer(tmp_path, "llama")
    assert tokens == {"bos_token": "<|start|>", "eos_token": "<|end|>"}
    assert found.special_ids == original.special_ids
    assert found.encode("then<|end|>").ids == original.encode("then<|end|>").ids


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / "vocab.json").unlink(), "so are tokenizer.model and vocab.json"),
        (lambda d: (d / "merges.txt").unlink(), "merges.txt cannot be read: FileNotFound"),
        (lambda d: (d / "merges.txt").write_bytes(b"\xff"), "merges.txt cannot be read: Unicode"),
        (lambda d: (d / "merges.txt").write_text("a zz\n"), "merges.txt: the `tokenizers` lib"),
        (lambda d: (d / "vocab.json").write_text("[]"), "vocab.json holds a list"),
        (lambda d: (d / "tokenizer.model").write_bytes(b"x"), "tokenizer.model: no SentencePiece"),
    ],
)
def test_a_broken_tokenizer_is_told(break_it, message, tmp_path):
    split_files(MODELS / "gpt2", tmp_path / "x")
    break_it(tmp_path / "x")
    with pytest.raises(UserError, match=message):
        read_tokenizer(tmp_path / "x", "gpt2")


def test_a_tokenizer_json_goes_before_all_others(tmp_path):
    split_files(MODELS / "gpt2", tmp_path / "x")
    shutil.copy(MODELS / "mistral" / "tokenizer.json", tmp_path / "x")
    assert read_tokenizer(tmp_path / "x", "gpt2").vocab_size == 301
