"""Where a run's tables are and how they are laid out, from what the user says and what is known."""

import dataclasses
import os.path
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

from tf_finetune.data.paths import find_files
from tf_finetune.data.readers import read_file, read_label_names
from tf_finetune.data.records import open_tfds
from tf_finetune.data.tasks import TASKS, ProblemType, Task
from tf_finetune.errors import UserError
from tf_finetune.files import is_dir, is_file
from tf_finetune.runs.config import DataConfig

Table = Callable[[], Iterator[tuple[str, dict[str, Any]]]]
"""Starts reading a file, or a split of a TensorFlow data set, from its first row."""

SPLITS = ("train", "validation", "test")
# Column names that say themselves what they are.
OBVIOUS_TEXT_COLUMNS = (("text",), ("sentence",), ("sentence1", "sentence2"))
OBVIOUS_LABEL_COLUMNS = ("label", "labels")


def load_layout(
    config: DataConfig, splits: Sequence[str]
) -> tuple[Task, dict[str, list[Table]], dict[str, list[str]]]:
    """Finds the tables of each split, and what is known of their layout.

    A flag counts before the task, the task before what the data set says of itself.

    Args:
        config: Where the data are.
        splits: The splits to look for, of train, validation and test.

    Returns:
        The layout, with everything said in it, the tables of the splits that are there, and the
        paths of those that are files.

    Raises:
        UserError: No such task, folder, file or data set.
    """
    task = _find_task(config.task_name, config.tfds_name)
    if config.data_dir:
        task = _with_label_file(task, config.data_dir)
    given = (config.train_file, config.validation_file, config.test_file)
    tables: dict[str, list[Table]] = {}
    if tfds_name := find_tfds(config):
        tfds = open_tfds(tfds_name, config.tfds_data_dir)
        tables = {split: [tfds.tables[split]] for split in splits if split in tfds.tables}
        task = dataclasses.replace(
            task,
            text_columns=task.text_columns or tfds.text_columns,
            label_column=task.label_column or tfds.label_column,
            label_names=task.label_names or tfds.label_names,
        )
    files: dict[str, list[str]] = {}
    known = (task.train_file, task.validation_file, task.test_file)
    for split, pattern, names in zip(SPLITS, given, known, strict=True):
        if split not in splits:
            continue
        paths = find_files(pattern or "")
        if config.data_dir and not paths:
            candidates = (os.path.join(config.data_dir, name) for name in names)
            paths = [path for path in candidates if is_file(path)][:1]
        if paths:
            files[split] = paths
            tables[split] = [
                partial(read_file, path, task.header, task.skip_ragged) for path in paths
            ]
    said = None if config.problem_type == "auto" else cast(ProblemType, config.problem_type)
    task = dataclasses.replace(
        task,
        text_columns=config.text_columns or task.text_columns,
        label_column=config.label_column or task.label_column,
        label_names=config.label_names or task.label_names,
        problem_type=said or task.problem_type,
    )
    return task, tables, files


def find_tfds(config: DataConfig) -> str | None:
    """Returns the name of the TensorFlow data set that a run reads; None if it reads files."""
    files = (config.data_dir, config.train_file, config.validation_file, config.test_file)
    if config.task_name and not any(files):
        return _find_task(config.task_name, config.tfds_name).tfds_name
    return config.tfds_name


def infer_columns(layout: Task, table: Table, may_lack_label: bool = False) -> Task:
    """Completes the text and label columns from the names that a table has.

    Obvious are `text`, `sentence`, or `sentence1` and `sentence2`; `label` or `labels`. A table
    that holds nothing but texts has no label.

    Args:
        layout: What is known.
        table: The run's first.
        may_lack_label: Whether the table need not have a label, if none is obvious.

    Returns:
        The layout with its text columns, and with its label column unless there is none.

    Raises:
        UserError: Which columns are meant is not obvious.
    """
    if layout.text_columns and layout.label_column:
        return layout
    location, row = next(table())
    text_columns = layout.text_columns
    if not text_columns:
        found = [columns for columns in OBVIOUS_TEXT_COLUMNS if set(columns) <= set(row)]
        if len(found) != 1:
            raise UserError(
                f"{location}: which columns hold the text? Set --text_columns to one or two of "
                f"{', '.join(row)}."
            )
        text_columns = found[0]
    others = [name for name in row if name not in text_columns]
    labels = [name for name in OBVIOUS_LABEL_COLUMNS if name in others]
    if others and len(labels) != 1 and not (layout.label_column or may_lack_label):
        raise UserError(
            f"{location}: which column holds the label? Set --label_column to one of "
            f"{', '.join(others)}."
        )
    label_column = layout.label_column or (labels[0] if len(labels) == 1 else None)
    return dataclasses.replace(layout, text_columns=text_columns, label_column=label_column)


def _find_task(task_name: str | None, tfds_name: str | None) -> Task:
    if task_name:
        return TASKS[task_name]
    # A version may follow the name, as in glue/mrpc:2.0.0.
    name = (tfds_name or "").split(":")[0]
    return next((task for task in TASKS.values() if task.tfds_name == name), Task())


def _with_label_file(task: Task, folder: str) -> Task:
    if not is_dir(folder):
        raise UserError(f"--data_dir={folder}: no such folder.")
    path = os.path.join(folder, "labels.txt")
    if task.label_names or not is_file(path):
        return task
    return dataclasses.replace(task, label_names=read_label_names(path))
