"""The settings of labelled data."""

from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.data.problem import UNSURE, Problem
from tf_finetune.data.tasks import TASKS
from tf_finetune.errors import UserError
from tf_finetune.runs.settings import check_values, setting


@dataclass(frozen=True)
class LabelConfig:
    """The columns of texts and labels, and the type and names of the labels."""

    title: ClassVar[str] = "Labels"

    task_name: str | None = setting(
        None,
        "known data set: gives columns, labels, metric and file names",
        choices=tuple(TASKS),
    )
    text_columns: tuple[str, ...] = setting((), "one or two text columns, comma-separated")
    label_column: str | None = setting(None, "the column to learn")
    label_columns: tuple[str, ...] = setting(
        (), "multi_label: a column of 0 and 1 for each label, comma-separated"
    )
    unlabelled_file: str | None = setting(
        None,
        "more texts, of the training rows' columns and formats; whatever their labels are, they "
        "learn from --teacher alone",
        path="list",
    )
    problem_type: str = setting(
        "auto",
        "what the labels are; auto infers it from them",
        choices=("auto", "single_label", "multi_label", "regression"),
    )
    label_names: tuple[str, ...] = setting(
        (), "all labels, comma-separated, in order of their index; empty: learnt from training data"
    )
    label_separator: str = setting(
        "auto",
        "between the labels of one multi-label row; a blank is written space, a tab tab; auto: a "
        "comma, or ; or | where these are used",
        may_change=True,
    )
    label_format: str = setting(
        "auto",
        "lists of numbers: multi_hot, a 0 or 1 for each label; list: the row's classes",
        choices=("auto", "list", "multi_hot"),
        may_change=True,
    )
    ignore_labels: tuple[str, ...] = setting(
        (), "rows of these labels are left out, comma-separated; of test files only the labels are"
    )
    threshold: float = setting(
        Problem.threshold,
        "multi_label: probability from which a label is predicted",
        above=0,
        below=1,
        may_change=True,
    )
    tune_thresholds: bool = setting(
        False,
        "multi_label: in place of --threshold each label's own, of the highest F1 on the "
        "validation rows",
        may_change=True,
    )
    reject_below: float = setting(
        Problem.reject_below,
        f"single_label: an answer of a lower probability becomes {UNSURE!r}; 0: never",
        minimum=0,
        below=1,
        may_change=True,
    )

    def __post_init__(self) -> None:
        check_values(self)
        columns = ",".join(self.text_columns)
        if len(self.text_columns) > 2:
            raise UserError(
                f"--text_columns={columns}: {len(self.text_columns)} columns; one or two are "
                "allowed. Join further ones into these beforehand."
            )
        if len(set(self.text_columns)) < len(self.text_columns):
            raise UserError(f"--text_columns={columns}: a column stands there twice.")
        labels = ",".join(self.label_columns)
        if self.label_columns and self.label_column:
            raise UserError(
                f"--label_column={self.label_column}, --label_columns={labels}: give one of them."
            )
        if len(self.label_columns) == 1 or len(set(self.label_columns)) < len(self.label_columns):
            raise UserError(
                f"--label_columns={labels}: a column of 0 and 1 for each of two or more labels. A "
                f"single one is --label_column={self.label_columns[0]}."
            )
        if self.label_columns and self.problem_type == "regression":
            raise UserError(f"--label_columns={labels}: a regression learns one --label_column.")

    @property
    def separator(self) -> str | None:
        """The string between the labels of one row; None: found in the data."""
        written = self.label_separator
        return None if written == "auto" else {"space": " ", "tab": "\t"}.get(written, written)
