"""`read_language_model`: from any kind of handle to the files of a language model."""

from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.files import is_remote, local_copy
from tf_finetune.formats.families import decoder_config
from tf_finetune.formats.gguf import read_gguf
from tf_finetune.formats.gguf_file import is_gguf
from tf_finetune.formats.handles import hub_hint, package_path, read_object
from tf_finetune.formats.hf_hub import download
from tf_finetune.formats.huggingface import read_hugging_face
from tf_finetune.formats.keras_hub_decoders import read_keras_hub
from tf_finetune.formats.language_model import LanguageModelFiles
from tf_finetune.runs.paths import expand_path

_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "*.gguf")
_KINDS = "language model in Hugging Face's format, GGUF file, or KerasHub preset"


def read_language_model(handle: str) -> LanguageModelFiles:
    """Opens the files of a language model; its weights are read when they are asked for.

    Args:
        handle: One of
            a local directory: a model in Hugging Face's format, a KerasHub preset, or one that
            holds a GGUF file;
            a GGUF file;
            the `gs://` address of such a directory;
            `hf://org/name`: a model of the Hugging Face Hub, `hf://org/name@revision` of a
            revision;
            `package:<module>`: any of these in an installed Python package.

    Returns:
        The files.

    Raises:
        UserError: The handle cannot be used; the message says why and what to do.
    """
    try:
        files = _read(handle, _path(handle))
        tokens, embeddings = files.tokenizer.vocab_size, files.config["vocab_size"]
        if tokens > embeddings:
            raise UserError(
                f"its tokenizer has {tokens} tokens, its network embeddings for {embeddings}. Give "
                "it its own tokenizer."
            )
        return files
    except UserError as error:
        # Some are told by those who know the flag.
        start = "" if str(error).startswith("--model=") else f"--model={handle}: "
        raise UserError(f"{start}{error}") from error


def _read(handle: str, path: Path) -> LanguageModelFiles:
    if path.is_file():
        return read_gguf(handle, path)
    if "registered_name" in read_object(path / "config.json"):
        return read_keras_hub(handle, path)
    return read_hugging_face(handle, path)


def _path(handle: str) -> Path:
    """Returns a handle's folder, or its GGUF file."""
    expanded = expand_path(handle, "--model")
    if expanded.startswith("package:"):
        return _gguf_in(package_path(expanded, "model", _is_model, _KINDS))
    if expanded.startswith("hf://"):

        def check(config: dict[str, Any]) -> None:
            decoder_config(config, expanded)

        return _gguf_in(download(expanded.removeprefix("hf://"), check, _WEIGHTS, "model"))
    if expanded.startswith(("https://", "http://", "kaggle://", "modelscope://")):
        raise UserError(
            "an address that is not read. Download the model and give its directory, or name one "
            "of the Hugging Face Hub: hf://org/name."
        )
    path = local_copy(expanded) if is_remote(expanded) else Path(expanded)
    if not path.exists():
        raise UserError(
            f"there is no such directory or file. {hub_hint(handle, 'model')}Give the path of a "
            f"{_KINDS}, or package:<python module>."
        )
    return _gguf_in(path)


def _is_model(path: Path) -> bool:
    """Whether a path in a package is a model: a GGUF file, or a folder with a configuration."""
    if not path.is_dir():
        return path.suffix == ".gguf"
    try:
        return not {"model_type", "registered_name"}.isdisjoint(read_object(path / "config.json"))
    except UserError:
        return False


def _gguf_in(path: Path) -> Path:
    """Returns the path, or the one GGUF file in a folder that has no other model.

    Raises:
        UserError: It holds several, or nothing that can be read.
    """
    if path.is_file():
        if not is_gguf(path):
            raise UserError(f"a file that is not GGUF. Give the path of a {_KINDS}.")
        return path
    if (path / "config.json").is_file():
        return path
    found = sorted(path.glob("*.gguf"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise UserError(f"a directory with several GGUF files: {names}. Give the path of one.")
    if (path / "adapter_config.json").is_file():
        base = read_object(path / "adapter_config.json").get("base_model_name_or_path")
        raise UserError(
            f"a PEFT adapter, not a model. Give its base as --model; it was trained on {base!r}."
        )
    inside = sorted(folder.name for folder in path.iterdir() if _is_model(folder))
    if inside:
        raise UserError(f"not a model itself, but these in it may be: {', '.join(inside)}.")
    raise UserError(f"no {_KINDS}: it holds neither config.json nor a .gguf file.")
