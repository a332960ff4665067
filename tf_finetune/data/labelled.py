"""The examples of a run: from files, a task's folder or TensorFlow Datasets, checked."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tf_finetune.data.blocks import KINDS as BLOCK_KINDS
from tf_finetune.data.blocks import (
    Block,
    RawRow,
    can_be_read_in_blocks,
    count_rows,
    is_tfrecord,
    kind,
    read_block,
    split_files,
)
from tf_finetune.data.columns import Columns, read_columns
from tf_finetune.data.labels import encode_labels, infer_problem_type, learn_label_names
from tf_finetune.data.layout import SPLITS, Table, infer_columns, load_layout
from tf_finetune.data.readers import decode_line, parse_cells, parse_json, read_header
from tf_finetune.data.records import parse_example
from tf_finetune.data.tasks import DEFAULT_METRICS, Problem, Task
from tf_finetune.errors import UserError
from tf_finetune.files import file_size
from tf_finetune.runs.config import DataConfig

# Text files above this are streamed: in memory their rows take several times as much.
STREAM_BYTES = 512 * 2**20
# Blocks that are looked at beforehand: so many, and on until there are enough rows.
SAMPLE_BLOCKS, MAX_SAMPLE_BLOCKS, SAMPLE_ROWS = 16, 1024, 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Examples:
    """Texts with or without labels.

    Attributes:
        texts: For each text column the text of each row.
        labels: int32 [n] (single_label), float32 [n, num_labels] of zeros and ones (multi_label),
            float32 [n] (regression), or None.
        locations: Where each row stands, as `file:line`; empty if that does not matter.
    """

    texts: tuple[Sequence[str], ...]
    labels: np.ndarray | None = None
    locations: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.texts[0])


@dataclass(frozen=True)
class TrainStream:
    """Training rows that stay in their files.

    Attributes:
        blocks: All of their files.
        headers: The files whose first line is a header.
        parse: A row to its values by column; None if it holds none.
        read_cells: Rows, at least one, to their cells.
        encode: Cells to labels; see `Examples`.
    """

    blocks: Sequence[Block]
    headers: frozenset[str]
    parse: Callable[[RawRow], dict[str, Any] | None]
    read_cells: Callable[[Table], Columns]
    encode: Callable[[Columns], np.ndarray]

    def rows_of(self, number: int) -> list[RawRow]:
        """Returns the rows of a block."""
        rows = read_block(self.blocks[number])
        is_header = rows and rows[0].offset == 0 and rows[0].path in self.headers
        return rows[1:] if is_header else rows

    @cached_property
    def num_rows(self) -> int:
        """The rows of all blocks; the files are read once to count them."""
        return count_rows(list(dict.fromkeys(b.path for b in self.blocks))) - len(self.headers)

    def cells(self, rows: Sequence[RawRow]) -> Columns | None:
        """Parses and checks rows; None if they are all blank."""
        parsed = [(row.location, values) for row in rows if (values := self.parse(row)) is not None]
        return self.read_cells(lambda: iter(parsed)) if parsed else None

    def read(self, rows: Sequence[RawRow]) -> Examples | None:
        """Parses and checks rows and their labels; None if they are all blank."""
        cells = self.cells(rows)
        return Examples(cells.texts, self.encode(cells), cells.locations) if cells else None

    def sample(self) -> Columns | None:
        """Returns the cells of some blocks from all over the files."""
        return self.cells(self._sampled[0])

    @property
    def estimated_rows(self) -> int:
        """About how many rows there are, by those of the sample."""
        rows, size = self._sampled
        total = sum(block.stop - block.start for block in self.blocks)
        return max(1, round(total * len(rows) / size))

    @cached_property
    def _sampled(self) -> tuple[list[RawRow], int]:
        """The rows of some blocks, and the bytes of these blocks."""
        rows: list[RawRow] = []
        size = 0
        order = np.random.default_rng(0).permutation(len(self.blocks))[:MAX_SAMPLE_BLOCKS]
        for looked_at, number in enumerate(order):
            # Blocks within a long row have none.
            if looked_at >= SAMPLE_BLOCKS and len(rows) >= SAMPLE_ROWS:
                break
            rows += self.rows_of(number)
            size += self.blocks[number].stop - self.blocks[number].start
        return sorted(rows), size


@dataclass(frozen=True)
class TextData:
    """All examples of a run, and what is learnt from them; None for a split that is not there.

    Attributes:
        train: With `stream`, a sample of it.
        validation: What is evaluated on during training.
        test: What is evaluated on at the end, and predicted.
        problem: What is learnt.
        metric_for_best_model: See the flag.
        stream: All training rows, if they are not kept in memory.
    """

    train: Examples | None
    validation: Examples | None
    test: Examples | None
    problem: Problem
    metric_for_best_model: str
    stream: TrainStream | None = None


def load_data(
    config: DataConfig, need_train: bool = True, problem: Problem | None = None
) -> TextData:
    """Reads and checks all examples of a run.

    Label names come from `label_names`, else from the task, from `labels.txt` in `data_dir`, from
    the features of the TensorFlow data set, or from the training data. Where they do not come from
    the training data, a whole number in the data means the name of that index. Test data may lack
    labels. Validation data are never split off the training data.

    Args:
        config: Where the data are.
        need_train: Whether the run trains. If not, training data are read only where `problem` is
            not given and must be learnt.
        problem: What an already trained model has learnt; the data must fit it.

    Returns:
        The examples. All rows are checked, and labels learnt from all, before the numbers of
        samples that `config` allows are taken.

    Raises:
        UserError: Something is missing, damaged or contradictory; the message says where.
    """
    splits = SPLITS if need_train or problem is None else SPLITS[1:]
    layout, tables, files = load_layout(config, splits)
    if need_train and "train" not in tables:
        raise UserError(
            "There are no training data. Give --train_file, --tfds_name, or --data_dir with a file "
            f"{layout.train_file[0]} in it."
        )
    if problem:
        layout = _fit_to_model(layout, problem)
    if tables:
        layout = infer_columns(
            layout, next(iter(tables.values()))[0], may_lack_label=problem is not None
        )
        if layout.label_column in layout.text_columns:
            raise UserError(
                f"--label_column={layout.label_column}: this is a text column too. Choose another "
                "column, or set --text_columns."
            )
    streamed = need_train and _choose_streaming(config, files.get("train"))
    columns = {
        split: read_columns(
            tables[split],
            layout.text_columns,
            layout.label_column,
            layout.aliases,
            may_lack_labels=split == "test",
        )
        for split in tables
        if not (streamed and split == "train")
    }
    separator = {"space": " ", "tab": "\t"}.get(config.label_separator, config.label_separator)

    def encode(cells: Columns) -> np.ndarray:
        assert problem is not None
        return encode_labels(
            cells.labels or [],
            cells.locations,
            problem,
            by_index=bool(layout.label_names),
            separator=separator,
        )

    stream = None
    if streamed:
        stream = _open_stream(files["train"], layout, encode)
        sample = stream.sample()
        if sample is None:
            raise UserError(f"{files['train'][0]}: the file has no rows.")
        columns["train"] = sample
    if problem is None:
        problem = _learn_problem(layout, columns.get("train"), separator)
        if streamed and problem.label_names != layout.label_names:
            raise UserError(
                "Training rows that are streamed are not all read for their labels beforehand. "
                "Give --label_names, or a labels.txt in --data_dir; or read them all: "
                "--streaming=false."
            )
    limits = {
        "train": config.max_train_samples,
        "validation": config.max_eval_samples,
        "test": config.max_predict_samples,
    }
    examples: dict[str, Examples] = {}
    for split, cells in columns.items():
        labels = None if cells.labels is None else encode(cells)
        if split == "train":
            _check_training_labels(labels, cells.locations, problem, is_whole=not streamed)
        examples[split] = Examples(
            tuple(column[: limits[split]] for column in cells.texts),
            None if labels is None else labels[: limits[split]],
            cells.locations[: limits[split]],
        )
    return TextData(
        train=examples.get("train"),
        validation=examples.get("validation"),
        test=examples.get("test"),
        problem=problem,
        metric_for_best_model=layout.metric_for_best_model or DEFAULT_METRICS[problem.problem_type],
        stream=stream,
    )


def _choose_streaming(config: DataConfig, paths: Sequence[str] | None) -> bool:
    """Whether the training rows stay in their files."""
    if config.streaming == "false" or not paths:
        if config.streaming == "true":
            raise UserError("--streaming=true: only --train_file can be streamed.")
        return False
    unfit = next((path for path in paths if not can_be_read_in_blocks(path)), None)
    needs_all = [
        (flag, value)
        for flag, value, default in (
            ("class_weights", config.class_weights, "none"),
            ("max_train_samples", config.max_train_samples, None),
        )
        if value != default
    ]
    if config.streaming == "auto":
        is_large = sum(map(file_size, paths)) > STREAM_BYTES
        return is_large and unfit is None and not needs_all
    if unfit:
        raise UserError(
            f"--streaming=true: {unfit} can only be read from its beginning. Write it as one of "
            f"{', '.join(BLOCK_KINDS)}, or set --streaming=false."
        )
    for flag, value in needs_all:
        raise UserError(
            f"--{flag}={value} needs all rows beforehand, which --streaming=true does not read."
        )
    return True


def _open_stream(
    paths: Sequence[str], layout: Task, encode: Callable[[Columns], np.ndarray]
) -> TrainStream:
    headers = {path: read_header(path, layout.header) for path in paths if kind(path) == ".tsv"}

    def parse(row: RawRow) -> dict[str, Any] | None:
        if is_tfrecord(row.path):
            return parse_example(row.data, row.location)
        line = decode_line(row.data, row.location, row.offset)
        if row.path in headers:
            return parse_cells(line, row.location, headers[row.path][0], layout.skip_ragged)
        return parse_json(line, row.location)

    def read_cells(table: Table) -> Columns:
        return read_columns([table], layout.text_columns, layout.label_column, layout.aliases)

    with_header = frozenset(path for path, (_, is_line) in headers.items() if is_line)
    return TrainStream(split_files(paths), with_header, parse, read_cells, encode)


def _fit_to_model(layout: Task, problem: Problem) -> Task:
    """Checks that data can be put to a trained model, and completes their layout from it."""
    text_columns = layout.text_columns or problem.text_columns
    if len(text_columns) != len(problem.text_columns):
        raise UserError(
            f"--text_columns={','.join(text_columns)}: the model was trained on "
            f"{len(problem.text_columns)} text column(s), {', '.join(problem.text_columns)}."
        )
    return dataclasses.replace(layout, text_columns=text_columns, label_names=problem.label_names)


def _learn_problem(layout: Task, train: Columns | None, separator: str) -> Problem:
    values = (train.labels if train else None) or []
    names = layout.label_names
    problem_type = layout.problem_type or infer_problem_type(values, names, separator)
    if problem_type == "regression":
        return Problem(problem_type, layout.text_columns)
    names = names or learn_label_names(values, problem_type, separator)
    if not names:
        raise UserError(
            "The labels are not known. Give --train_file to learn them from, or --label_names."
        )
    if len(set(names)) < len(names):
        raise UserError(f"--label_names={','.join(names)}: a label stands there twice.")
    for name in names:
        if _CONTROL.search(name):
            raise UserError(
                f"The label {name!r} holds a line end or another control character, which files of "
                "label names cannot hold. Rename it in the data."
            )
    return Problem(problem_type, layout.text_columns, names)


def _check_training_labels(
    labels: np.ndarray | None, locations: Sequence[str], problem: Problem, is_whole: bool
) -> None:
    if labels is None:
        raise UserError(f"{locations[0]}: the training data have no label column. Add one.")
    if is_whole and problem.problem_type == "single_label" and len(np.unique(labels)) < 2:
        raise UserError(
            f"{locations[0]}: every training example has the label "
            f"{problem.label_names[labels[0]]!r}. There must be at least two classes."
        )
