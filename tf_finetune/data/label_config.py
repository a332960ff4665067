"""The settings of labelled data."""

from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.data.problem import Problem
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
    problem_type: str = setting(
        "auto",
        "what the labels are; auto infers it from them",
        choices=("auto", "single_label", "multi_label", "regression"),
    )
    label_names: tuple[str, ...] = setting(
        (), "all labels, comma-separated, in order of their index; empty: learnt from training data"
    )
    label_separator: str = setting(
        ",", "between the labels of one multi-label row; a blank is written space, a tab tab"
    )
    threshold: float = setting(
        Problem.threshold,
        "multi_label: probability from which a label is predicted",
        above=0,
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

    @property
    def separator(self) -> str:
        """The string between the labels of one row."""
        return {"space": " ", "tab": "\t"}.get(self.label_separator, self.label_separator)
