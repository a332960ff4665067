"""`FileFormat`: what a file of rows is, told by its name, its first bytes and the user's flags."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tf_finetune.data.lines import COMPRESSED, decode_line, read_head
from tf_finetune.data.paths import extension
from tf_finetune.data.table_dialect import Dialect, find_dialect
from tf_finetune.data.text_folders import folder_notices
from tf_finetune.errors import UserError
from tf_finetune.files import is_dir
from tf_finetune.runs.config import DataConfig

Kind = Literal["table", "jsonl", "json", "parquet", "tfrecord", "workbook", "text", "folder"]
_KINDS: dict[str, Kind] = {
    ".tsv": "table",
    ".tab": "table",
    ".csv": "table",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
    ".xlsx": "workbook",
    ".txt": "text",
}
# What a file begins with shows how it is written.
_HEAD_BYTES = 4 << 20


@dataclass(frozen=True)
class FileFormat:
    r"""What a file is and how it is read.

    Attributes:
        path: The file, or the folder of texts.
        kind: The format of its rows.
        compressed: Whether it is compressed.
        line_end: `\n` or, in files of old Macs, `\r`.
        dialect: How a table of text is written; None for other kinds.
        has_header: Whether the first row of a workbook names the columns.
        notices: What was found otherwise than the name of the file tells.
    """

    path: str
    kind: Kind
    compressed: bool = False
    line_end: bytes = b"\n"
    dialect: Dialect | None = None
    has_header: bool = True
    notices: tuple[str, ...] = ()

    @property
    def shows_quoting(self) -> bool:
        """Whether it is a table of quoted cells whose name does not tell."""
        return bool(self.dialect and self.dialect.quoted) and extension(self.path) != ".csv"

    @property
    def has_blocks(self) -> bool:
        """Whether rows can be found from any byte of the file."""
        if self.compressed or self.line_end != b"\n":
            return False
        if self.dialect:
            return not self.dialect.quoted
        return self.kind in ("jsonl", "tfrecord")


def find_format(
    path: str,
    config: DataConfig = DataConfig(),
    columns: Sequence[str] = (),
    skip_ragged: bool = False,
) -> FileFormat:
    """Finds out what a file is.

    Args:
        path: A `.tsv` or `.csv` (by default the first is not quoted, the second is), `.jsonl`,
            `.ndjson` or `.json`, each also compressed (gzip, zstd, bz2, xz); `.parquet`, `.xlsx`,
            `.tfrecord` of `tf.train.Example`; a `.txt`, or a folder of them for each class.
        config: Its `field_separator`, `quoting` and `header`.
        columns: The columns of a table that has no header line. A first line that contains one of
            these names, or another number of cells, is taken for a header line nevertheless.
        skip_ragged: Leave out rows of a table that have too few columns.

    Raises:
        UserError: An unknown extension, an empty file, a header that cannot be used, or a table
            that can be read in two ways.
    """
    if is_dir(path):
        return FileFormat(path, "folder", notices=tuple(folder_notices(path)))
    kind = _KINDS.get(extension(path))
    if kind is None:
        raise UserError(_unknown(path))
    if kind in ("parquet", "tfrecord", "workbook", "text"):
        return FileFormat(path, kind, has_header=config.header != "none")
    head, packed = read_head(path, _HEAD_BYTES)
    notices: list[str] = []
    line_end = b"\r" if b"\r" in head and b"\n" not in head else b"\n"
    if line_end == b"\r":
        notices.append("its lines end in a carriage return alone, as on old Macs.")
    if kind != "table":
        if kind == "jsonl" and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            kind = "json"
        return FileFormat(path, kind, packed, line_end, notices=tuple(notices))
    decode_line(head.split(line_end, 1)[0], f"{path}:1", 0)
    text = head.decode(errors="replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").split(line_end.decode())
    is_cut = len(head) == _HEAD_BYTES
    if len(lines) > 1 and (is_cut or lines[-1] == ""):
        lines.pop()
    dialect, found = find_dialect(path, lines, config, columns, skip_ragged, is_cut=is_cut)
    return FileFormat(path, kind, packed, line_end, dialect, notices=(*notices, *found))


def with_like_quoting(
    files: dict[str, list[FileFormat]],
    config: DataConfig,
    columns: Sequence[str] = (),
    skip_ragged: bool = False,
) -> dict[str, list[FileFormat]]:
    """Reads quotes alike in all tables of a run: in small ones nothing may show that they quote.

    Args:
        files: Those of each split.
        config: See `find_format`, as the others.
        columns: Of tables without a header line.
        skip_ragged: Leave out rows that have too few columns.
    """
    if not any(file.shows_quoting for found in files.values() for file in found):
        return files
    quoted = dataclasses.replace(config, quoting="minimal")
    notice = (
        "cells in quotes are read without them, as those of another file of the run show "
        "(--quoting=none overrules it)."
    )

    def alike(file: FileFormat) -> FileFormat:
        if not (file.dialect and file.dialect.may_be_quoted):
            return file
        file = find_format(file.path, quoted, columns, skip_ragged)
        return dataclasses.replace(file, notices=(*file.notices, notice))

    return {split: list(map(alike, found)) for split, found in files.items()}


def _unknown(path: str) -> str:
    ending = extension(path)
    known = f"{', '.join(_KINDS)}, texts also compressed ({', '.join(COMPRESSED)})"
    if ending == ".zip":
        return f"{path}: a zip archive. Unpack it, and name the file in it."
    convert = "Convert it, for example by pandas' read_... and to_csv(path, index=False)"
    return f"{path}: unknown file extension {ending!r}. Known are {known}. {convert}."
