"""`load_decoder` joins files, network and text side."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from tf_finetune.errors import UserError
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.models.lora import Lora

MODELS = Path(__file__).parent / "language_models"


def hidden(decoder) -> np.ndarray:
    ids = tf.constant(np.load(MODELS / "llama" / "expected.npz")["ids_0"][None])
    inputs = {"token_ids": ids, "segments": tf.ones_like(ids)}
    return np.asarray(decoder.network(inputs | {"positions": tf.range(ids.shape[1])[None]}))


@pytest.fixture
def model(tmp_path) -> Path:
    return Path(shutil.copytree(MODELS / "llama", tmp_path / "model"))


def test_a_decoder_has_all_that_a_conversation_needs():
    decoder = load_decoder(str(MODELS / "llama"))
    assert decoder.handle == str(MODELS / "llama")
    assert decoder.config.vocab_size == decoder.tokenizer.vocab_size == 270
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "then"}]
    rendered = decoder.chat.conversation(messages, [False, True])
    ((start, end),) = rendered.answers
    assert rendered.text[start:end] == "then<|end|>"
    assert decoder.chat.stop_ids == (2,)
    assert not decoder.chat.is_plain


def test_another_template_takes_the_place_of_the_checkpoints():
    source = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    decoder = load_decoder(str(MODELS / "llama"), chat_template=source)
    assert decoder.files.chat_template == decoder.chat.template.source == source


def test_a_model_without_a_template_gets_the_plain_format(model):
    (model / "chat_template.jinja").unlink()
    assert load_decoder(str(model)).chat.is_plain


def test_what_is_trained():
    count = len(load_file(MODELS / "llama" / "model.safetensors"))
    frozen = load_decoder(str(MODELS / "llama")).network
    assert not frozen.trainable_variables
    whole = load_decoder(str(MODELS / "llama"), trainable=True).network
    names = [name for part in whole.stored() for name in part.names]
    assert len(names) == count
    assert len(whole.trainable_variables) == len(whole.stored())
    tuned = load_decoder(str(MODELS / "llama"), lora=Lora(4, 8.0, targets=("q_proj",))).network
    assert len(tuned.trainable_variables) == 2 * len(tuned.adapters) == 6


def test_new_adapters_change_nothing():
    plain, tuned = (
        load_decoder(str(MODELS / "qwen2"), lora=lora, seed=1) for lora in (None, Lora(4, 8.0))
    )
    np.testing.assert_array_equal(hidden(tuned), hidden(plain))


def test_dtype_policy_is_the_global_one():
    keras.config.set_dtype_policy("mixed_bfloat16")
    decoder = load_decoder(str(MODELS / "llama"), lora=Lora(4, 8.0))
    assert {v.dtype for v in decoder.network.trainable_variables} == {"float32"}
    assert decoder.network.embeddings.dtype == "bfloat16"


def test_targets_that_match_nothing_are_told():
    with pytest.raises(UserError, match=r"no linear layer query\. Its.* down_proj, gate_proj, k_"):
        load_decoder(str(MODELS / "llama"), lora=Lora(4, 8.0, targets=("query", "value")))


def test_missing_weights_and_other_shapes_are_told(model):
    tensors = load_file(model / "model.safetensors")
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"intermediate_size": 40}))
    message = r"gate_proj\.weight has the shape \[48, 32\], not \[40, 32\], as its config"
    with pytest.raises(UserError, match=message):
        load_decoder(str(model))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": False}))
    del tensors["model.norm.weight"]
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(UserError, match=r"its weights lack .* \(2 of 30 tensors") as error:
        load_decoder(str(model))
    assert str(error.value).startswith(f"--model={model}: ")


@pytest.mark.parametrize(
    "family", ["llama", "llama3", "mistral", "qwen2", "qwen3", "smollm3", "gpt2"]
)
def test_the_number_of_weights_is_known_from_the_configuration(family):
    decoder = load_decoder(str(MODELS / family))
    sizes = [int(np.prod(part.variable.shape)) for part in decoder.network.stored()]
    assert decoder.config.num_weights == sum(sizes)
