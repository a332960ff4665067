"""The labelled examples of a run: found, read, checked, their labels learnt and encoded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tf_finetune.data.cells import Cells, read_cells
from tf_finetune.data.checks import check_numbers, check_texts
from tf_finetune.data.columns import Columns, read_columns
from tf_finetune.data.label_cells import distinct
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.label_format import LabelFormat, find_label_format
from tf_finetune.data.label_notices import index_notices, label_notices
from tf_finetune.data.labels import encode_labels, unknown_label
from tf_finetune.data.learn import check_classes, learn_problem
from tf_finetune.data.problem import DEFAULT_METRICS, Problem, known_labels
from tf_finetune.data.readers import Row
from tf_finetune.data.row_stream import RowStream
from tf_finetune.data.selection import labelled_rows
from tf_finetune.data.splits import SPLITS, UNLABELLED, max_samples
from tf_finetune.data.tasks import Layout
from tf_finetune.data.wording import rows_text
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


@dataclass(frozen=True)
class Examples:
    """Texts with or without labels.

    Attributes:
        texts: For each text column the text of each row; of one column `(texts,)`.
        labels: int32 [n] (single_label), float32 [n, num_labels] of zeros and ones (multi_label),
            float32 [n] (regression), or None. A row whose label is not known has -1, or NaN.
        locations: The location of each row, as `file:line`; empty if it is not needed.
        ids: The value of the user's own id column for each row; empty: there is no such column.

    Raises:
        UserError: A text is no string, a label no number, or columns have different lengths.
    """

    texts: tuple[Sequence[str], ...]
    labels: np.ndarray | None = None
    locations: Sequence[str] = ()
    ids: Sequence[Any] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", check_texts(self.texts))
        if self.labels is not None:
            labels = check_numbers(self.labels)
            if len(labels) != len(self):
                raise UserError(f"{len(labels)} labels were given for {len(self)} texts.")
            object.__setattr__(self, "labels", labels)

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
        form: How the cells of labels are read.
    """

    layout: Layout
    problem: Problem
    form: LabelFormat = LabelFormat()

    def encode(self, cells: Columns, *, may_be_unknown: bool = False) -> tuple[Examples, list[str]]:
        """Turns checked cells into examples.

        Args:
            cells: Those of a split.
            may_be_unknown: Whether labels may be unknown, as in files that are predicted.

        Returns:
            The examples, and notices on rows of unknown labels.

        Raises:
            UserError: A label is unknown, or not a finite number.
        """
        if cells.labels is None:
            return Examples(cells.texts, None, cells.locations, cells.ids), []
        encoded = encode_labels(
            cells.labels, self.problem, self.form, by_index=bool(self.layout.label_names)
        )
        examples = Examples(cells.texts, encoded.labels, cells.locations, cells.ids)
        if not encoded.unknown:
            return examples, []
        label, row = next(iter(encoded.unknown.items()))
        if not may_be_unknown:
            raise unknown_label(label, cells.locations[row], self.problem, self.form)
        return examples, [
            f"{rows_text(encoded.num_unknown)} with a label that is not learnt, such as "
            f"{label!r:.60} (first {cells.locations[row]}): predicted, and left out of the metrics."
        ]

    def __call__(self, rows: Sequence[Row]) -> Examples:
        """Turns rows, at least one, into labelled examples.

        Raises:
            UserError: A cell is no text, or a label is missing, unknown, or not a finite number.
        """
        cells = read_columns([partial(iter, rows)], self.layout)
        examples, _ = self.encode(cells)
        _check_labels_are_there(examples)
        return examples


@dataclass(frozen=True)
class TextData:
    """All examples of a run, and the problem to learn from them; a missing split is None.

    Attributes:
        train: The training examples; with `stream`, a sample of them.
        validation: The examples to evaluate on during training.
        test: The examples to evaluate on and to predict at the end.
        unlabelled: The texts of --unlabelled_file.
        read: Turns further rows into examples.
        metric_for_best_model: See the flag.
        stream: All training rows, if they are not kept in memory.
        held_out: The cells of the splits that were held out of the training rows, all of them.
        found: Settings that were found in the data, by which later calls read other files.
        notices: What was guessed of the files and labels, why, and the flag that overrules it.
    """

    train: Examples | None
    validation: Examples | None
    test: Examples | None
    read: ExampleReader
    metric_for_best_model: str
    stream: RowStream | None = None
    held_out: Mapping[str, Columns] = field(default_factory=dict)
    found: Mapping[str, str] = field(default_factory=dict)
    notices: Sequence[str] = ()
    unlabelled: Examples | None = None

    @property
    def problem(self) -> Problem:
        """The problem to learn."""
        return self.read.problem

    @property
    def splits(self) -> dict[str, Examples]:
        """The splits that exist, by name."""
        found = {split: getattr(self, split) for split in SPLITS}
        return {split: examples for split, examples in found.items() if examples is not None}

    @property
    def parts(self) -> dict[str, Examples]:
        """The splits, and the unlabelled texts after those of training."""
        if self.unlabelled is None:
            return self.splits
        train, *others = self.splits.items()
        return dict([train, (UNLABELLED, self.unlabelled), *others])

    @property
    def trained_on(self) -> Examples | None:
        """The training examples, then the unlabelled texts, whose labels are not known."""
        train, more = self.train, self.unlabelled
        if train is None or train.labels is None or more is None:
            return train
        unknown = -1 if self.problem.problem_type == "single_label" else np.nan
        labels = np.full((len(more), *train.labels.shape[1:]), unknown, train.labels.dtype)
        texts = zip(train.texts, more.texts, strict=True)
        return Examples(
            tuple([*column, *further] for column, further in texts),
            np.concatenate([train.labels, labels]),
        )


def load_data(
    config: DataConfig,
    labels: LabelConfig,
    *,
    problem: Problem | None = None,
    needs_all_rows: Mapping[str, Any] | None = None,
) -> TextData:
    """Reads and checks all examples of a run, then keeps the first `max_samples` of each split.

    Rows for training and validation that have no label are left out, with a notice.

    Args:
        config: Where the data are.
        labels: The user's settings of columns and labels.
        problem: The problem of a trained model, which the data must fit; training rows are then
            read only where others are held out of them. None: it is learnt from the training rows.
        needs_all_rows: See `is_streamed`.

    Raises:
        UserError: Something is missing, damaged or contradictory; the message says where.
    """
    cells = read_cells(config, labels, problem, needs_all_rows or {})
    layout, stream, notices = cells.layout, cells.stream, cells.notices
    is_model = problem is not None
    form, values, places = _find_form(cells, labels, problem)
    if problem is None:
        problem = learn_problem(layout, values, labels, form, stream is not None)
        is_inferred = layout.problem_type is None
        notices += label_notices(values, places, problem, form, is_inferred=is_inferred)
    read = ExampleReader(layout, problem, form)
    examples: dict[str, Examples] = {}
    for split, columns in cells.splits.items():
        whole, said = read.encode(columns, may_be_unknown=split in cells.predicted)
        if split == "train" and stream is not None:
            _check_labels_are_there(whole)
        elif split not in cells.predicted:
            whole, missing = _labelled_only(whole, split)
            said += missing
        if split == "train":
            check_classes(whole.labels, whole.locations[0], problem, is_whole=stream is None)
        if layout.label_names:
            said += index_notices(labelled_rows(columns)[0], problem, form, is_model=is_model)
        examples[split] = whole.first(max_samples(config, split))
        notices += said
    train, validation, test = map(examples.get, SPLITS)
    metric = layout.metric_for_best_model or DEFAULT_METRICS[problem.problem_type]
    found = {**cells.found, **_label_settings(form, problem, values)}
    return TextData(
        *(train, validation, test, read, metric, stream, cells.held_out, found, notices),
        unlabelled=examples.get(UNLABELLED),
    )


def _find_form(
    cells: Cells, labels: LabelConfig, problem: Problem | None
) -> tuple[LabelFormat, list[Any], list[str]]:
    """Finds out how labels are read; returns the labels and places that show it, too."""
    # Labels are learnt from the training data alone; a model's are only to be recognised.
    known = cells.whole
    if problem:
        known = next((c for c in cells.splits.values() if c.labels is not None), None)
    values, places = ([], []) if known is None else labelled_rows(known)
    problem_type = problem.problem_type if problem else cells.layout.problem_type
    form, said = find_label_format(values, places, labels, problem_type, cells.layout.label_names)
    cells.notices.extend(said)
    return form, values, places


def _label_settings(form: LabelFormat, problem: Problem, values: Sequence[Any]) -> dict[str, str]:
    """Returns the settings that say how the labels were read, where the data have shown it."""
    if problem.problem_type != "multi_label" and not form.multi_hot:
        return {}
    found = {"label_format": "multi_hot" if form.multi_hot else "list"}
    if any(isinstance(value, str) and form.separator in value for value in distinct(values)):
        written = {" ": "space", "\t": "tab"}.get(form.separator, form.separator)
        found["label_separator"] = written
    return found


def _check_labels_are_there(examples: Examples) -> None:
    """Refuses streamed rows without a label: leaving them out would change planned batches."""
    if examples.labels is not None and not (known := known_labels(examples.labels)).all():
        raise UserError(
            f"{examples.locations[int(known.argmin())]}: the label is missing. Remove the row, or "
            "read all rows, which leaves it out: --streaming=false."
        )


def _labelled_only(examples: Examples, split: str) -> tuple[Examples, list[str]]:
    """Leaves out the rows without a label."""
    if examples.labels is None:
        return examples, []
    known = known_labels(examples.labels)
    missing = np.flatnonzero(~known)
    if not len(missing):
        return examples, []
    if not known.any():
        return Examples(examples.texts, None, examples.locations, examples.ids), []
    rows = np.flatnonzero(known).tolist()

    def taken(column: Sequence[Any]) -> list[Any]:
        return [column[row] for row in rows] if len(column) else []

    return (
        Examples(
            tuple(map(taken, examples.texts)),
            examples.labels[known],
            taken(examples.locations),
            taken(examples.ids),
        ),
        [
            f"{rows_text(len(missing))} of {split} without a label left out (first "
            f"{examples.locations[missing[0]]})."
        ],
    )
