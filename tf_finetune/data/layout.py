"""Finds the columns of texts and labels, from the user's settings and the known data sets."""

import dataclasses
import itertools
import os.path
from collections.abc import Sequence
from typing import cast

from tf_finetune.data.file_format import FileFormat, find_format, with_like_quoting
from tf_finetune.data.keys import FIRST_ROWS, column_names, find_column, first_keys, listed
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.paths import find_files
from tf_finetune.data.problem import Problem, ProblemType
from tf_finetune.data.readers import read_label_names
from tf_finetune.data.records import open_tfds, parquet_class_names
from tf_finetune.data.splits import SPLITS, UNLABELLED, Table, file_tables, find_split_files
from tf_finetune.data.tasks import TASKS, Layout
from tf_finetune.errors import UserError
from tf_finetune.files import is_file
from tf_finetune.runs.config import DataConfig

# Column names that are recognised without a flag.
OBVIOUS_TEXT_COLUMNS = (("text",), ("sentence",), ("sentence1", "sentence2"))
OBVIOUS_LABEL_COLUMNS = ("label", "labels")
_SEPARATOR_HINT = " If its cells are separated by something else: --field_separator."


def open_splits(
    data: DataConfig, labels: LabelConfig, splits: Sequence[str] = SPLITS
) -> tuple[Layout, dict[str, list[Table]], dict[str, list[FileFormat]]]:
    """Finds the tables of each split, and their layout as far as it is known.

    A flag overrides the task, and the task overrides the data set's own description.

    Args:
        data: Where the rows are.
        labels: The user's settings of columns and labels.
        splits: The splits to look for, of train, validation and test.

    Returns:
        The layout, the tables of the splits that exist, and the files of those that are files;
        with those of training the unlabelled ones.

    Raises:
        UserError: No such task, folder, file or data set.
    """
    layout = _find_layout(labels.task_name, data.tfds_name)
    found_paths = find_split_files(data, layout.known_files, splits)
    if labels.unlabelled_file and "train" in splits:
        found_paths[UNLABELLED] = find_files(labels.unlabelled_file)
    files = {
        split: [find_format(path, data, layout.header, layout.skip_ragged) for path in paths]
        for split, paths in found_paths.items()
    }
    files = with_like_quoting(files, data, layout.header, layout.skip_ragged)
    if data.data_dir:
        layout = _with_label_file(layout, data.data_dir)
    tables: dict[str, list[Table]] = {}
    if tfds_name := find_tfds(data, labels):
        tfds = open_tfds(tfds_name, data.tfds_data_dir)
        tables = {split: [tfds.tables[split]] for split in splits if split in tfds.tables}
        layout = dataclasses.replace(
            layout,
            text_columns=layout.text_columns or tfds.text_columns,
            label_column=layout.label_column or tfds.label_column,
            label_names=layout.label_names or tfds.label_names,
        )
    for split, found in files.items():
        tables[split] = file_tables(found)
    given = None if labels.problem_type == "auto" else cast(ProblemType, labels.problem_type)
    layout = dataclasses.replace(
        layout,
        text_columns=labels.text_columns or layout.text_columns,
        label_column=None if labels.label_columns else labels.label_column or layout.label_column,
        label_columns=labels.label_columns,
        label_names=labels.label_names or layout.label_names or labels.label_columns,
        problem_type=given or layout.problem_type,
    )
    return layout, tables, files


def find_tfds(data: DataConfig, labels: LabelConfig) -> str | None:
    """Returns the name of the TensorFlow data set that a run reads; None if it reads files."""
    files = (data.data_dir, data.train_file, data.validation_file, data.test_file)
    if labels.task_name and not any(files):
        return _find_layout(labels.task_name, data.tfds_name).tfds_name
    return data.tfds_name


def infer_columns(layout: Layout, table: Table, may_lack_label: bool = False) -> Layout:
    """Completes the text and label columns from a table's column names.

    Recognised are `text`, `sentence`, or `sentence1` and `sentence2`; `label` or `labels`. A table
    with text columns only has no label.

    Args:
        layout: The layout so far.
        table: The run's first.
        may_lack_label: Whether the label column may be missing or have another name.

    Returns:
        The layout with its text columns, and with its label column unless there is none.

    Raises:
        UserError: The columns cannot be inferred, or a column is both text and label.
    """
    if not (layout.text_columns and (layout.label_column or layout.label_columns)):
        rows = list(itertools.islice(table(), FIRST_ROWS))
        location, row = rows[0][0], first_keys(row for _, row in rows)
        names = [name.strip() for name in column_names(row)]
        text_columns = layout.text_columns
        if not text_columns:
            found = [columns for columns in OBVIOUS_TEXT_COLUMNS if set(columns) <= set(names)]
            if len(found) != 1:
                raise UserError(
                    f"{location}: which columns hold the text? Set --text_columns to one or two of "
                    f"{listed(names)}.{_SEPARATOR_HINT if len(names) == 1 else ''}"
                )
            text_columns = found[0]
        others = [name for name in names if name not in text_columns]
        obvious = [name for name in OBVIOUS_LABEL_COLUMNS if name in others]
        is_given = layout.label_column or layout.label_columns or may_lack_label
        if others and len(obvious) != 1 and not is_given:
            raise UserError(
                f"{location}: which column holds the label? Set --label_column to one of "
                f"{listed(others)}; or --label_columns to several of 0 and 1."
            )
        label_column = layout.label_column
        if not layout.label_columns and len(obvious) == 1:
            label_column = label_column or obvious[0]
        layout = dataclasses.replace(layout, text_columns=text_columns, label_column=label_column)
    for name in (layout.label_column, *layout.label_columns):
        if name in layout.text_columns:
            flag = "label_columns" if layout.label_columns else "label_column"
            raise UserError(
                f"--{flag}={name}: this is a text column too. Choose another column, or set "
                "--text_columns."
            )
    return layout


def with_label_columns(layout: Layout) -> tuple[Layout, list[str]]:
    """Brings the label columns into the order of the label names.

    Returns:
        The layout, and a notice where columns have other names than their labels.

    Raises:
        UserError: There are more or fewer columns than names.
    """
    columns, names = layout.label_columns, layout.label_names
    if not columns or set(columns) == set(names):
        return dataclasses.replace(layout, label_columns=names if columns else ()), []
    if len(columns) != len(names):
        raise UserError(
            f"--label_columns={','.join(columns)}: {len(columns)} columns for the {len(names)} "
            f"labels {listed(names)}. There must be a column for each."
        )
    pairs = ", ".join(f"{c} is {n!r}" for c, n in zip(columns[:3], names[:3], strict=True))
    return layout, [f"The label columns stand in the order of the label names: {pairs}, ..."]


def with_class_names(layout: Layout, files: Sequence[FileFormat]) -> Layout:
    """Takes the label names from the schema of a Parquet file, if they are not known otherwise.

    Args:
        layout: The layout with its label column.
        files: Those of the training rows.

    Raises:
        UserError: Two files name the classes differently, or one is no Parquet file.
    """
    if layout.label_names or not layout.label_column:
        return layout
    found: dict[tuple[str, ...], str] = {}
    for file in files:
        if file.kind == "parquet":
            classes = parquet_class_names(file.path)
            column = find_column(layout.label_column, classes, layout.aliases)
            if column and column[0] in classes:
                found.setdefault(classes[column[0]], file.path)
    if len(found) > 1:
        names = " and ".join(f"{', '.join(n[:5])} ({path})" for n, path in found.items())
        raise UserError(
            f"The files' schemas name the classes differently: {names}. Set --label_names."
        )
    return dataclasses.replace(layout, label_names=next(iter(found), ()))


def fit_to_model(layout: Layout, problem: Problem) -> Layout:
    """Completes the layout of data from the model that will read them.

    Args:
        layout: The layout of the data so far.
        problem: The model's problem.

    Raises:
        UserError: The model reads another number of texts.
    """
    text_columns = layout.text_columns or problem.text_columns
    if len(text_columns) != len(problem.text_columns):
        raise UserError(
            f"--text_columns={','.join(text_columns)}: the model was trained on "
            f"{len(problem.text_columns)} text column(s), {', '.join(problem.text_columns)}."
        )
    return dataclasses.replace(layout, text_columns=text_columns, label_names=problem.label_names)


def _find_layout(task_name: str | None, tfds_name: str | None) -> Layout:
    if task_name:
        return TASKS[task_name]
    # A version may follow the name, as in glue/mrpc:2.0.0.
    name = (tfds_name or "").split(":")[0]
    return next((layout for layout in TASKS.values() if layout.tfds_name == name), Layout())


def _with_label_file(layout: Layout, folder: str) -> Layout:
    path = os.path.join(folder, "labels.txt")
    if layout.label_names or not is_file(path):
        return layout
    return dataclasses.replace(layout, label_names=read_label_names(path))
