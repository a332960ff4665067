"""Adapters in PEFT's format; test_transformers.py asks PEFT itself."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_finetune.errors import UserError
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.formats.peft import assign_adapter, read_adapter, write_adapter
from tf_finetune.models.llama import LlamaDecoder
from tf_finetune.models.lora import Adapter, Lora

MODELS = Path(__file__).parent / "language_models"
QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


def factors(rank: int = 4, **shapes: tuple[int, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    shapes = shapes or {QUERY: (32, 24), DOWN: (48, 32)}
    return {
        module: (
            random.normal(size=(inputs, rank)).astype("float32"),
            random.normal(size=(rank, outputs)).astype("float32"),
        )
        for module, (inputs, outputs) in shapes.items()
    }


@pytest.fixture
def saved(tmp_path) -> Path:
    lora = Lora(4, 8.0, 0.1, ("q_proj", "down_proj"), rslora=True)
    write_adapter(
        tmp_path / "adapter", lora, factors(), base="org/base", others={"README.md": b"card"}
    )
    return tmp_path / "adapter"


def change(directory: Path, **values: object) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_what_is_written(saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors")
    ]
    config = json.loads((saved / "adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.1)
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert config["base_model_name_or_path"] == "org/base"
    assert (config["bias"], config["use_rslora"], config["fan_in_fan_out"]) == ("none", True, False)
    tensors = load_file(saved / "adapter_model.safetensors")
    shapes = {name: value.shape for name, value in tensors.items()}
    assert shapes == {
        f"base_model.model.{QUERY}.lora_A.weight": (4, 32),
        f"base_model.model.{QUERY}.lora_B.weight": (24, 4),
        f"base_model.model.{DOWN}.lora_A.weight": (4, 48),
        f"base_model.model.{DOWN}.lora_B.weight": (32, 4),
    }
    a, b = factors()[QUERY]
    np.testing.assert_array_equal(tensors[f"base_model.model.{QUERY}.lora_A.weight"], a.T)
    np.testing.assert_array_equal(tensors[f"base_model.model.{QUERY}.lora_B.weight"], b.T)


def test_what_is_written_is_read(saved):
    found = read_adapter(saved)
    assert found.lora == Lora(4, 8.0, 0.1, ("down_proj", "q_proj"), rslora=True)
    assert found.base == "org/base"
    for module, (a, b) in factors().items():
        np.testing.assert_array_equal(found.factors[module][0], a)
        np.testing.assert_array_equal(found.factors[module][1], b)


@pytest.mark.parametrize("targets", ["all-linear", r".*\.(q_proj|down_proj)", ["q_proj"], None])
def test_the_targets_are_those_that_have_weights(saved, targets):
    change(saved, target_modules=targets)
    assert read_adapter(saved).lora.targets == ("down_proj", "q_proj")


def test_modules_of_an_encoder(tmp_path):
    module = "bert.encoder.layer.0.attention.self.query"
    lora = Lora(4, 4.5, targets=("query",))
    write_adapter(tmp_path / "x", lora, factors(**{module: (16, 16)}), base="b")
    found = read_adapter(tmp_path / "x")
    assert (found.lora, set(found.factors)) == (lora, {module})
    assert json.loads((tmp_path / "x" / "adapter_config.json").read_text())["lora_alpha"] == 4.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "has peft_type='IA3'; only 'LORA'"),
        ({"use_dora": True}, "has use_dora=True, which cannot.*merge_and_unload"),
        ({"modules_to_save": ["lm_head"]}, r"has modules_to_save=\['lm_head'\]"),
        ({"bias": "all"}, "has bias='all'"),
        ({"rank_pattern": {"q_proj": 8}}, "has rank_pattern="),
        ({"alpha_pattern": {"q_proj": 8}}, "has alpha_pattern="),
        ({"layers_to_transform": [0]}, r"has layers_to_transform=\[0\]"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4', which changes the base's"),
        ({"r": 8}, r"factors of shapes \(4, 48\) and \(32, 4\), and adapter_config.json r=8"),
        ({"lora_alpha": "16"}, "lora_alpha='16'; it must be a number"),
    ],
)
def test_other_kinds_are_refused_by_name(saved, values, message):
    change(saved, **values)
    with pytest.raises(UserError, match=message):
        read_adapter(saved)


def test_tensors_of_other_kinds_are_refused(saved):
    file = saved / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in ("x.lora_embedding_A", f"base_model.model.{QUERY}.lora_magnitude_vector"):
        save_file(tensors | {name: np.ones(4, "float32")}, file)
        with pytest.raises(UserError, match=f"its tensor {name} is none of LoRA's"):
            read_adapter(saved)
    del tensors[f"base_model.model.{DOWN}.lora_B.weight"]
    save_file(tensors, file)
    with pytest.raises(UserError, match=f"only one of lora_A and lora_B for {DOWN}"):
        read_adapter(saved)
    tensors[f"base_model.model.{QUERY}.lora_A.weight"][0, 0] = np.nan
    save_file(tensors, file)
    with pytest.raises(UserError, match="has 1 of 128 values that are NaN"):
        read_adapter(saved)
    file.unlink()
    with pytest.raises(UserError, match=r"holds no weights, adapter_model\.safetensors or"):
        read_adapter(saved)
    (saved / "adapter_config.json").unlink()
    with pytest.raises(UserError, match=r"adapter_config\.json is missing"):
        read_adapter(saved)


def decoder(name: str, lora: Lora) -> LlamaDecoder:
    files = read_language_model(str(MODELS / name))
    network = LlamaDecoder(decoder_config(files.config, name), lora=lora)
    network.build()
    return network


def test_a_networks_adapters_go_out_and_come_back(tmp_path):
    lora = Lora(4, 8.0, targets=("q_proj", "o_proj", "up_proj"))
    network = decoder("llama3", lora)
    for adapter in network.adapters.values():
        for variable in adapter:
            variable.assign(keras.random.normal(variable.shape, seed=1))
    out = {module: tuple(map(np.asarray, pair)) for module, pair in network.adapters.items()}
    write_adapter(tmp_path / "x", lora, out, base="llama3")
    found = read_adapter(tmp_path / "x")
    again = decoder("llama3", found.lora)
    assign_adapter(found, again.adapters, tmp_path / "x")
    assert set(again.adapters) == set(network.adapters)
    for module, pair in again.adapters.items():
        for ours, theirs in zip(pair, network.adapters[module], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def adapters(**shapes: tuple[int, int]) -> dict[str, Adapter]:
    return {
        module: Adapter(*(keras.Variable(value) for value in pair))
        for module, pair in factors(**shapes).items()
    }


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({QUERY: (32, 24)}, f"no module {DOWN}, but {QUERY} to {QUERY}.*trained on 'org/base'"),
        ({QUERY: (32, 24), DOWN: (48, 32), "x": (2, 2)}, "without weights for x and 0 more"),
        ({QUERY: (16, 24), DOWN: (48, 32)}, rf"that of {QUERY} has the shape \(32, 4\), not \(16"),
    ],
)
def test_an_adapter_for_another_base_is_told(saved, shapes, message):
    with pytest.raises(UserError, match=message):
        assign_adapter(read_adapter(saved), adapters(**shapes), saved)
