"""Lines of text files, whatever their compression and line ends; every error names its line."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from tf_finetune.errors import UserError
from tf_finetune.files import open_file

# What a file begins with tells its compression; its name does not.
_MAGIC = {
    "gzip": b"\x1f\x8b",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bz2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zip": b"PK\x03\x04",
}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
_CHUNK = 1 << 20


def read_head(path: str, size: int) -> tuple[bytes, bool]:
    """Returns the first bytes of a file's content, and whether it is compressed.

    Raises:
        UserError: It cannot be read.
    """
    try:
        stream, kind = _open(path)
        with stream:
            return stream.read(size), bool(kind)
    except _READ_ERRORS as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None


def read_lines(path: str, line_end: bytes = b"\n") -> Iterator[tuple[int, str]]:
    r"""Yields line numbers from 1 and lines without their ends.

    Args:
        path: The file; its compression is found by its content.
        line_end: `\n`, before which a `\r` is dropped, or `\r`.

    Raises:
        UserError: It cannot be read, is not UTF-8, or holds a NUL byte.
    """
    offset = 0
    try:
        stream, _ = _open(path)
        with stream:
            lines = stream if line_end == b"\n" else _split(stream, line_end)
            for number, line in enumerate(lines, 1):
                text = decode_line(line, f"{path}:{number}", offset)
                offset += len(line)
                yield number, text.removesuffix("\n").removesuffix("\r")
    except _READ_ERRORS as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None


def decode_line(line: bytes, location: str, offset: int) -> str:
    """Decodes the line at a byte offset of its file; drops the byte order mark at offset 0.

    Raises:
        UserError: It is not UTF-8, or holds a NUL byte.
    """
    if b"\0" in line:
        raise UserError(
            f"{location}: a NUL byte at byte {offset + line.index(0)} of the file. Is it UTF-16, "
            "or not text? Save it as UTF-8."
        )
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{location}: not UTF-8 at byte {offset + error.start} of the file "
            f"(0x{line[error.start]:02x}). Save the file as UTF-8."
        ) from None
    return text if offset else text.removeprefix("\ufeff")


def _open(path: str) -> tuple[BinaryIO, str]:
    """Opens the content of a file; returns its compression too, by its first bytes."""
    file: Any = open_file(path)
    head = file.peek(max(map(len, _MAGIC.values())))
    kind = next((name for name, magic in _MAGIC.items() if head.startswith(magic)), "")
    if kind == "zip":
        file.close()
        raise UserError(f"{path}: a zip archive. Unpack it, and name the file in it.")
    if kind == "zstd":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd")), kind
    unpack: dict[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    return cast(BinaryIO, unpack[kind](file) if kind in unpack else file), kind


def _split(stream: BinaryIO, line_end: bytes) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(_CHUNK):
        *lines, rest = (rest + chunk).split(line_end)
        for line in lines:
            yield line + line_end
    if rest:
        yield rest
