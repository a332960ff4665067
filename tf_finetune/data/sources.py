"""The examples of a run: from files, a task's folder or TensorFlow Datasets, checked."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tf_finetune.config import DataConfig
from tf_finetune.data.columns import Columns, read_columns
from tf_finetune.data.labels import encode_labels, infer_problem_type, learn_label_names
from tf_finetune.data.layout import SPLITS, infer_columns, load_layout
from tf_finetune.data.tasks import DEFAULT_METRICS, Problem, Task
from tf_finetune.errors import UserError

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
class TextData:
    """All examples of a run, and what is learnt from them; None for a split that is not there."""

    train: Examples | None
    validation: Examples | None
    test: Examples | None
    problem: Problem
    metric_for_best_model: str


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
    layout, tables = load_layout(config, SPLITS if need_train or problem is None else SPLITS[1:])
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
    columns = {
        split: read_columns(
            tables[split],
            layout.text_columns,
            layout.label_column,
            layout.aliases,
            may_lack_labels=split == "test",
        )
        for split in tables
    }
    separator = {"space": " ", "tab": "\t"}.get(config.label_separator, config.label_separator)
    if problem is None:
        problem = _learn_problem(layout, columns.get("train"), separator)
    limits = {
        "train": config.max_train_samples,
        "validation": config.max_eval_samples,
        "test": config.max_predict_samples,
    }
    examples: dict[str, Examples] = {}
    for split, cells in columns.items():
        labels = None
        if cells.labels is not None:
            labels = encode_labels(
                cells.labels,
                cells.locations,
                problem,
                by_index=bool(layout.label_names),
                separator=separator,
            )
        if split == "train":
            _check_training_labels(labels, cells.locations, problem)
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
    )


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
    labels: np.ndarray | None, locations: Sequence[str], problem: Problem
) -> None:
    if labels is None:
        raise UserError(f"{locations[0]}: the training data have no label column. Add one.")
    if problem.problem_type == "single_label" and len(np.unique(labels)) < 2:
        raise UserError(
            f"{locations[0]}: every training example has the label "
            f"{problem.label_names[labels[0]]!r}. There must be at least two classes."
        )
