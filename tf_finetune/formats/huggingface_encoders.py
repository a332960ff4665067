"""Encoders in Hugging Face's format: `config.json`, weights, tokenizer."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune.errors import UserError
from tf_finetune.formats.bert_files import load_bert
from tf_finetune.formats.encoder import Encoder, Source, native_encoder
from tf_finetune.formats.encoder_families import (
    Family,
    find_family,
    read_arguments,
    with_activation,
)
from tf_finetune.formats.handles import read_object
from tf_finetune.formats.tensors import float32, open_tensors
from tf_finetune.formats.tokenizer_files import read_tokenizer
from tf_finetune.formats.weight_parts import weight_parts
from tf_finetune.models.bert import INITIALIZER
from tf_finetune.models.stored_weights import Stored

# What a base model consists of; other tensors beside it are heads.
_BODY = re.compile(r"(embeddings|embeddings_project|encoder|transformer|layers|final_norm)\.")
# Tensors that are computed, which old checkpoints hold.
_COMPUTED = re.compile(r"(position_ids|token_type_ids|inv_freq)$")

_FILES = ("model.safetensors", "pytorch_model.bin")

Tensors = Mapping[str, Callable[[], np.ndarray]]


def load_hugging_face(
    handle: str, path: Path, dropout: float | None, hidden_act: str | None = None
) -> Encoder:
    """Loads an encoder in Hugging Face's format, or a BERT of Google's release.

    Args:
        handle: The handle, as the user wrote it.
        path: A folder that contains `config.json`, `model.safetensors` or `pytorch_model.bin`
            (each may be in parts, with an index) and the tokenizer (see `read_tokenizer`); or
            what `load_bert` reads.
        dropout: The dropout rate of rows and attention; None: those of the configuration.
        hidden_act: The activation; None: that of the configuration.

    Returns:
        The encoder. A BERT or ALBERT that was saved without a pooler has a new one, of random
        weights.

    Raises:
        UserError: A file is missing or damaged, or the model is none that can be read.
    """
    try:
        if not path.is_dir() or not has_torch_weights(path):
            return load_bert(handle, path, dropout, hidden_act)
        return _load(handle, path, dropout, hidden_act)
    except UserError as error:
        start = "" if str(error).startswith("--") else f"--encoder={handle}: "
        raise UserError(f"{start}{error}") from error


def has_torch_weights(directory: Path) -> bool:
    """Whether a folder has weights in a format of PyTorch's users.

    Raises:
        UserError: Their index is damaged, or they must be fetched first.
    """
    try:
        return any(weight_parts(directory, name) for name in _FILES)
    except UserError:
        raise
    # The exceptions of damaged indexes have no common class.
    except Exception as error:
        raise UserError(
            f"its weights cannot be loaded: {type(error).__name__}: {error}. Compare its files "
            "with the original's."
        ) from error


def _load(handle: str, directory: Path, dropout: float | None, hidden_act: str | None) -> Encoder:
    file = directory / "config.json"
    file = file if file.is_file() else directory / "bert_config.json"
    config = with_activation(read_object(file), hidden_act)
    family = find_family(config, file)
    arguments = read_arguments(family, config, file)
    if dropout is not None:
        arguments |= {name: dropout for name in arguments if name.endswith("dropout")}
    text = read_tokenizer(handle, directory)
    tensors = base_tensors(open_tensors(directory), family.prefix)
    _check_size(arguments, tensors, directory, file)
    # Random values cost time and would be overwritten.
    network = family.network(**arguments, initializer="zeros")
    network.build()
    stored, new = network.stored(), False
    if getattr(network, "pooler", None) is not None:
        pooler = {name for part in stored for name in part.names if "pooler" in name}
        if new := pooler.isdisjoint(tensors):
            stored = [part for part in stored if pooler.isdisjoint(part.names)]
            # A clone has a seed of its own; INITIALIZER's is as old as its module.
            network.pooler.kernel.assign(INITIALIZER.clone()(network.pooler.kernel.shape))
    fill(stored, read_tensors(network, tensors, family), directory, file)
    return native_encoder(
        handle,
        network,
        text,
        has_pooler=getattr(network, "pooler", None) is not None,
        has_new_pooler=new,
        pooling=_trained_pooling(directory) or family.head(config).pooling,
        native_head=family.head(config),
        source=Source(directory, config),
    )


def _check_size(
    arguments: Mapping[str, Any], tensors: Tensors, directory: Path, config_file: Path
) -> None:
    """Refuses a network that is larger than the files: making it would fill the memory."""
    width, inner = arguments["hidden_size"], arguments["intermediate_size"]
    layers = 1 if arguments.get("share_layers") else arguments["num_layers"]
    rows = arguments["vocabulary_size"]
    if any("position_embeddings" in name for name in tensors):
        rows += arguments["max_seq_length"]
    claimed = rows * (arguments.get("embedding_size") or width)
    claimed += layers * width * (4 * width + 2 * inner)
    files = [file for name in _FILES for file in weight_parts(directory, name)]
    # A weight takes two bytes or more.
    if claimed > (held := sum(file.stat().st_size for file in files)):
        raise UserError(
            f"{config_file} describes a network of {claimed:,} weights; the files beside it have "
            f"{held:,} bytes. Compare them with the original's."
        )


def base_tensors(tensors: Tensors, prefix: str) -> dict[str, Callable[[], np.ndarray]]:
    """Returns the tensors of a base model by their names in it, of a checkpoint with any head."""
    # Those of 2018 and 2019 have TensorFlow's names for the norms.
    names = {
        re.sub(
            r"LayerNorm\.gamma$",
            "LayerNorm.weight",
            re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name),
        ): load
        for name, load in tensors.items()
    }
    if any(name.startswith(prefix) for name in names):
        return {
            name.removeprefix(prefix): load
            for name, load in names.items()
            if name.startswith(prefix)
        }
    return names


def read_tensors(network: Any, tensors: Tensors, family: Family) -> Tensors:
    """Leaves out what a family's checkpoints hold and no network of this form has."""
    own = {name for part in network.stored() for name in part.names}
    return {
        name: load
        for name, load in tensors.items()
        if name in own or not re.match(family.unused, name)
    }


def fill(stored: list[Stored], tensors: Tensors, directory: Path, config_file: Path) -> None:
    """Gives a network's variables the values of a folder's tensors.

    Raises:
        UserError: One is missing, of another shape, damaged or not finite; or there are more
            than the network has.
    """
    expected = [name for part in stored for name in part.names]
    if missing := [name for name in expected if name not in tensors]:
        raise UserError(
            f"{directory}: its weights lack {missing[0]} ({len(missing)} of {len(expected)} "
            f"tensors that {config_file.name} asks for). Compare its files with the original's."
        )
    known = set(expected)
    for name in tensors:
        if name not in known and _BODY.match(name) and not _COMPUTED.search(name):
            raise UserError(
                f"{directory}: its weights hold {name}, which a network as {config_file.name} "
                "describes it does not have. Compare its files with the original's."
            )

    def read(name: str) -> np.ndarray:
        try:
            return float32(name, tensors[name]())
        except UserError:
            raise
        # The exceptions of damaged files have no common class.
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"{directory}: tensor {name} cannot be read: {reason}. Compare the files with the "
                "original's."
            ) from error

    try:
        for part in stored:
            part.assign(read)
    except ValueError as error:
        raise UserError(
            f"{directory}: {error}, as {config_file.name} says. Compare its files with the "
            "original's."
        ) from error


def _trained_pooling(directory: Path) -> str | None:
    """Returns the pooling that a sentence-transformers' folder says; None: it says none of ours."""
    file = directory / "1_Pooling" / "config.json"
    if not file.is_file():
        return None
    config = read_object(file)
    keys = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
    chosen = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True]
    chosen = [keys.get(name, name) for name in chosen if name != "include_prompt"]
    if isinstance(config.get("pooling_mode"), str):
        chosen = [config["pooling_mode"]]
    if len(chosen) == 1 and chosen[0] in keys.values():
        return chosen[0]
    print(
        f"notice: {file} asks for the pooling {' and '.join(chosen) or 'of none'}, which is none "
        "of ours; --pooling=auto is that of the architecture's head."
    )
    return None
