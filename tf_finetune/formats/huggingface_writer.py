"""Writes a language model that transformers loads: new weights, every other file of the base."""

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import ml_dtypes  # noqa: F401  # makes NumPy know bfloat16
import numpy as np
from safetensors.numpy import save_file

from tf_finetune.errors import UserError
from tf_finetune.files import replaced_directory
from tf_finetune.formats.chat_files import read_chat_template
from tf_finetune.formats.language_model import LanguageModelFiles

Dtype = Literal["float32", "bfloat16", "float16"]

# Files of weights and of optimizers in a base's folder, and the indexes of their parts.
_WEIGHTS = (
    *(".safetensors", ".bin", ".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".gguf", ".pt"),
    *(".pth", ".tflite", ".pdparams", ".ckpt", ".index.json"),
)
_SHARD_BYTES = 5 * 10**9


def write_model(
    directory: str | os.PathLike[str],
    files: LanguageModelFiles,
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    dtype: Dtype = "float32",
    stop_ids: tuple[int, ...] = (),
    others: Mapping[str, bytes] | None = None,
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Writes a model directory in Hugging Face's format; an existing one is replaced whole.

    Args:
        directory: The folder.
        files: The base. `chat_template` is written as it stands there, so give the one that was
            used in training.
        tensors: Name and value of each weight as Hugging Face stores it; taken one by one.
        dtype: The weights' dtype.
        stop_ids: The ids that end an answer; empty: the base's.
        others: Further files by their names, such as a `README.md`, in place of the base's.
        shard_bytes: A file's largest size; what is larger goes into several, with an index.

    Raises:
        UserError: A weight is too large for the dtype, or not finite.
    """
    with replaced_directory(directory) as folder:
        if files.directory is not None:
            _copy(files.directory, folder)
        _write_config(folder / "config.json", files, dtype)
        _write_generation_config(folder / "generation_config.json", files, stop_ids)
        _write_text_side(folder, files)
        for name, content in (others or {}).items():
            (folder / name).write_bytes(content)
        write_weights(folder, tensors, dtype, shard_bytes)


def _copy(source: Path, folder: Path) -> None:
    """Copies every file that holds no weights, without those that are hidden."""
    for file in sorted(source.rglob("*")):
        below = file.relative_to(source)
        hidden = any(part.startswith(".") for part in below.parts)
        if file.is_file() and not hidden and not file.name.endswith(_WEIGHTS):
            (folder / below).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / below)


def _write_config(file: Path, files: LanguageModelFiles, dtype: Dtype) -> None:
    """Changes the dtype in the base's configuration, or writes one anew."""
    key = "torch_dtype" if "torch_dtype" in files.config else "dtype"
    if not file.is_file() or files.config.get(key, dtype) != dtype:
        write_json(file, files.config | {key: dtype})


def _write_generation_config(
    file: Path, files: LanguageModelFiles, stop_ids: tuple[int, ...]
) -> None:
    """Lists all stop ids, which transformers' `generate` reads here and nowhere else."""
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = content.get("eos_token_id")
    wanted = list(stop_ids or files.stop_ids)
    for name in ("bos", "pad"):
        token = files.tokens.get(f"{name}_token")
        id_ = files.config.get(f"{name}_token_id")
        id_ = files.tokenizer.id_of(token) if id_ is None and token else id_
        if content.get(f"{name}_token_id") is None and id_ is not None:
            content[f"{name}_token_id"] = id_
    if wanted and (found if isinstance(found, list) else [found]) != wanted:
        content["eos_token_id"] = wanted
    if not file.is_file() or content != json.loads(file.read_text(encoding="utf-8")):
        write_json(file, content)


def _write_text_side(folder: Path, files: LanguageModelFiles) -> None:
    """Writes what the base lacks of tokenizer and chat template, and the template if it changed."""
    if not (folder / "tokenizer.json").is_file():
        (folder / "tokenizer.json").write_text(files.tokenizer.json, encoding="utf-8")
    file = folder / "tokenizer_config.json"
    template = files.chat_template
    if not file.is_file() or (template and template != read_chat_template(folder)):
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **files.tokens,
        }
        if file.is_file():
            config = json.loads(file.read_text(encoding="utf-8"))
        # Old readers look for it here, new ones in the file beside it.
        write_json(file, config | ({"chat_template": template} if template else {}))
    if template:
        (folder / "chat_template.jinja").write_bytes(template.encode())


def write_weights(
    folder: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    dtype: Dtype = "float32",
    shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Writes `model.safetensors`, or parts of it with an index.

    Args:
        folder: Where to write.
        tensors: Name and value of each weight as Hugging Face stores it; taken one by one.
        dtype: The weights' dtype.
        shard_bytes: A file's largest size.

    Raises:
        UserError: A weight is too large for the dtype, or not finite.
    """
    parts: list[list[str]] = []
    part: dict[str, np.ndarray] = {}
    size, total = 0, 0

    def write() -> None:
        path = folder / f"part-{len(parts)}.safetensors"
        save_file(part, path, metadata={"format": "pt"})
        # The library leaves it to its owner alone; a server may be another user.
        path.chmod(0o644)
        parts.append(list(part))
        part.clear()

    for name, value in tensors:
        stored = _cast(name, value, dtype)
        if part and size + stored.nbytes > shard_bytes:
            write()
            size = 0
        part[name] = stored
        size += stored.nbytes
        total += stored.nbytes
    write()
    if len(parts) == 1:
        (folder / "part-0.safetensors").rename(folder / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, names in enumerate(parts):
        file = f"model-{number + 1:05}-of-{len(parts):05}.safetensors"
        (folder / f"part-{number}.safetensors").rename(folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def _cast(name: str, value: np.ndarray, dtype: Dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(np.asarray(value).astype(dtype))
    if not math.isfinite(float(np.abs(stored).max(initial=0))):
        raise UserError(
            f"weight {name} holds values that are NaN, infinite or too large for {dtype}; nothing "
            "was written. Write float32 or bfloat16, or an earlier checkpoint."
        )
    return stored


def write_json(file: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes JSON as transformers does."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")
