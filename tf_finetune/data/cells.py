"""The checked cells of a run: its files found, its columns inferred, its rows chosen."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tf_finetune.data.columns import Columns, read_columns
from tf_finetune.data.file_format import FileFormat
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labels import infer_problem_type
from tf_finetune.data.layout import (
    fit_to_model,
    infer_columns,
    open_splits,
    with_class_names,
    with_label_columns,
)
from tf_finetune.data.problem import Problem
from tf_finetune.data.row_stream import RowStream, is_streamed, open_stream
from tf_finetune.data.selection import hold_out, unlabel, without_labels
from tf_finetune.data.splits import SPLITS, UNLABELLED, Table, file_notices, passed_over
from tf_finetune.data.tasks import Layout
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


@dataclass(frozen=True)
class Cells:
    """The checked cells of a run before its labels are encoded.

    Attributes:
        layout: The columns.
        splits: The cells of each split; with `stream`, those of `train` are a sample.
        stream: All training rows, if they are not kept in memory.
        predicted: The splits whose labels may be missing or unknown: they are only predicted, and
            evaluated as far as they can be.
        held_out: The splits that were held out of the training rows.
        found: Settings that were found in the files; see `TextData`.
        whole: The training rows before others were held out, from which labels are learnt.
        notices: What was guessed of the files.
    """

    layout: Layout
    splits: dict[str, Columns]
    stream: RowStream | None
    predicted: Collection[str]
    held_out: Mapping[str, Columns]
    found: Mapping[str, str]
    whole: Columns | None
    notices: list[str]


def read_cells(
    config: DataConfig,
    labels: LabelConfig,
    problem: Problem | None,
    needs_all_rows: Mapping[str, Any],
) -> Cells:
    """Finds the splits and reads their texts and label cells; see `load_data`.

    Raises:
        UserError: A file or column is missing, damaged or contradictory.
    """
    holds_out = bool(config.validation_fraction or config.test_fraction)
    splits = SPLITS if problem is None or holds_out else SPLITS[1:]
    layout, tables, files = open_splits(config, labels, splits)
    of_files = file_notices([file for found in files.values() for file in found])
    notices = [*of_files, *passed_over(config, layout.known_files, files)]
    if splits is SPLITS and "train" not in tables:
        raise UserError(
            "There are no training data. Give --train_file, --tfds_name, or --data_dir with a file "
            f"{layout.train_file[0]} in it."
        )
    if problem:
        tables.pop(UNLABELLED, None)
    # Published test sets often come without labels; of a trained model all files may.
    predicted = ("test", UNLABELLED) if problem is None else ("validation", "test")
    if problem:
        layout = fit_to_model(layout, problem)
    layout, said = with_label_columns(layout)
    notices += said
    has_ids = bool(config.id_column) and problem is None and not holds_out
    try:
        layout = _infer_layout(layout, tables, files, is_model=problem is not None)
        stream = None
        if labels.ignore_labels:
            needs_all_rows = {**needs_all_rows, "ignore_labels": ",".join(labels.ignore_labels)}
        if problem is None and is_streamed(config, files.get("train"), needs_all_rows):
            stream = open_stream(files["train"])
            tables["train"] = [partial(iter, stream.sample)]
        columns = {
            split: read_columns(
                tables[split],
                layout,
                config.id_column,
                may_lack_labels=split in predicted,
                may_lack_ids=split == UNLABELLED or (split not in predicted and not holds_out),
            )
            for split in tables
        }
    except UserError as error:
        # A wrong guess at the file's format makes columns that are not there.
        raise UserError(" ".join([str(error), *of_files])) from None
    if has_ids and not any(cells.ids for cells in columns.values()):
        raise UserError(f"--id_column={config.id_column}: no file has such a column.")
    if unlabelled := columns.get(UNLABELLED):
        columns[UNLABELLED] = dataclasses.replace(unlabelled, labels=None)
    notices += _leave_out(columns, labels, predicted)
    is_quoted = any(file.shows_quoting for some in files.values() for file in some)
    found = {"quoting": "minimal"} if is_quoted else {}
    held_out: dict[str, Columns] = {}
    whole = columns.get("train")
    if holds_out:
        # By what is known before a model is, so that its later calls find the same rows.
        problem_type = layout.problem_type or infer_problem_type(columns["train"].labels or [])
        held_out, said = hold_out(columns, config, labels, problem_type)
        columns |= held_out
        notices += said
        if problem:
            del columns["train"]
    return Cells(layout, columns, stream, predicted, held_out, found, whole, notices)


def _infer_layout(
    layout: Layout,
    tables: Mapping[str, Sequence[Table]],
    files: Mapping[str, Sequence[FileFormat]],
    is_model: bool,
) -> Layout:
    """Completes the layout by the columns of the tables, and the names in a schema."""
    for table in [table for found in tables.values() for table in found]:
        layout = infer_columns(layout, table, may_lack_label=is_model)
        if not is_model or layout.label_column or layout.label_columns:
            break  # Of a trained model the first file may lack labels.
    return with_class_names(layout, files.get("train", [])) if tables else layout


def _leave_out(
    columns: dict[str, Columns], labels: LabelConfig, predicted: Collection[str]
) -> list[str]:
    """Leaves out `ignore_labels` in all splits; returns what is to be said of it."""
    if not labels.ignore_labels:
        return []
    notices: list[str] = []
    for split in columns:
        remove = unlabel if split in predicted else without_labels
        columns[split], said = remove(columns[split], labels, split)
        notices += said
    if "train" in columns:
        notices += [
            f"--ignore_labels={name}: no row has this label."
            for name in labels.ignore_labels
            if not any(f"the label {name!r} " in notice for notice in notices)
        ]
    return notices
