"""Learns a problem from the labels of the training data."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_finetune.data.label_cells import CONTROL
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.label_format import LabelFormat
from tf_finetune.data.labels import infer_problem_type, learn_label_names
from tf_finetune.data.problem import Problem
from tf_finetune.data.tasks import Layout
from tf_finetune.errors import UserError


def learn_problem(
    layout: Layout,
    values: Sequence[Any],
    labels: LabelConfig,
    form: LabelFormat,
    is_sample: bool,
) -> Problem:
    """Infers the problem from the settings and the training data.

    Args:
        layout: What is known of the data.
        values: The labels of the training rows.
        labels: The user's settings.
        form: How the labels are read.
        is_sample: Whether these are not all rows.

    Label names come from `label_names`, else from the task, from `labels.txt` in `data_dir`, from
    the features of the TensorFlow data set or the schema of the Parquet file, from `label_columns`,
    or from the training data. Where they do not come from the training data, a whole number in the
    data means the name of that index.
    """
    names = layout.label_names
    problem_type = layout.problem_type or infer_problem_type(values, names, form)
    if problem_type == "regression":
        return Problem(problem_type, layout.text_columns, reject_below=labels.reject_below)
    if is_sample and not names:
        raise UserError(
            "Training rows that are streamed are not all read for their labels beforehand. "
            "Give --label_names, or a labels.txt in --data_dir; or read them all: "
            "--streaming=false."
        )
    names = names or learn_label_names(values, problem_type, form)
    if not names:
        raise UserError(
            f"The labels are not known: no training row has one in --label_column="
            f"{layout.label_column}. Name another column, or give --label_names."
        )
    if len(set(names)) < len(names):
        raise UserError(f"--label_names={','.join(names)}: a label stands there twice.")
    for name in names:
        if re.search(f"[{CONTROL}]", name):
            raise UserError(
                f"The label {name!r} holds a line end or another control character, which files of "
                "label names cannot hold. Rename it in the data."
            )
    return Problem(
        problem_type,
        layout.text_columns,
        names,
        threshold=labels.threshold,
        reject_below=labels.reject_below,
    )


def check_classes(labels: np.ndarray | None, where: str, problem: Problem, is_whole: bool) -> None:
    """Checks that there is something to learn.

    Args:
        labels: The encoded labels of the training rows.
        where: The location of the first, for messages.
        problem: What is learnt.
        is_whole: Whether these are all rows, not a sample.

    Raises:
        UserError: There are no labels, or all are the same.
    """
    if labels is None:
        raise UserError(f"{where}: the training data have no labels. Add a label column.")
    if is_whole and problem.problem_type == "single_label" and len(np.unique(labels)) < 2:
        raise UserError(
            f"{where}: every training example has the label "
            f"{problem.label_names[labels[0]]!r}. There must be at least two classes."
        )
