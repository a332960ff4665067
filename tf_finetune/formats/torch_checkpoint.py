"""The tensors of a `pytorch_model.bin`, read without PyTorch and without running what it names."""

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
# The number that a file of PyTorch before 1.6 opens with, pickled.
_OLD_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


class TorchFile:
    """An open state dict, as `torch.save` of PyTorch 1.6 and later writes it.

    It is a zip archive of one pickle and the raw bytes of each storage. A pickle can name any
    function to be called; this one may name tensors, their storages and `OrderedDict` only.
    """

    def __init__(self, path: Path) -> None:
        """Opens a file and reads its pickle.

        Args:
            path: The file.

        Raises:
            UserError: The file is in the older format, or names anything that no tensor needs.
            Exception: It is damaged; `zipfile` and `pickle` have no common exception class.
        """
        self._path = path
        with path.open("rb") as file:
            start = file.read(len(_OLD_MAGIC))
        if start == _OLD_MAGIC:
            raise UserError(
                f"{path} is in the format of PyTorch before 1.6, which is not read. Where PyTorch "
                "is installed, write it in the newer one: python -c \"import torch; f = '"
                f"{path.name}'; torch.save(torch.load(f, 'cpu', weights_only=True), f)\"."
            )
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path.name} is no file of PyTorch; it begins with {start!r}")
        self._zip = zipfile.ZipFile(path)
        try:
            self._root, self._tensors = self._read_pickle()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> "TorchFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def keys(self) -> list[str]:
        """Returns the tensors' names."""
        return list(self._tensors)

    def get_tensor(self, name: str) -> np.ndarray:
        """Reads a tensor.

        Raises:
            ValueError: It reaches beyond its storage, or is not made of a storage and integers.
        """
        storage, offset, shape, strides = self._tensors[name]
        data = np.frombuffer(self._read(f"{self._root}/data/{storage.key}"), storage.dtype)
        numbers = (offset, *shape, *strides)
        if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"tensor {name!r} has shape {shape!r} and strides {strides!r}")
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if math.prod(shape) > data.size or last >= data.size:
            raise ValueError(
                f"tensor {name!r} of shape {shape} reaches beyond its storage of {data.size}"
            )
        steps = [step * data.itemsize for step in strides]
        # A copy, so that the rest of the storage, which tensors may share, is not kept.
        return np.lib.stride_tricks.as_strided(data[offset:], shape, steps).copy()

    def _read_pickle(self) -> tuple[str, dict[str, "_Tensor"]]:
        """Returns the archive's folder and the tensors that its pickle describes."""
        names = self._zip.namelist()
        found = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(found) != 1:
            raise ValueError(f"{self._path.name} holds {len(found)} data.pkl, not one")
        root = found[0].removesuffix("/data.pkl")
        if f"{root}/byteorder" in names and self._read(f"{root}/byteorder") != b"little":
            raise ValueError(f"{self._path.name} was written on a big-endian machine")
        data = self._read(found[0])
        for opcode, argument, _ in pickletools.genops(data):
            # The memo is an array: a large index alone would fill the memory.
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise ValueError(f"{found[0]} is damaged: object {argument} of {len(data)} bytes")
        content = _Unpickler(io.BytesIO(data), self._path).load()
        if not isinstance(content, dict):
            raise ValueError(f"{self._path.name} holds no dict of tensors")
        return root, {
            name: value
            for name, value in content.items()
            if isinstance(name, str) and isinstance(value, _Tensor)
        }

    def _read(self, name: str) -> bytes:
        if self._zip.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} in {self._path.name} is compressed, which PyTorch never does")
        return self._zip.read(name)


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


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
            "torch._utils._rebuild_tensor_v2": lambda *parts: _Tensor(*parts[:4]),
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

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the storage that a persistent id names."""
        _, storage, key, *_ = pid
        return _Storage(key, _DTYPES[storage])
