"""The labelled examples of a run: found, read, checked, their labels learnt and encoded."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tf_finetune.data.columns import Columns, read_columns
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labels import encode_labels, infer_problem_type, learn_label_names
from tf_finetune.data.layout import fit_to_model, infer_columns, open_splits
from tf_finetune.data.problem import DEFAULT_METRICS, Problem
from tf_finetune.data.readers import Row
from tf_finetune.data.row_stream import RowStream, is_streamed, open_stream
from tf_finetune.data.splits import SPLITS, Table, max_samples
from tf_finetune.data.tasks import Layout
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Examples:
    """Texts with or without labels.

    Attributes:
        texts: For each text column the text of each row.
        labels: int32 [n] (single_label), float32 [n, num_labels] of zeros and ones (multi_label),
            float32 [n] (regression), or None. A row whose label is not known has -1, or NaN.
        locations: The location of each row, as `file:line`; empty if it is not needed.
        ids: The value of the user's own id column for each row; empty: there is no such column.
    """

    texts: tuple[Sequence[str], ...]
    labels: np.ndarray | None = None
    locations: Sequence[str] = ()
    ids: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.texts[0])

    def first(self, count: int | None) -> "Examples":
        """Returns the first rows; None: all."""
        labels = None if self.labels is None else self.labels[:count]
        texts = tuple(column[:count] for column in self.texts)
        return Examples(texts, labels, self.locations[:count], self.ids[:count])


@dataclass(frozen=True)
class ExampleReader:
    """Turns rows into examples, once columns and labels are known.

    Attributes:
        layout: The columns.
        problem: The labels.
        separator: The string between the labels of one cell.
    """

    layout: Layout
    problem: Problem
    separator: str

    def encode(self, cells: Columns) -> Examples:
        """Turns checked cells into examples.

        Raises:
            UserError: A label is empty, unknown, or not a finite number.
        """
        if cells.labels is None:
            return Examples(cells.texts, None, cells.locations)
        labels = encode_labels(
            cells.labels,
            cells.locations,
            self.problem,
            by_index=bool(self.layout.label_names),
            separator=self.separator,
        )
        return Examples(cells.texts, labels, cells.locations)

    def __call__(self, rows: Sequence[Row]) -> Examples:
        """Turns rows, at least one, into labelled examples.

        Raises:
            UserError: A cell is no text, or a label is empty, unknown, or not a finite number.
        """
        return self.encode(_read_columns(self.layout, [partial(iter, rows)]))


@dataclass(frozen=True)
class TextData:
    """All examples of a run, and the problem to learn from them; a missing split is None.

    Attributes:
        train: The training examples; with `stream`, a sample of them.
        validation: The examples to evaluate on during training.
        test: The examples to evaluate on and to predict at the end.
        read: Turns further rows into examples.
        metric_for_best_model: See the flag.
        stream: All training rows, if they are not kept in memory.
        notices: What was guessed of the files and labels, why, and the flag that overrules it.
    """

    train: Examples | None
    validation: Examples | None
    test: Examples | None
    read: ExampleReader
    metric_for_best_model: str
    stream: RowStream | None = None
    notices: Sequence[str] = ()

    @property
    def problem(self) -> Problem:
        """The problem to learn."""
        return self.read.problem

    @property
    def splits(self) -> dict[str, Examples]:
        """The splits that exist, by name."""
        found = {split: getattr(self, split) for split in SPLITS}
        return {split: examples for split, examples in found.items() if examples is not None}


@dataclass(frozen=True)
class _Cells:
    """The checked cells of a run before its labels are encoded."""

    layout: Layout
    splits: dict[str, Columns]
    stream: RowStream | None


def load_data(
    config: DataConfig,
    labels: LabelConfig,
    *,
    need_train: bool = True,
    problem: Problem | None = None,
    needs_all_rows: Mapping[str, Any] | None = None,
) -> TextData:
    """Reads and checks all examples of a run, then keeps the first `max_samples` of each split.

    Args:
        config: Where the data are.
        labels: The user's settings of columns and labels.
        need_train: Whether the run trains. If not, training data are read only where `problem` is
            not given and must be learnt.
        problem: The problem of a trained model, which the data must fit; None: it is learnt.
        needs_all_rows: See `is_streamed`.

    Raises:
        UserError: Something is missing, damaged or contradictory; the message says where.
    """
    cells = _read_cells(config, labels, need_train, problem, needs_all_rows or {})
    layout, stream = cells.layout, cells.stream
    if problem is None:
        problem = _learn_problem(layout, cells.splits.get("train"), labels, stream is not None)
    read = ExampleReader(layout, problem, labels.separator)
    examples: dict[str, Examples] = {}
    for split, columns in cells.splits.items():
        whole = read.encode(columns)
        if split == "train":
            _check_training_labels(whole, problem, is_whole=stream is None)
        examples[split] = whole.first(max_samples(config, split))
    train, validation, test = map(examples.get, SPLITS)
    metric = layout.metric_for_best_model or DEFAULT_METRICS[problem.problem_type]
    return TextData(train, validation, test, read, metric, stream)


def _read_cells(
    config: DataConfig,
    labels: LabelConfig,
    need_train: bool,
    problem: Problem | None,
    needs_all_rows: Mapping[str, Any],
) -> _Cells:
    """Finds the splits and reads their texts and label cells."""
    splits = SPLITS if need_train or problem is None else SPLITS[1:]
    layout, tables, files = open_splits(config, labels, splits)
    if need_train and "train" not in tables:
        raise UserError(
            "There are no training data. Give --train_file, --tfds_name, or --data_dir with a file "
            f"{layout.train_file[0]} in it."
        )
    if problem:
        layout = fit_to_model(layout, problem)
    if tables:
        first = next(iter(tables.values()))[0]
        layout = infer_columns(layout, first, may_lack_label=problem is not None)
    stream = None
    if need_train and is_streamed(config, files.get("train"), needs_all_rows):
        stream = open_stream(files["train"], layout.header, layout.skip_ragged)
        tables["train"] = [partial(iter, stream.sample)]
    columns = {
        # Published test sets often come without labels.
        split: _read_columns(layout, tables[split], may_lack_labels=split == "test")
        for split in tables
    }
    return _Cells(layout, columns, stream)


def _read_columns(
    layout: Layout, tables: Sequence[Table], may_lack_labels: bool = False
) -> Columns:
    return read_columns(
        tables,
        layout.text_columns,
        layout.label_column,
        layout.aliases,
        may_lack_labels=may_lack_labels,
    )


def _learn_problem(
    layout: Layout, train: Columns | None, labels: LabelConfig, is_sample: bool
) -> Problem:
    """Infers the problem from the settings and the training data.

    Label names come from `label_names`, else from the task, from `labels.txt` in `data_dir`, from
    the features of the TensorFlow data set, or from the training data. Where they do not come from
    the training data, a whole number in the data means the name of that index.
    """
    values = (train.labels if train else None) or []
    names = layout.label_names
    problem_type = layout.problem_type or infer_problem_type(values, names, labels.separator)
    if problem_type == "regression":
        return Problem(problem_type, layout.text_columns)
    if is_sample and not names:
        raise UserError(
            "Training rows that are streamed are not all read for their labels beforehand. "
            "Give --label_names, or a labels.txt in --data_dir; or read them all: "
            "--streaming=false."
        )
    names = names or learn_label_names(values, problem_type, labels.separator)
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
    return Problem(problem_type, layout.text_columns, names, labels.threshold)


def _check_training_labels(examples: Examples, problem: Problem, is_whole: bool) -> None:
    labels, where = examples.labels, examples.locations[0]
    if labels is None:
        raise UserError(f"{where}: the training data have no label column. Add one.")
    if is_whole and problem.problem_type == "single_label" and len(np.unique(labels)) < 2:
        raise UserError(
            f"{where}: every training example has the label "
            f"{problem.label_names[labels[0]]!r}. There must be at least two classes."
        )
