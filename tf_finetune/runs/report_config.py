"""The settings of what is told before and after a run."""

from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.runs.settings import check_values, setting


@dataclass(frozen=True)
class ReportConfig:
    """Whether a run is estimated only, whether it ends with a report, and what that looks at."""

    title: ClassVar[str] = "Report"

    do_report: bool = setting(
        True,
        "with --do_eval, write report.html and report.json: how good the model is, where it is "
        "wrong, what to try next",
        may_change=True,
    )
    slice_columns: tuple[str, ...] = setting(
        (), "columns of the data by whose values the report gives scores too", may_change=True
    )

    estimate: bool = setting(
        False,
        "train a few steps only, and tell what the whole training takes: steps, minutes, memory",
        may_change=True,
    )

    def __post_init__(self) -> None:
        check_values(self)
