"""`RowStream`: rows that stay in their files, read block by block in any order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tf_finetune.data.blocks import (
    EXTENSIONS,
    Block,
    RawRow,
    can_be_read_in_blocks,
    count_rows,
    extension,
    is_tfrecord,
    read_block,
    split_files,
)
from tf_finetune.data.readers import Row, decode_line, parse_cells, parse_json, read_header
from tf_finetune.data.records import parse_example
from tf_finetune.errors import UserError
from tf_finetune.files import file_size
from tf_finetune.runs.config import DataConfig

# Text files above this are streamed: in memory their rows take several times as much.
STREAM_BYTES = 512 * 2**20
# Sample at least this many blocks, then more until SAMPLE_ROWS rows.
SAMPLE_BLOCKS, MAX_SAMPLE_BLOCKS, SAMPLE_ROWS = 16, 1024, 1000


@dataclass(frozen=True)
class RowStream:
    """Rows of files of any size.

    Attributes:
        blocks: All blocks of the files.
        headers: The files whose first line is a header.
        parse: Takes a raw row; returns its values by column, None if it is blank.
    """

    blocks: Sequence[Block]
    headers: frozenset[str]
    parse: Callable[[RawRow], dict[str, Any] | None]

    def raw_rows(self, number: int) -> list[RawRow]:
        """Returns the rows of a block, unparsed."""
        rows = read_block(self.blocks[number])
        is_header = rows and rows[0].offset == 0 and rows[0].path in self.headers
        return rows[1:] if is_header else rows

    def rows(self, raw: Sequence[RawRow]) -> list[Row]:
        """Parses rows; blank ones are left out."""
        return [(row.location, values) for row in raw if (values := self.parse(row)) is not None]

    @cached_property
    def num_rows(self) -> int:
        """The number of rows in all blocks; counting them reads the files once."""
        return count_rows(list(dict.fromkeys(b.path for b in self.blocks))) - len(self.headers)

    @cached_property
    def sample(self) -> list[Row]:
        """The rows of random blocks."""
        return self.rows(self._sampled[0])

    @property
    def estimated_rows(self) -> int:
        """The number of rows, extrapolated from the sample."""
        rows, size = self._sampled
        total = sum(block.stop - block.start for block in self.blocks)
        return max(1, round(total * len(rows) / size))

    @cached_property
    def _sampled(self) -> tuple[list[RawRow], int]:
        """The raw rows of random blocks, and the size of these blocks in bytes."""
        rows: list[RawRow] = []
        size = 0
        order = np.random.default_rng(0).permutation(len(self.blocks))[:MAX_SAMPLE_BLOCKS]
        for looked_at, number in enumerate(order):
            # A block inside a long row contains no row: only enough rows end the sample.
            if looked_at >= SAMPLE_BLOCKS and len(rows) >= SAMPLE_ROWS:
                break
            rows += self.raw_rows(number)
            size += self.blocks[number].stop - self.blocks[number].start
        return sorted(rows), size


def open_stream(
    paths: Sequence[str], header: Sequence[str] = (), skip_ragged: bool = False
) -> RowStream:
    """Opens files as a stream of rows; see `read_file` for the arguments.

    Raises:
        UserError: A file is empty, or its header is damaged.
    """
    headers = {path: read_header(path, header) for path in paths if extension(path) == ".tsv"}

    def parse(row: RawRow) -> dict[str, Any] | None:
        if is_tfrecord(row.path):
            return parse_example(row.data, row.location)
        line = decode_line(row.data, row.location, row.offset)
        if row.path in headers:
            return parse_cells(line, row.location, headers[row.path][0], skip_ragged)
        return parse_json(line, row.location)

    with_header = frozenset(path for path, (_, is_line) in headers.items() if is_line)
    stream = RowStream(split_files(paths), with_header, parse)
    if not stream.sample:
        raise UserError(f"{paths[0]}: the file has no rows.")
    return stream


def is_streamed(
    config: DataConfig, paths: Sequence[str] | None, needs_all_rows: Mapping[str, Any]
) -> bool:
    """Decides whether the training rows stay in their files.

    Args:
        config: Its `streaming` is `auto`, `true` or `false`.
        paths: The files of the training rows; None: they do not come from files.
        needs_all_rows: The settings other than `max_train_samples` for which all rows must be read
            beforehand: name to value.

    Raises:
        UserError: `streaming` is `true`, but the rows cannot be streamed.
    """
    if config.streaming == "false" or not paths:
        if config.streaming == "true":
            raise UserError("--streaming=true: only --train_file can be streamed.")
        return False
    unfit = next((path for path in paths if not can_be_read_in_blocks(path)), None)
    needs_all_rows = dict(needs_all_rows)
    if config.max_train_samples is not None:
        needs_all_rows["max_train_samples"] = config.max_train_samples
    if config.streaming == "auto":
        is_large = sum(map(file_size, paths)) > STREAM_BYTES
        return is_large and unfit is None and not needs_all_rows
    if unfit:
        raise UserError(
            f"--streaming=true: {unfit} can only be read from its beginning. Write it as one of "
            f"{', '.join(EXTENSIONS)}, or set --streaming=false."
        )
    for flag, value in needs_all_rows.items():
        raise UserError(
            f"--{flag}={value} needs all rows beforehand, which --streaming=true does not read."
        )
    return True
