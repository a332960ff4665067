"""Language models in Hugging Face's format, and what a handle may be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_finetune.errors import UserError
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.formats.tensors import open_tensors

MODELS = Path(__file__).parent / "language_models"
NAMES = sorted(folder.name for folder in MODELS.iterdir())


@pytest.fixture
def model(tmp_path) -> Path:
    """A copy of the tiny llama."""
    return Path(shutil.copytree(MODELS / "llama", tmp_path / "model"))


def change(file: Path, **values: object) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(content | values))


def assert_same(directory: Path, expected: Path = MODELS / "llama", tolerance: float = 0) -> None:
    files, tensors = read_language_model(str(directory)), load_file(expected / "model.safetensors")
    assert files.names == set(tensors)
    for name, value in tensors.items():
        found = files.read(name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, value, rtol=tolerance, atol=tolerance / 1e4)


@pytest.mark.parametrize("name", NAMES)
def test_each_family_is_read_as_it_stands(name):
    assert_same(MODELS / name, MODELS / name)
    files = read_language_model(str(MODELS / name))
    assert files.directory == MODELS / name
    assert files.config == json.loads((MODELS / name / "config.json").read_text())
    assert files.tokenizer.json == (MODELS / name / "tokenizer.json").read_text()
    assert files.chat_template == (MODELS / name / "chat_template.jinja").read_text()
    assert files.stop_ids == (2,)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_half_precision_in_parts(model, dtype):
    tensors = {k: v.astype(dtype) for k, v in load_file(model / "model.safetensors").items()}
    (model / "model.safetensors").unlink()
    places = {}
    for number in range(3):
        part = dict(list(tensors.items())[number::3])
        save_file(part, model / f"model-{number}.safetensors")
        places |= dict.fromkeys(part, f"model-{number}.safetensors")
    index = {"metadata": {}, "weight_map": places}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same(model, tolerance=0.01)
    (model / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-1\.safetensors, which is missing \(1 of 3"):
        read_language_model(str(model))


def test_weights_of_pytorch(model):
    (model / "model.safetensors").unlink()
    shutil.copy(Path(__file__).with_name("pytorch.bin"), model / "pytorch_model.bin")
    tensors = open_tensors(model)
    np.testing.assert_array_equal(tensors["transposed"](), np.arange(6).reshape(2, 3).T)
    (model / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is damaged"):
        read_language_model(str(model))


def test_names_of_a_checkpoint_without_head_and_with_what_is_computed(tmp_path):
    """As openai-community/gpt2 was saved."""
    model = Path(shutil.copytree(MODELS / "gpt2", tmp_path / "gpt2"))
    tensors = load_file(model / "model.safetensors")
    old = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    old |= {"h.0.attn.bias": np.ones((1, 1, 64, 64), "float32")}
    old |= {"h.0.attn.masked_bias": np.float32([-1e4])}
    save_file(old, model / "model.safetensors")
    assert_same(model, MODELS / "gpt2")


def test_the_head_of_a_tied_checkpoint_is_the_embeddings(model):
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, "float32")
    save_file(tensors, model / "model.safetensors")
    assert_same(model)


def test_a_chat_template_in_the_tokenizers_configuration(model):
    (model / "chat_template.jinja").unlink()
    file = model / "tokenizer_config.json"
    assert read_language_model(str(model)).chat_template is None
    change(file, chat_template="{{ messages }}")
    assert read_language_model(str(model)).chat_template == "{{ messages }}"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    change(file, chat_template=named)
    assert read_language_model(str(model)).chat_template == "d"
    (model / "chat_template.jinja").write_text("newer")
    assert read_language_model(str(model)).chat_template == "newer"
    (model / "chat_template.jinja").unlink()
    change(file, chat_template=[{"name": "default"}])
    with pytest.raises(
        UserError, match=r"tokenizer_config\.json has chat_template=.*a list of obj"
    ):
        read_language_model(str(model))


def test_special_tokens_are_texts_or_objects(model):
    change(model / "special_tokens_map.json", bos_token="<|start|>", pad_token="<|start|>")
    added = {"__type": "AddedToken", "content": "<|end_of_text|>", "lstrip": False}
    change(model / "tokenizer_config.json", eos_token=added)
    tokens = read_language_model(str(model)).tokens
    assert tokens["bos_token"] == "<|start|>"
    assert tokens["eos_token"] == "<|end_of_text|>"
    assert tokens["pad_token"] == "<|pad|>"


def test_stop_ids_are_those_of_generate_or_the_model_and_the_tokenizers_own(model):
    change(model / "generation_config.json", eos_token_id=[0, 5])
    assert read_language_model(str(model)).stop_ids == (0, 5, 2)
    (model / "generation_config.json").unlink()
    change(model / "config.json", eos_token_id=0)
    assert read_language_model(str(model)).stop_ids == (0, 2)
    change(model / "config.json", eos_token_id=None)
    change(model / "tokenizer_config.json", eos_token=None)
    assert read_language_model(str(model)).stop_ids == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_the_tensors_name(model, bad):
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = bad
    save_file(tensors, model / "model.safetensors")
    files = read_language_model(str(model))
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight has 1 of 1536 values"):
        files.read("model.layers.1.mlp.up_proj.weight")
    files.read("model.layers.0.mlp.up_proj.weight")


def test_large_values_are_not_mistaken_for_infinite_ones(model):
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][:] = 3e38
    save_file(tensors, model / "model.safetensors")
    assert_same(model, model)


def test_integers_are_refused(model):
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"] = np.ones(32, "int8")
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.norm\.weight is of dtype int8; only float32"):
        read_language_model(str(model)).read("model.norm.weight")


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda m: (m / "config.json").unlink(), "neither config.json nor a .gguf file"),
        (lambda m: (m / "config.json").write_text("{"), "config.json cannot be read as JSON"),
        (lambda m: change(m / "config.json", model_type="bert"), "an encoder, which does not gen"),
        (lambda m: (m / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda m: cut(m / "tokenizer.json", 999), "tokenizer.json: the tokenizer.json is no JSON"),
        (lambda m: change(m / "config.json", vocab_size=99), "tokenizer has 270 tokens, its netw"),
        (lambda m: (m / "tokenizer_config.json").write_text("x"), "tokenizer_config.json cannot"),
        (lambda m: (m / "chat_template.jinja").write_bytes(b"\xff"), "jinja is not text in UTF-8"),
        (lambda m: (m / "model.safetensors").unlink(), r"holds no weights, model\.safetensors or"),
        (lambda m: cut(m / "model.safetensors", 9999), r"model\.safetensors is damaged: .*fetch"),
        (
            lambda m: (m / "model.safetensors").write_bytes(b"version https://git-lfs.github.com"),
            "a pointer of Git LFS.*git lfs pull",
        ),
        (
            lambda m: (m / "model.safetensors.index.json").write_text("[]"),
            "the index of its weights cannot be read",
        ),
    ],
)
def test_a_broken_directory_is_told(model, break_it, message):
    break_it(model)
    with pytest.raises(UserError, match=message) as error:
        read_language_model(str(model))
    assert str(error.value).startswith(f"--model={model}: ")


def test_a_tensor_that_is_not_there_is_told(model):
    with pytest.raises(UserError, match=r"tensor lm_head\.weight cannot be read"):
        read_language_model(str(model)).read("lm_head.weight")


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (
            "no/such",
            r"no such directory or file\. If it is a model of .* Hub: --model=hf://no/such",
        ),
        ("package:no_such", "no Python package 'no_such' is installed"),
        ("package:numpy", "numpy carries no language model in Hugging Face's format, GGUF"),
        ("https://example.com/x", "an address that is not read"),
        ("kaggle://keras/llama3", "an address that is not read"),
        ("~nobody_here/x", "there is no user"),
        (__file__, "a file that is not GGUF"),
        (str(MODELS), "these in it may be: gpt2, llama, llama3, mistral"),
    ],
)
def test_handles_that_are_nothing(handle, message):
    with pytest.raises(UserError, match=message) as error:
        read_language_model(handle)
    assert str(error.value).startswith(f"--model={handle}: ") or handle.startswith("~")


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(UserError, match=r"PEFT adapter, not a model.*trained on 'org/base'"):
        read_language_model(str(tmp_path))


def test_a_package_may_carry_a_directory(tmp_path, monkeypatch):
    package = tmp_path / "carries_a_model"
    shutil.copytree(MODELS / "qwen3", package / "data" / "model")
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    files = read_language_model("package:carries_a_model")
    assert files.handle == "package:carries_a_model"
    assert files.directory == package / "data" / "model"


def test_the_hub_without_network_and_a_cache_that_has_the_model(tmp_path):
    """In a process of its own: the Hub's client reads its settings when it is imported."""
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(MODELS / "llama", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    program = (
        "from tf_finetune.errors import UserError\n"
        "from tf_finetune.formats.language_models import read_language_model\n"
        "print(len(read_language_model('hf://org/tiny').names))\n"
        "for name in ('org/other', 'org/tiny@old', 'a/b/c'):\n"
        "    try:\n"
        "        read_language_model(f'hf://{name}')\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    count, other, revision, name = done.stdout.splitlines()
    assert int(count) == len(load_file(MODELS / "llama" / "model.safetensors"))
    assert other.startswith("--model=hf://org/other: it cannot be downloaded, and is not complete")
    assert "hf download org/other --local-dir other" in other and "HF_HOME" in other
    assert revision.startswith("--model=hf://org/tiny@old: it cannot be downloaded")
    assert name.startswith("--model=hf://a/b/c: no name of the Hugging Face Hub")
