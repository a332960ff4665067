"""Writes an encoder in Hugging Face's format: weights, configuration and tokenizer."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoder_families import FAMILIES, Family, with_activation
from tf_finetune.formats.huggingface_encoders import base_tensors
from tf_finetune.formats.huggingface_writer import write_json, write_weights
from tf_finetune.formats.tensors import open_tensors
from tf_finetune.formats.tokenizer_files import special_tokens
from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.bert_weights import beyond_bert
from tf_finetune.models.encoder_weights import merged_weights
from tf_finetune.text.wordpiece import BertPreprocessor

# The files of a tokenizer, which are written as the base has them.
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
    *("sentencepiece.bpe.model", "spiece.model", "spm.model"),
)

# Classes that run tokenizer.json as it is; those of architectures build their own.
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")


def check_writable(encoder: Encoder) -> None:
    """Checks that an encoder has a form in Hugging Face's format.

    Raises:
        UserError: It has none; the message says what to choose instead.
    """
    network, text = encoder.network, encoder.preprocessor
    if encoder.source is not None:
        return
    if not isinstance(network, BertEncoder):
        kind = (
            "a wrapped SavedModel"
            if encoder.mode == "saved_model"
            else f"KerasHub's {type(getattr(network, 'backbone', network)).__name__}"
        )
    elif not isinstance(text, BertPreprocessor):
        kind = f"a BERT with the tokenizer of a SavedModel ({type(text).__name__})"
    else:
        others = beyond_bert(network)
        if network.embedding_size not in (None, network.hidden_size):
            others.append("narrower embeddings")
        kind = f"no BERT of transformers ({', '.join(others)})" if others else ""
    if kind:
        raise UserError(
            f"--export_formats=hugging_face: --encoder={encoder.handle} is {kind}, which cannot be "
            "written in Hugging Face's format. Give the same encoder in that format (a folder, or "
            "hf://org/name), or leave hugging_face out."
        )


def family_of(encoder: Encoder) -> Family:
    """Returns the architecture of an encoder of `check_writable`."""
    return FAMILIES[encoder_config(encoder).get("model_type", "bert")]


def encoder_config(encoder: Encoder) -> dict[str, Any]:
    """Returns the config.json of an encoder, as it computes now."""
    network = encoder.network
    if encoder.source is None:
        config = _bert_config(network)
    else:
        config = {"model_type": "bert", **encoder.source.config}
        config.pop("torch_dtype", None)
    config |= {"architectures": [f"{FAMILIES[config['model_type']].name}Model"], "dtype": "float32"}
    approximate = getattr(network, "approximate_gelu", None)
    return config if approximate is None else _with_gelu(config, approximate)


def encoder_tensors(encoder: Encoder) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the weights of a base model, adapters merged in.

    So are those of a pooler that the source has and our network has not, so that transformers
    makes no new one.
    """
    names = set()
    for name, value in merged_weights(encoder.network):
        names.add(name)
        yield name, value
    if encoder.source is not None:
        tensors = base_tensors(open_tensors(encoder.source.directory), family_of(encoder).prefix)
        for name, load in tensors.items():
            if name.startswith("pooler.") and name not in names:
                yield name, np.asarray(load(), "float32")


def write_encoder(folder: Path, encoder: Encoder, max_seq_length: int) -> None:
    """Writes a base model that transformers' `AutoModel` loads.

    Args:
        folder: An empty folder.
        encoder: The encoder; see `check_writable`.
        max_seq_length: The length that its tokenizer cuts texts to.
    """
    write_json(folder / "config.json", encoder_config(encoder))
    write_weights(folder, encoder_tensors(encoder))
    write_tokenizer(folder, encoder, max_seq_length)


def write_tokenizer(folder: Path, encoder: Encoder, max_seq_length: int) -> None:
    """Writes the files of a tokenizer; those that the source has stay as they are.

    Args:
        folder: Where to write.
        encoder: The encoder.
        max_seq_length: The length that texts are cut to.
    """
    text: Any = encoder.preprocessor
    if encoder.source is not None:
        for name in TOKENIZER_FILES:
            if (file := encoder.source.directory / name).is_file():
                shutil.copyfile(file, folder / name)
    if not (folder / "tokenizer.json").is_file():
        (folder / "tokenizer.json").write_text(text.tokenizer_json, encoding="utf-8")
    if isinstance(text, BertPreprocessor) and not (folder / "vocab.txt").is_file():
        lines = "".join(f"{token}\n" for token in text.vocabulary)
        (folder / "vocab.txt").write_text(lines, encoding="utf-8")
    specials = special_tokens(text)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if "tokenizer_class" not in config:
        config |= {"tokenizer_class": _GENERIC[0], **specials}
    if config["tokenizer_class"] in _GENERIC and "model_input_names" not in config:
        has_types = getattr(encoder.network, "num_types", 0) > 1
        types = ["token_type_ids"] if has_types else []
        config["model_input_names"] = ["input_ids", *types, "attention_mask"]
    if isinstance(text, BertPreprocessor):
        config.setdefault("do_lower_case", text.lower_case)  # KerasHub asks for it.
    write_json(file, config | {"model_max_length": max_seq_length})
    if not (folder / "special_tokens_map.json").is_file():
        write_json(folder / "special_tokens_map.json", specials)


def _bert_config(network: BertEncoder) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": network.vocabulary_size,
        "hidden_size": network.hidden_size,
        "num_hidden_layers": network.num_layers,
        "num_attention_heads": network.num_heads,
        "intermediate_size": network.intermediate_size,
        "max_position_embeddings": network.max_seq_length,
        "type_vocab_size": network.num_types,
        "layer_norm_eps": network.epsilon,
        "hidden_dropout_prob": network.dropout,
        "attention_probs_dropout_prob": network.dropout,
        "pad_token_id": 0,
    }


def _with_gelu(config: Mapping[str, Any], approximate: bool) -> dict[str, Any]:
    """Returns a configuration whose activation is what the network computes."""
    key = FAMILIES[config["model_type"]].activation
    is_said = key in config and (config[key] != "gelu") == approximate
    return (
        dict(config)
        if is_said
        else with_activation(dict(config), "gelu_new" if approximate else "gelu")
    )
