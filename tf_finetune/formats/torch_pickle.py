"""The pickle of a state dict of PyTorch's: where its tensors lie, and nothing that runs."""

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from tf_finetune.errors import UserError

_DTYPES = {
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "HalfStorage": np.dtype("float16"),
    "FloatStorage": np.dtype("float32"),
    "DoubleStorage": np.dtype("float64"),
    "BoolStorage": np.dtype("bool"),
    "ByteStorage": np.dtype("uint8"),
    "CharStorage": np.dtype("int8"),
    "ShortStorage": np.dtype("int16"),
    "IntStorage": np.dtype("int32"),
    "LongStorage": np.dtype("int64"),
}


class Storage(NamedTuple):
    """A piece of memory that tensors lie in.

    Attributes:
        key: Its name in the file.
        dtype: Of its elements.
    """

    key: str
    dtype: np.dtype[Any]


class TensorPlace(NamedTuple):
    """Where a tensor lies: its storage, and what of it, counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def take(self, name: str, data: np.ndarray) -> np.ndarray:
        """Returns the tensor from the elements of its storage.

        Args:
            name: The tensor's name, for error messages.
            data: All elements of the storage.

        Raises:
            ValueError: It reaches beyond its storage, or is not made of a storage and integers.
        """
        numbers = (self.offset, *self.shape, *self.strides)
        fits = len(self.shape) == len(self.strides)
        if not fits or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(
                f"tensor {name!r} has shape {self.shape!r} and strides {self.strides!r}"
            )
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        if math.prod(self.shape) > data.size or last >= data.size:
            raise ValueError(
                f"tensor {name!r} of shape {self.shape} reaches beyond its storage of {data.size}"
            )
        strides = [step * data.itemsize for step in self.strides]
        # A copy, so that the rest of the storage, which tensors may share, is not kept.
        view = np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides)
        return view.copy()


def load_pickle(file: BinaryIO, path: Path) -> Any:
    """Reads the next pickle of a file; tensors become `TensorPlace`.

    A pickle can name any function to be called; this one may name tensors, their storages and
    `OrderedDict` only.

    Args:
        file: Open for reading; what follows the pickle is left.
        path: Its path, for error messages.

    Raises:
        UserError: The pickle names anything else.
        Exception: It is damaged; `pickle` has no common exception class.
    """
    start, memo = file.tell(), 0
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo = max(memo, int(argument or 0))
    length = file.tell() - start
    # The memo is an array: a large index alone would fill the memory.
    if memo > length:
        raise ValueError(f"{path.name} is damaged: object {memo} of {length} bytes")
    file.seek(start)
    return _Unpickler(io.BytesIO(file.read(length)), path).load()


def tensors_of(content: Any, path: Path) -> dict[str, TensorPlace]:
    """Returns the tensors of a state dict by their names.

    Raises:
        ValueError: It is no dict.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no dict of tensors")
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, TensorPlace)
    }


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Returns what stands for a global: never a thing that outlives this pickle and can change.

        A pickle may set attributes of what it is given.
        """
        stand_ins: dict[str, Callable[..., Any] | str] = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": lambda *parts: TensorPlace(*parts[:4]),
            "torch._utils._rebuild_parameter": lambda *parts: parts[0],
            **{f"torch.{storage}": storage for storage in _DTYPES},
        }
        if (found := stand_ins.get(f"{module}.{name}")) is None:
            raise UserError(
                f"{self._path} asks for {f'{module}.{name}'!r}, which no dict of tensors needs; "
                "nothing of it was run. If you trust the file, load it where it was made, and save "
                "its `state_dict()` alone, best as model.safetensors."
            )
        return found

    def persistent_load(self, pid: Any) -> Storage:
        """Returns the storage that a persistent id names."""
        _, storage, key, *others = pid
        if len(others) > 2 and others[2] is not None:
            raise ValueError(f"storage {key!r:.40} is a view of another, which is not read")
        return Storage(key, _DTYPES[storage])
