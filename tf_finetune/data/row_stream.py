"""`RowStream`: rows that stay in their files, read block by block in any order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tf_finetune.data.blocks import (
    Block,
    RawRow,
    count_rows,
    is_tfrecord,
    read_block,
    split_files,
)
from tf_finetune.data.file_format import FileFormat, find_format
from tf_finetune.data.json_rows import parse_json
from tf_finetune.data.lines import decode_line
from tf_finetune.data.readers import Row, parse_cells
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
        skipped: The number of lines before the first row, of those files that have any.
        parse: Takes a raw row; returns its values by column, None if it is blank.
    """

    blocks: Sequence[Block]
    skipped: Mapping[str, int]
    parse: Callable[[RawRow], dict[str, Any] | None]

    def raw_rows(self, number: int) -> list[RawRow]:
        """Returns the rows of a block, unparsed."""
        rows = read_block(self.blocks[number])
        at_start = rows and rows[0].offset == 0
        return rows[self.skipped.get(rows[0].path, 0) :] if at_start else rows

    def rows(self, raw: Sequence[RawRow]) -> list[Row]:
        """Parses rows; blank ones are left out."""
        return [(row.location, values) for row in raw if (values := self.parse(row)) is not None]

    @cached_property
    def num_rows(self) -> int:
        """The number of rows in all blocks; counting them reads the files once."""
        lines = count_rows(list(dict.fromkeys(block.path for block in self.blocks)))
        return lines - sum(self.skipped.values())

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

    def rows_for(self, max_steps: int | None) -> int:
        """The number of rows as a training needs it.

        To count them takes a while, and where its steps are given an estimate does.
        """
        return self.estimated_rows if max_steps else self.num_rows

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


def open_stream(files: Sequence[FileFormat | str]) -> RowStream:
    """Opens files as a stream of rows.

    Args:
        files: From `find_format`, or the paths.

    Raises:
        UserError: A file is empty or damaged; or see `find_format`.
    """
    found = [find_format(file) if isinstance(file, str) else file for file in files]
    dialects = {file.path: file.dialect for file in found}

    def parse(row: RawRow) -> dict[str, Any] | None:
        if is_tfrecord(row.path):
            return parse_example(row.data, row.location)
        line = decode_line(row.data, row.location, row.offset)
        dialect = dialects[row.path]
        return (
            parse_cells(line, row.location, dialect) if dialect else parse_json(line, row.location)
        )

    skipped = {
        path: dialect.skipped_lines + dialect.has_header
        for path, dialect in dialects.items()
        if dialect
    }
    stream = RowStream(split_files(list(dialects)), skipped, parse)
    if not stream.sample:
        raise UserError(f"{found[0].path}: the file has no rows.")
    return stream


def is_streamed(
    config: DataConfig, files: Sequence[FileFormat] | None, needs_all_rows: Mapping[str, Any]
) -> bool:
    """Decides whether the training rows stay in their files.

    Args:
        config: Its `streaming` is `auto`, `true` or `false`.
        files: Those of the training rows; None: they do not come from files.
        needs_all_rows: The settings of other sections for which all rows must be read beforehand:
            name to value.

    Raises:
        UserError: `streaming` is `true`, but the rows cannot be streamed.
    """
    if config.streaming == "false" or not files:
        if config.streaming == "true":
            raise UserError("--streaming=true: only --train_file can be streamed.")
        return False
    unfit = next((file.path for file in files if not file.has_blocks), None)
    needs_all_rows = dict(needs_all_rows)
    for name in ("max_train_samples", "validation_fraction", "test_fraction"):
        if (value := getattr(config, name)) is not None:
            needs_all_rows[name] = value
    if config.streaming == "auto":
        fits = unfit is None and not needs_all_rows
        return fits and sum(file_size(file.path) for file in files) > STREAM_BYTES
    if unfit:
        raise UserError(
            f"--streaming=true: {unfit} can only be read from its beginning. Write it as .jsonl, "
            ".tfrecord or a .tsv without quotes, not compressed, or set --streaming=false."
        )
    for flag, value in needs_all_rows.items():
        raise UserError(
            f"--{flag}={value} needs all rows beforehand, which --streaming=true does not read."
        )
    return True
