"""The tensors of a folder in Hugging Face's format, read one by one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from tf_finetune.errors import UserError
from tf_finetune.formats.torch_checkpoint import TorchFile
from tf_finetune.formats.weight_parts import weight_parts


def open_tensors(directory: Path, stem: str = "") -> dict[str, Callable[[], np.ndarray]]:
    """Opens a folder's weights.

    Args:
        directory: The folder.
        stem: Of the files' names, `adapter_`; empty: those of a whole model.

    Returns:
        By each tensor's name what reads it.

    Raises:
        UserError: There is no such file, or one is missing, damaged or to be fetched first.
    """
    names = (f"{stem or ''}model.safetensors", f"{stem or 'pytorch_'}model.bin")
    try:
        for name, opener in zip(names, (_open_safetensors, TorchFile), strict=True):
            tensors: dict[str, Callable[[], np.ndarray]] = {}
            for file in weight_parts(directory, name):
                tensors |= _readers(file, opener)
            if tensors:
                return tensors
    except UserError:
        raise
    # The exceptions of damaged indexes have no common class.
    except Exception as error:
        raise UserError(
            f"{directory}: the index of its weights cannot be read: {type(error).__name__}: "
            f"{error}. Compare it with the original's."
        ) from error
    inside = ", ".join(sorted(path.name for path in directory.iterdir()))
    raise UserError(
        f"{directory} holds no weights, {' or '.join(names)}, only {inside}. Compare its files "
        "with the original's."
    )


def _open_safetensors(file: Path) -> Any:
    return safetensors.safe_open(file, framework="numpy")


def _readers(file: Path, opener: Callable[[Path], Any]) -> dict[str, Callable[[], np.ndarray]]:
    try:
        opened = opener(file)
        names = opened.keys()
    except UserError:
        raise
    # safetensors', zipfile's and pickle's exceptions have no common class.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{file} is damaged: {reason}. Compare it with the original's, or fetch it again."
        ) from error

    def reader(name: str) -> Callable[[], np.ndarray]:
        return lambda: opened.get_tensor(name)

    return {name: reader(name) for name in names}


def float32(name: str, value: np.ndarray) -> np.ndarray:
    """Returns a weight as float32.

    Raises:
        UserError: It is not of floating point numbers, or some are NaN or infinite.
    """
    if value.dtype.name not in ("float32", "float16", "bfloat16", "float64"):
        raise UserError(
            f"tensor {name} is of dtype {value.dtype.name}; only float32, float16, bfloat16 and "
            "float64 can be read. Take the checkpoint that is not quantised."
        )
    value = np.asarray(value, "float32")
    # A sum is several times faster than looking at each value, and not finite if one of them is.
    with np.errstate(all="ignore"):
        suspicious = not np.isfinite(value.sum())
    if suspicious and (bad := int(np.sum(~np.isfinite(value)))):
        raise UserError(
            f"tensor {name} has {bad} of {value.size} values that are NaN or infinite: the "
            "checkpoint was saved after a training had failed. Take an earlier one."
        )
    return value
