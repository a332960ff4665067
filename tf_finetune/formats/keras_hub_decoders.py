"""Language models that KerasHub saved as presets, in Hugging Face's terms."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import ml_dtypes
import numpy as np

from tf_finetune.errors import UserError
from tf_finetune.formats.decoder_tokenizers import keras_hub_tokenizer
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.handles import read_object
from tf_finetune.formats.keras_hub_configs import hugging_face_config
from tf_finetune.formats.language_model import LanguageModelFiles, stop_ids
from tf_finetune.formats.weight_parts import check_fetched

Reader = Callable[[], np.ndarray]

# By Hugging Face's name of a layer's part where KerasHub keeps its weights within the layer.
_LLAMA = {
    "input_layernorm": "_self_attention_layernorm",
    "self_attn.q_proj": "_self_attention_layer/_query_dense",
    "self_attn.k_proj": "_self_attention_layer/_key_dense",
    "self_attn.v_proj": "_self_attention_layer/_value_dense",
    "self_attn.o_proj": "_self_attention_layer/_output_dense",
    "self_attn.q_norm": "_self_attention_layer/_query_dense_layer_norm",
    "self_attn.k_norm": "_self_attention_layer/_key_dense_layer_norm",
    "post_attention_layernorm": "_feedforward_layernorm",
    "mlp.gate_proj": "_feedforward_gate_dense",
    "mlp.up_proj": "_feedforward_intermediate_dense",
    "mlp.down_proj": "_feedforward_output_dense",
}
_SMOLLM3 = {name: name.replace(".", "/") for name in _LLAMA}
_GPT2 = {
    "ln_1": "_self_attention_layer_norm",
    "attn.c_proj": "_self_attention_layer/output_dense",
    "ln_2": "_feedforward_layer_norm",
    "mlp.c_fc": "_feedforward_intermediate_dense",
    "mlp.c_proj": "_feedforward_output_dense",
}
_GPT2_ATTENTION = tuple(f"_self_attention_layer/{name}_dense" for name in ("query", "key", "value"))


class _Backbone(NamedTuple):
    """How a class of KerasHub's names its layers, and of which parts they are made."""

    family: str
    layer: str
    norm: str
    parts: Mapping[str, str]


_LLAMA_BACKBONE = _Backbone("llama", "llama_transformer_decoder", "llama_layer_norm", _LLAMA)
_BACKBONES = {
    "LlamaBackbone": _LLAMA_BACKBONE,
    "Llama3Backbone": _LLAMA_BACKBONE,
    "MistralBackbone": _Backbone(
        "mistral", "mistral_transformer_decoder", "mistral_layer_normalization", _LLAMA
    ),
    "QwenBackbone": _Backbone("qwen2", "qwen_transformer_decoder", "qwen_layer_norm", _LLAMA),
    "Qwen3Backbone": _Backbone("qwen3", "qwen3_transformer_decoder", "qwen3_layer_norm", _LLAMA),
    "SmolLM3Backbone": _Backbone(
        "smollm3", "smol_lm3_decoder_layer", "rms_normalization", _SMOLLM3
    ),
    "GPT2Backbone": _Backbone("gpt2", "transformer_decoder", "layer_normalization", _GPT2),
}


def read_keras_hub(handle: str, directory: Path) -> LanguageModelFiles:
    """Opens a language model in a preset directory of KerasHub's.

    Args:
        handle: The handle, as the user wrote it.
        directory: Contains `config.json`, `model.weights.h5`, `tokenizer.json` and its `assets`.

    Returns:
        The model, without a chat template, which KerasHub does not keep.

    Raises:
        UserError: A file is missing or damaged, or the model is of a family that cannot be read.
    """
    preset = read_object(directory / "config.json")
    name = str(preset.get("registered_name")).rpartition(">")[2]
    values = preset.get("config")
    if name not in _BACKBONES or not isinstance(values, dict):
        raise UserError(
            f"{directory} holds a {name}, which is no language model that can be read from "
            f"KerasHub. Those are {', '.join(_BACKBONES)}. An encoder is fine-tuned with "
            "run_classifier.py --encoder."
        )
    backbone = _BACKBONES[name]
    weights = _Weights(directory / "model.weights.h5")
    # The backbone's configuration does not always say it; the file has the head's weights or not.
    tied = "reversible_embedding/vars/1" not in weights
    config = hugging_face_config(name, backbone.family, values, tied)
    decoder_config(config, handle)
    tensors = _tensors(backbone, config, weights)
    tokenizer, tokens = keras_hub_tokenizer(directory, backbone.family)
    return LanguageModelFiles(
        handle=handle,
        config=config,
        names=frozenset(tensors),
        load=lambda name: tensors[name](),
        tokenizer=tokenizer,
        chat_template=None,
        tokens=tokens,
        stop_ids=stop_ids(tokenizer, tokens),
        directory=None,
    )


class _Weights:
    """The variables of a preset's file, by their paths below `layers`."""

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise UserError(
                f"{file} is missing. Weights in parts, model.weights.json, are not read: give the "
                "model in Hugging Face's format."
            )
        check_fetched(file)
        self._path = file
        try:
            self._layers = h5py.File(file)["layers"]
        except (OSError, KeyError) as error:
            raise UserError(f"{file} is damaged: {error}. Fetch it again.") from error

    def __contains__(self, path: str) -> bool:
        return path in self._layers

    def read(self, path: str) -> np.ndarray:
        """Reads a variable.

        Raises:
            UserError: It is not held by the file itself.
        """
        dataset = self._layers[path]
        # HDF5 can refer to other files of this machine, and declare what it does not hold.
        held = dataset.nbytes <= self._path.stat().st_size
        if dataset.external or dataset.is_virtual or not held:
            raise UserError(f"{path} is not held by {self._path.name} itself. Fetch it again.")
        value = np.asarray(dataset[()])
        return value.view(ml_dtypes.bfloat16) if value.dtype.kind == "V" else value


def _tensors(
    backbone: _Backbone, config: Mapping[str, Any], weights: _Weights
) -> dict[str, Reader]:
    """Returns by Hugging Face's name of each tensor what reads it."""
    embeddings = "reversible_embedding/vars"
    if backbone.family == "gpt2":
        first, layers, hidden = "transformer", "h", config["n_embd"]
        places = {
            "wte.weight": f"{embeddings}/0",
            "wpe.weight": "position_embedding/vars/0",
            "ln_f.weight": f"{backbone.norm}/vars/0",
            "ln_f.bias": f"{backbone.norm}/vars/1",
        }
        count = config["n_layer"]
    else:
        first, layers, hidden = "model", "layers", config["hidden_size"]
        places = {
            "embed_tokens.weight": f"{embeddings}/0",
            "norm.weight": f"{backbone.norm}/vars/0",
        }
        count = config["num_hidden_layers"]

    def reader(name: str, path: str) -> Reader:
        transposed = backbone.family != "gpt2"
        return lambda: _stored(name, weights.read(path), hidden, transposed)

    def attention(paths: list[str], shape: tuple[int, ...]) -> Reader:
        return lambda: np.concatenate([weights.read(p).reshape(shape) for p in paths], axis=-1)

    tensors = {f"{first}.{name}": reader("", path) for name, path in places.items()}
    if f"{embeddings}/1" in weights and not config.get("tie_word_embeddings", True):
        tensors["lm_head.weight"] = lambda: weights.read(f"{embeddings}/1").T
    for number in range(count):
        layer = f"{backbone.layer}_{number}" if number else backbone.layer
        for own, inner in backbone.parts.items():
            for index, kind in enumerate(("weight", "bias")):
                if (path := f"{layer}/{inner}/vars/{index}") in weights:
                    tensors[f"{first}.{layers}.{number}.{own}.{kind}"] = reader(own, path)
        if backbone.family == "gpt2":
            for index, (kind, shape) in enumerate((("weight", (hidden, hidden)), ("bias", (-1,)))):
                paths = [f"{layer}/{part}/vars/{index}" for part in _GPT2_ATTENTION]
                name = f"{first}.{layers}.{number}.attn.c_attn.{kind}"
                tensors[name] = attention(paths, shape)
    return tensors


def _stored(name: str, value: np.ndarray, hidden: int, transposed: bool) -> np.ndarray:
    """Returns a tensor as Hugging Face stores it: KerasHub keeps the heads of a kernel apart."""
    if not name.endswith(("_proj", "c_fc")):
        return value
    if value.ndim == 3:
        inputs = name.endswith(("q_proj", "k_proj", "v_proj"))
        value = value.reshape((hidden, -1) if inputs else (-1, hidden))
    if value.ndim == 2 and name.endswith(("q_proj", "k_proj", "v_proj")) and len(value) != hidden:
        return value.reshape(-1)  # A bias, [heads, head_dim].
    return value.T if transposed and value.ndim == 2 else value
