"""`Problem`: what a classifier learns."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tf_finetune.errors import UserError

ProblemType = Literal["single_label", "multi_label", "regression"]

# The metric that picks the best model where neither the task nor the user names one.
DEFAULT_METRICS: dict[ProblemType, str] = {
    "single_label": "accuracy",
    "multi_label": "micro_f1",
    "regression": "pearson",
}

# What a classifier says in place of a label that it is too little sure of.
UNSURE = "unsure"


@dataclass(frozen=True)
class Problem:
    """The type, texts and labels that a model learns; predictions and export need it too.

    Attributes:
        problem_type: One label of several, any number of labels, or a number.
        text_columns: The names of the one or two texts of an example.
        label_names: In order of their index; empty for regression.
        threshold: A multi-label row gets the labels of at least this probability.
        temperature: Divides the logits of a single label before the softmax; see `calibrate`.
        thresholds: Of multi-label rows each label's own, in place of `threshold`; empty: none.
        reject_below: A single label of a lower probability is not told; the answer is `UNSURE`.

    Raises:
        UserError: An unknown type, names that are missing or repeated, another threshold than one
            between 0 and 1, or `reject_below` where there is no single label.
    """

    problem_type: ProblemType
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...] = ()
    threshold: float = 0.5
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    reject_below: float = 0.0

    def __post_init__(self) -> None:
        if self.problem_type not in get_args(ProblemType):
            raise UserError(
                f"problem_type={self.problem_type!r}: allowed are "
                f"{', '.join(get_args(ProblemType))}."
            )
        for field in ("text_columns", "label_names"):
            object.__setattr__(self, field, _names(field, getattr(self, field)))
        if len(self.text_columns) not in (1, 2):
            raise UserError(f"text_columns={self.text_columns!r}: give the names of one or two.")
        if self.problem_type == "regression" and self.label_names:
            raise UserError(f"label_names={self.label_names!r}: a regression has none.")
        if self.problem_type != "regression" and not self.label_names:
            raise UserError("label_names is empty: give the name of each label, by its index.")
        for threshold in (self.threshold, *self.thresholds):
            if not 0 < threshold < 1:
                raise UserError(f"threshold={threshold}: must be > 0 and < 1.")
        if len(self.thresholds) not in (0, len(self.label_names)):
            raise UserError(
                f"thresholds has {len(self.thresholds)} numbers for {len(self.label_names)} labels."
            )
        if not 0 <= self.reject_below < 1:
            raise UserError(f"reject_below={self.reject_below}: must be >= 0 and < 1.")
        if self.reject_below and self.problem_type != "single_label":
            raise UserError(
                f"reject_below={self.reject_below}: only the answer of one label of several can be "
                f"refused; the labels are {self.problem_type}."
            )
        if self.reject_below and UNSURE in self.label_names:
            raise UserError(
                f"reject_below={self.reject_below}: the answer to a text would be {UNSURE!r}, "
                "which is one of the labels too. Rename that label."
            )
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature}: must be > 0.")

    @property
    def num_outputs(self) -> int:
        """Logits per example: one per label, or 1 for regression."""
        return 1 if self.problem_type == "regression" else len(self.label_names)

    @property
    def label_thresholds(self) -> np.ndarray:
        """The probability from which each label of a multi-label row is predicted, float32 [n]."""
        each = self.thresholds or (self.threshold,) * len(self.label_names)
        return np.array(each, np.float32)


def known_labels(labels: np.ndarray) -> np.ndarray:
    """Returns which rows have a known label, bool [n]; see `Examples.labels`."""
    if np.issubdtype(labels.dtype, np.integer):
        return labels >= 0
    return ~np.isnan(labels if labels.ndim == 1 else labels.sum(axis=1))


def _names(field: str, names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names that a field was given, as a tuple."""
    if isinstance(names, str):
        raise UserError(f"{field}={names!r}: give a tuple of names, ({names!r},).")
    names = tuple(names)
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise UserError(f"{field}[{number}] is {name!r}, not a string.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{field}: {twice!r} stands there twice.")
    return names
