"""Large files as blocks of bytes, whose rows can be read without the rows before them."""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from tf_finetune.data.paths import extension
from tf_finetune.errors import UserError
from tf_finetune.files import REMOTE_BUFFER, file_size, file_version, is_remote, open_file

BLOCK_BYTES = 64 * 1024
# A TFRecord is 8 bytes of length, 4 of its checksum, the data, and 4 of theirs.
_HEADER, _FOOTER = 12, 4


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a file. A row belongs to the block that holds its first byte.

    Attributes:
        path: The file.
        start: The block's first byte.
        stop: The byte after its last.
        version: The file's when it was cut into blocks; see `file_version`.
    """

    path: str
    start: int
    stop: int
    version: tuple[int, int]


class RawRow(NamedTuple):
    """The bytes of a row in its file: a line without its end, or the data of a record."""

    path: str
    offset: int
    data: bytes

    @property
    def location(self) -> str:
        """The start of the row, as `file:byte N`."""
        return f"{self.path}:byte {self.offset}"


def split_files(paths: Sequence[str], block_bytes: int = BLOCK_BYTES) -> list[Block]:
    """Cuts files into blocks, in their order."""
    return [
        Block(path, start, min(start + step, version[0]), version)
        for path in paths
        for version in [file_version(path)]
        # A remote read is slow, however small.
        for step in [max(block_bytes, REMOTE_BUFFER) if is_remote(path) else block_bytes]
        for start in range(0, version[0], step)
    ]


def read_block(block: Block) -> list[RawRow]:
    """Reads the rows that begin in a block; empty lines are skipped.

    Raises:
        UserError: A TFRecord file is damaged, or the file has changed since it was cut.
    """
    with open_file(block.path) as file:
        if file_version(block.path) != block.version:
            raise UserError(
                f"{block.path}: the file was changed while it was read. The same command goes on, "
                "from the last checkpoint if there is one, with the rows that are there now."
            )
        return (_read_records if is_tfrecord(block.path) else _read_lines)(file, block)


def count_rows(paths: Sequence[str]) -> int:
    """Counts the rows of files as their blocks have them, without parsing the rows."""
    return sum(_count_records(path) if is_tfrecord(path) else _count_lines(path) for path in paths)


def is_tfrecord(path: str) -> bool:
    """Whether a file contains records, not lines."""
    return extension(path).startswith(".tfrecord")


def _read_lines(file: BinaryIO, block: Block) -> list[RawRow]:
    offset = max(block.start - 1, 0)
    file.seek(offset)
    data = file.read(block.stop - offset)
    if block.start:
        # The line of the byte before `block.start` belongs to the block before.
        first = data.find(b"\n") + 1
        if not first:
            return []
        data, offset = data[first:], offset + first
    if not data:
        return []
    while not data.endswith(b"\n") and (rest := file.readline()):
        data += rest
    rows = []
    for line in data.removesuffix(b"\n").split(b"\n"):
        if text := line.removesuffix(b"\r"):
            rows.append(RawRow(block.path, offset, text))
        offset += len(line) + 1
    return rows


def _count_lines(path: str) -> int:
    count, before = 0, b"\n"
    with open_file(path) as file:
        while chunk := file.read(1 << 24):
            # Prepend the end of the chunk before: an empty line may begin there.
            seen = before + chunk
            if b"\n\n" in seen or b"\n\r\n" in seen:
                return sum(len(read_block(block)) for block in split_files([path], 1 << 24))
            count += chunk.count(b"\n")
            before = seen[-2:]
    # A last line without a line end is a row too, unless it is a lone carriage return.
    return count + (not before.endswith((b"\n", b"\n\r")) and before != b"\r")


def _read_records(file: BinaryIO, block: Block) -> list[RawRow]:
    size = file.seek(0, os.SEEK_END)
    file.seek(block.start)
    # A record may begin at the block's last byte.
    data = file.read(block.stop - block.start + _HEADER)
    offset = 0
    if block.start:
        while offset < block.stop - block.start and _length(data, offset) is None:
            offset += 1
    rows = []
    while block.start + offset < block.stop:
        position = block.start + offset
        end = offset + _record_bytes(data, offset, block.path, position, size)
        if end + _HEADER > len(data):
            data += file.read(end + _HEADER - len(data))
        rows.append(_raw_row(data[offset + _HEADER : end], block.path, position))
        offset = end
    # The next block searches for a valid header, and so would skip an invalid one: report it here.
    if rows and block.start + offset < size and _length(data, offset) is None:
        raise _damaged(block.path, block.start + offset)
    return rows


def read_records(path: str) -> Iterator[RawRow]:
    """Reads all records of a TFRecord file from its beginning.

    Raises:
        UserError: It is damaged.
    """
    offset, size = 0, file_size(path)
    with open_file(path) as file:
        while header := file.read(_HEADER):
            length = _record_bytes(header, 0, path, offset, size)
            yield _raw_row(file.read(length - _HEADER), path, offset)
            offset += length


def _count_records(path: str) -> int:
    count = offset = 0
    size = file_size(path)
    with open_file(path) as file:
        while header := file.read(_HEADER):
            length = _record_bytes(header, 0, path, offset, size)
            file.seek(length - _HEADER, os.SEEK_CUR)
            offset, count = offset + length, count + 1
    return count


def _record_bytes(data: bytes, offset: int, path: str, position: int, size: int) -> int:
    """Returns the number of bytes of the record at an offset of the data, header to checksum.

    Raises:
        UserError: There is no record, or it ends beyond the file, which has `size` bytes.
    """
    length = _length(data, offset)
    if length is None or position + _HEADER + length + _FOOTER > size:
        raise _damaged(path, position)
    return _HEADER + length + _FOOTER


def _raw_row(data: bytes, path: str, position: int) -> RawRow:
    """Checks data against the checksum at its end, and returns the record."""
    record = data[:-_FOOTER]
    if _masked_crc(record) != struct.unpack_from("<I", data, len(record))[0]:
        raise _damaged(path, position)
    return RawRow(path, position, record)


def _length(data: bytes, offset: int) -> int | None:
    """Returns the length in the record header at an offset; None: there is no valid header."""
    if len(data) < offset + _HEADER:
        return None
    length, crc = struct.unpack_from("<QI", data, offset)
    # Reject implausible lengths before paying for the checksum.
    valid = length < 2**40 and _masked_crc(data[offset : offset + 8]) == crc
    return length if valid else None


def _masked_crc(data: bytes) -> int:
    """The checksum of tensorflow/core/lib/hash/crc32c.h."""
    import google_crc32c

    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _damaged(path: str, offset: int) -> UserError:
    return UserError(f"{path}:byte {offset}: damaged here, or not a TFRecord file. Write it again.")
