"""Finds the files of a handle, and their format."""

import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tf_finetune.errors import UserError
from tf_finetune.files import is_file, is_remote, local_copy
from tf_finetune.runs.paths import expand_path

Kind = Literal["saved_model", "tf1_hub", "keras_hub", "hugging_face"]

_KINDS = (
    "TensorFlow 2 SavedModel, KerasHub preset, encoder in Hugging Face's format, or BERT of "
    "Google's release"
)
_KERAS_HUB_SCHEMES = ("kaggle://", "hf://", "modelscope://")


def local_path(handle: str, flag: str = "encoder") -> Path | None:
    """Returns the path of a handle's files; None for a preset that KerasHub finds itself.

    It is a folder, or the prefix of a checkpoint's files.

    Args:
        handle: See `load_encoder`.
        flag: The flag to name in error messages.

    Raises:
        UserError: A download failed, or no such package is installed.
    """
    handle = expand_path(handle, f"--{flag}")
    if handle.startswith("package:"):
        return package_path(handle, flag, lambda path: path.is_dir() and find_kind(path), _KINDS)
    if handle.startswith(("https://", "http://")):
        return _download(handle, flag)
    if handle.startswith(_KERAS_HUB_SCHEMES):
        return None
    if is_remote(handle):
        folder, _, name = handle.rpartition("/")
        return local_copy(folder) / name if is_file(f"{handle}.index") else local_copy(handle)
    if Path(handle).exists() or Path(f"{handle}.index").exists():
        return Path(handle)
    import keras_hub  # Costs time and memory, for preset names only: docs/performance.md.

    return None if handle in keras_hub.models.Backbone.presets else Path(handle)


def find_kind(path: Path) -> Kind | None:
    """Returns the format of the encoder at a path of `local_path`; None: no encoder."""
    if not path.is_dir():
        return "hugging_face" if path.with_name(f"{path.name}.index").is_file() else None
    if (path / "tfhub_module.pb").is_file():
        return "tf1_hub"
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        return "saved_model"
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if isinstance(config, dict) and "registered_name" in config:
        return "keras_hub"
    # transformers did not write model_type before 2020.
    if isinstance(config, dict) and ("model_type" in config or "type_vocab_size" in config):
        return "hugging_face"
    return "hugging_face" if (path / "bert_config.json").is_file() else None


def read_json(handle: str, path: Path) -> dict[str, Any]:
    """Returns a JSON object of an encoder's files; see `read_object`."""
    try:
        return read_object(path)
    except UserError as error:
        raise UserError(f"--encoder={handle}: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Returns a JSON object of a model's files.

    Raises:
        UserError: The file is missing, damaged, or of something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Copy it from where the model comes from.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as JSON: {error}. Compare it with the original's."
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not an object. Compare it with the "
            "original's."
        )
    return content


def describe(path: Path | None) -> str:
    """Describes a path without an encoder, for an error message."""
    if path is None or not path.exists():
        return (
            "there is no such directory, and KerasHub has no preset of that name. "
            f"{hub_hint(str(path), 'encoder')}Give the directory of a {_KINDS}, a URL, or "
            "package:<python module>."
        )
    if not path.is_dir():
        return f"a file. Give the directory of a {_KINDS}; unpack an archive first."
    inside = sorted(folder.name for folder in path.iterdir() if find_kind(folder))
    if inside:
        return f"not an encoder itself, but these folders in it may be: {', '.join(inside)}."
    return (
        f"no {_KINDS}: it holds no saved_model.pb, no bert_config.json, and no config.json that "
        "names a KerasHub class (registered_name) or a model_type."
    )


def hub_hint(handle: str, flag: str) -> str:
    """Says how a name of the Hugging Face Hub is written, if the handle may be one."""
    if not re.fullmatch(r"(?=.*[a-z])\w[\w.-]*(/\w[\w.-]*)?", handle):
        return ""
    # The Hub's first models had no owner; BERT's is now Google.
    name = f"google-bert/{handle}" if handle.startswith("bert-") else handle
    return f"If it is a model of the Hugging Face Hub: --{flag}=hf://{name}. "


def _download(handle: str, flag: str) -> Path:
    import tensorflow_hub  # imports tf_keras, which only URLs need

    try:
        return Path(tensorflow_hub.resolve(handle))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--{flag}={handle}: cannot be downloaded: {error}. Download and unpack it on a "
            f"machine with network access, then give its directory: --{flag}=/path/to/model."
        ) from error


def package_path(handle: str, flag: str, finds: Callable[[Path], Any], kinds: str) -> Path:
    """Returns the first folder or file of a kind in an installed Python package.

    Args:
        handle: `package:` and the package's name.
        flag: The flag to name in error messages.
        finds: Says whether a path is one.
        kinds: What `finds` looks for, for error messages.

    Raises:
        UserError: No such package is installed, or it carries none.
    """
    name = handle.removeprefix("package:")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"--{flag}={handle}: no Python package {name!r} is installed. "
            "Install it with pip, or give a directory."
        )
    locations = list(spec.submodule_search_locations)
    for location in locations:
        for folder, subfolders, files in os.walk(location):
            subfolders.sort()
            for path in (Path(folder), *(Path(folder, file) for file in sorted(files))):
                if finds(path):
                    return path
    raise UserError(f"--{flag}={handle}: the package at {locations[0]} carries no {kinds}.")
