"""The header of a GGUF file: its metadata, and where each tensor lies.

The `gguf` library reads it too, but makes an array of every token: three seconds for SmolLM2's.
"""

import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tf_finetune.errors import UserError

_MAGIC = b"GGUF"
_NUMBERS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class GGUFTensor(NamedTuple):
    """Where a tensor lies in its file.

    Attributes:
        shape: With the rows first, as NumPy has it.
        kind: The number of its `GGMLQuantizationType`.
        start: Its first byte, from the start of the data.
    """

    shape: tuple[int, ...]
    kind: int
    start: int


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class GGUFFile:
    """An open GGUF file.

    Attributes:
        metadata: Its keys with their values: numbers, texts, and lists of one kind of them.
        tensors: Its tensors by their names.
    """

    def __init__(self, path: Path) -> None:
        """Opens a file and reads its header.

        Args:
            path: The file.

        Raises:
            UserError: It is no GGUF file of versions 2 and 3, or damaged.
        """
        self._path = path
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = len(_MAGIC)
        try:
            self._read_header()
        except (struct.error, ValueError, KeyError, OverflowError) as error:
            raise UserError(
                f"{path} is damaged: its header cannot be read: {error}. Fetch it again."
            ) from error

    def _read_header(self) -> None:
        version = self._number("I")
        if version not in (2, 3):
            raise UserError(
                f"{self._path} is of GGUF version {version}; versions 2 and 3 of little-endian "
                "machines can be read. Convert the model again with a newer llama.cpp."
            )
        tensors, keys = self._number("Q"), self._number("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._text()
            self.metadata[key] = self._value(self._number("I"))
        self.tensors: dict[str, GGUFTensor] = {}
        for _ in range(tensors):
            name, rank = self._text(), self._number("I")
            shape = tuple(self._number("Q") for _ in range(rank))
            self.tensors[name] = GGUFTensor(shape[::-1], self._number("I"), self._number("Q"))
        alignment = self.metadata.get("general.alignment", 32)
        self._data = -(-self._at // alignment) * alignment

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor.

        Args:
            name: One of `tensors`.

        Returns:
            Its values, float32, dequantised as llama.cpp does.

        Raises:
            UserError: It is of a kind that cannot be dequantised, or the file is cut off.
        """
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

        tensor = self.tensors[name]
        try:
            kind = GGMLQuantizationType(tensor.kind)
            block, size = GGML_QUANT_SIZES[kind]
            row = tensor.shape[-1] // block * size
            shape = (*tensor.shape[:-1], row)
            count = int(np.prod(shape))
            start = self._data + tensor.start
            if start + count > len(self._bytes):
                raise UserError(
                    f"{self._path} is cut off: it has {len(self._bytes)} bytes, and its tensor "
                    f"{name} ends at {start + count}. Fetch it again."
                )
            values = np.frombuffer(self._bytes, "uint8", count, start).reshape(shape)
            return np.asarray(dequantize(values, kind), "float32")
        except (ValueError, KeyError, NotImplementedError) as error:
            raise UserError(
                f"{self._path}: tensor {name} of kind {tensor.kind} cannot be read: {error}. Take "
                "a file in F32, F16, BF16, Q8_0, Q6_K, Q5_1, Q5_0, Q4_1 or Q4_0."
            ) from error

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._bytes, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _text(self) -> str:
        size = self._number("Q")
        if size > len(self._bytes) - self._at:
            raise ValueError(f"a text of {size} bytes")
        self._at += size
        # Tokens of some vocabularies are not UTF-8.
        return self._bytes[self._at - size : self._at].decode(errors="replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(_NUMBERS[kind])
        inner, count = self._number("I"), self._number("Q")
        if count > len(self._bytes) - self._at:
            raise ValueError(f"a list of {count} values")
        if inner in (_STRING, _ARRAY):
            return [self._value(inner) for _ in range(count)]
        code = f"<{count}{_NUMBERS[inner]}"
        values = struct.unpack_from(code, self._bytes, self._at)
        self._at += struct.calcsize(code)
        return list(values)
