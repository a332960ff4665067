"""The tensors of a `pytorch_model.bin`, read without PyTorch and without running what it names."""

import io
import mmap
import zipfile
from pathlib import Path
from typing import Protocol

import numpy as np

from tf_finetune.formats.torch_pickle import Storage, load_pickle, tensors_of

# The number that a file of PyTorch before 1.6 opens with, pickled.
_OLD_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


class TorchFile:
    """An open state dict, as `torch.save` writes it; see `load_pickle` for what it may name."""

    def __init__(self, path: Path) -> None:
        """Opens a file and reads its pickle.

        Args:
            path: The file.

        Raises:
            UserError: The file names anything that no tensor needs.
            Exception: It is damaged; `zipfile` and `pickle` have no common exception class.
        """
        with path.open("rb") as file:
            start = file.read(len(_OLD_MAGIC))
        self._container: _Container
        if start == _OLD_MAGIC:
            self._container = _Stream(path)
        elif zipfile.is_zipfile(path):
            self._container = _Archive(path)
        else:
            raise ValueError(f"{path.name} is no file of PyTorch; it begins with {start!r}")
        try:
            self._tensors = tensors_of(self._container.content, path)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> "TorchFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def keys(self) -> list[str]:
        """Returns the tensors' names."""
        return list(self._tensors)

    def get_tensor(self, name: str) -> np.ndarray:
        """Reads a tensor.

        Raises:
            ValueError: It reaches beyond its storage, or is not made of a storage and integers.
        """
        place = self._tensors[name]
        return place.take(name, self._container.read(place.storage))


class _Container(Protocol):
    """A file's pickle, and its storages."""

    content: object

    def read(self, storage: Storage) -> np.ndarray:
        """Returns all elements of a storage."""

    def close(self) -> None:
        """Closes the file."""


class _Archive:
    """The format of PyTorch 1.6 and later: a zip archive of one pickle and of each storage."""

    def __init__(self, path: Path) -> None:
        self._path, self._zip = path, zipfile.ZipFile(path)
        try:
            self.content = self._read_pickle()
        except BaseException:
            self._zip.close()
            raise

    def _read_pickle(self) -> object:
        names = self._zip.namelist()
        found = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(found) != 1:
            raise ValueError(f"{self._path.name} holds {len(found)} data.pkl, not one")
        self._root = found[0].removesuffix("/data.pkl")
        order = f"{self._root}/byteorder"
        if order in names and self._read(order) != b"little":
            raise ValueError(f"{self._path.name} was written on a big-endian machine")
        return load_pickle(io.BytesIO(self._read(found[0])), self._path)

    def read(self, storage: Storage) -> np.ndarray:
        return np.frombuffer(self._read(f"{self._root}/data/{storage.key}"), storage.dtype)

    def close(self) -> None:
        self._zip.close()

    def _read(self, name: str) -> bytes:
        if self._zip.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} in {self._path.name} is compressed, which PyTorch never does")
        return self._zip.read(name)


class _Stream:
    """The format before PyTorch 1.6: five pickles, then each storage after its length.

    The pickles are a magic number, the protocol's version, the machine, the state dict, and the
    keys of the storages in their order.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            _, version, machine, self.content, keys = (load_pickle(file, path) for _ in range(5))
            place = file.tell()
        if version != 1001 or not (isinstance(machine, dict) and isinstance(keys, list)):
            raise ValueError(f"{path.name} is of an unknown version, {version!r:.40}")
        if machine.get("little_endian") is not True:
            raise ValueError(f"{path.name} was written on a big-endian machine")
        dtypes = {t.storage.key: t.storage.dtype for t in tensors_of(self.content, path).values()}
        self._places: dict[str, tuple[int, int]] = {}
        for key in keys:
            count = int.from_bytes(self._map[place : place + 8], "little")
            place += 8
            self._places[key] = place, count
            if key not in dtypes:
                raise ValueError(f"{path.name} has a storage {key!r:.40} of no tensor")
            place += count * dtypes[key].itemsize

    def read(self, storage: Storage) -> np.ndarray:
        place, count = self._places[storage.key]
        end = place + count * storage.dtype.itemsize
        if end > len(self._map):
            raise ValueError(f"{self._path.name} ends within the storage {storage.key!r}")
        return np.frombuffer(self._map, storage.dtype, count, place)

    def close(self) -> None:
        """The map is closed with the last array on it."""
