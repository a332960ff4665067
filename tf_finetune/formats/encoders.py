"""`load_encoder`: from a handle to a text encoder, whatever kind of handle it is."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Literal

from tf_finetune.errors import UserError
from tf_finetune.files import is_remote, local_copy
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.hub import load_hub
from tf_finetune.formats.huggingface import load_hugging_face, load_keras_hub
from tf_finetune.formats.saved_model import TF1_REMEDY

__all__ = ["Encoder", "load_encoder"]

Kind = Literal["saved_model", "tf1_hub", "keras_hub", "hugging_face"]
Mode = Literal["auto", "native", "saved_model"]

_KINDS = "TensorFlow 2 SavedModel, KerasHub preset or BERT in Hugging Face format"
_KERAS_HUB_SCHEMES = ("kaggle://", "hf://", "modelscope://")


def load_encoder(
    handle: str,
    *,
    mode: Mode = "auto",
    preprocessor: str | None = None,
    dropout: float | None = None,
) -> Encoder:
    """Loads a text encoder. Its dtype policy is Keras' global one at the time of the call.

    Args:
        handle: One of
            a local directory: a TF2 SavedModel that follows the TF Hub text API, a KerasHub
            preset, or a BERT in Hugging Face format;
            the `gs://` address of such a directory;
            `package:<module>`: such a directory in an installed Python package;
            a TF Hub or Kaggle URL of a SavedModel;
            a KerasHub preset: its name, `kaggle://...` or `hf://...`.
        mode: `native`: as Keras layers, which need a BERT-family SavedModel to be lifted into;
            `saved_model`: a SavedModel wrapped whole; `auto`: native where possible.
        preprocessor: Handle of a TF Hub preprocessor, for a SavedModel without a vocabulary.
        dropout: Replaces a native encoder's dropout rate; None keeps its own.

    Returns:
        The encoder.

    Raises:
        UserError: The handle cannot be used; the message says why and what to do.
    """
    directory = _local_directory(handle)
    kind = _kind(directory) if directory else "keras_hub"
    if kind == "tf1_hub":
        raise UserError(
            f"--encoder={handle}: a model in TF1 Hub format (tfhub_module.pb), which cannot be "
            f"trained in TensorFlow 2. {TF1_REMEDY}"
        )
    if directory and kind == "saved_model":
        return load_hub(
            handle,
            directory,
            mode=mode,
            preprocessor=_local_directory(preprocessor, "preprocessor") if preprocessor else None,
            dropout=dropout,
        )
    if mode == "saved_model":
        raise UserError(
            f"--encoder_mode=saved_model: --encoder={handle} is not a SavedModel. "
            "Use auto or native."
        )
    if preprocessor:
        raise UserError(
            f"--preprocessor={preprocessor}: --encoder={handle} carries its own vocabulary. "
            "Leave the flag out."
        )
    if directory and kind == "hugging_face":
        return load_hugging_face(handle, directory, dropout)
    if kind == "keras_hub":
        return load_keras_hub(handle, str(directory or handle), dropout)
    raise UserError(f"--encoder={handle}: {_what_it_is(directory)}")


def _local_directory(handle: str, flag: str = "encoder") -> Path | None:
    """Returns where a handle's files are; None for a preset that KerasHub finds itself."""
    if handle.startswith("package:"):
        return _package_directory(handle)
    if handle.startswith(("https://", "http://")):
        return _download(handle, flag)
    if handle.startswith(_KERAS_HUB_SCHEMES):
        return None
    if is_remote(handle):
        return local_copy(handle)
    if Path(handle).exists():
        return Path(handle)
    import keras_hub  # Only its presets need it: 0.3 s, 45 MB.

    return None if handle in keras_hub.models.Backbone.presets else Path(handle)


def _kind(directory: Path) -> Kind | None:
    if (directory / "tfhub_module.pb").is_file():
        return "tf1_hub"
    if (directory / "saved_model.pb").is_file() or (directory / "saved_model.pbtxt").is_file():
        return "saved_model"
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    if "registered_name" in config:
        return "keras_hub"
    return "hugging_face" if "model_type" in config else None


def _what_it_is(path: Path | None) -> str:
    if path is None or not path.exists():
        return (
            "there is no such directory, and KerasHub has no preset of that name. Give the "
            f"directory of a {_KINDS}, a URL, or package:<python module>."
        )
    if not path.is_dir():
        return f"a file. Give the directory of a {_KINDS}; unpack an archive first."
    inside = sorted(folder.name for folder in path.iterdir() if _kind(folder))
    if inside:
        return f"not an encoder itself, but these folders in it may be: {', '.join(inside)}."
    return (
        f"no {_KINDS}: it holds no saved_model.pb, and no config.json that names a KerasHub class "
        "(registered_name) or a model_type."
    )


def _download(handle: str, flag: str) -> Path:
    import tensorflow_hub  # imports tf_keras, which only URLs need

    try:
        return Path(tensorflow_hub.resolve(handle))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--{flag}={handle}: cannot be downloaded: {error}. Download and unpack it on a "
            f"machine with network access, then give its directory: --{flag}=/path/to/model."
        ) from error


def _package_directory(handle: str) -> Path:
    name = handle.removeprefix("package:")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"--encoder={handle}: no Python package {name!r} is installed. "
            "Install it with pip, or give a directory."
        )
    locations = list(spec.submodule_search_locations)
    for location in locations:
        for folder, subfolders, _ in os.walk(location):
            subfolders.sort()
            if _kind(Path(folder)):
                return Path(folder)
    raise UserError(f"--encoder={handle}: the package at {locations[0]} carries no {_KINDS}.")
