"""`Problem`: what a classifier learns."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

ProblemType = Literal["single_label", "multi_label", "regression"]

# The metric that picks the best model where neither the task nor the user names one.
DEFAULT_METRICS: dict[ProblemType, str] = {
    "single_label": "accuracy",
    "multi_label": "micro_f1",
    "regression": "pearson",
}


@dataclass(frozen=True)
class Problem:
    """The type, texts and labels that a model learns; predictions and export need it too.

    Attributes:
        problem_type: One label of several, any number of labels, or a number.
        text_columns: The names of the one or two texts of an example.
        label_names: In order of their index; empty for regression.
        threshold: A multi-label row gets the labels of at least this probability.
    """

    problem_type: ProblemType
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...] = ()
    threshold: float = 0.5

    @property
    def num_outputs(self) -> int:
        """Logits per example: one per label, or 1 for regression."""
        return 1 if self.problem_type == "regression" else len(self.label_names)


def known_labels(labels: np.ndarray) -> np.ndarray:
    """Returns which rows have a known label, bool [n]; see `Examples.labels`."""
    if np.issubdtype(labels.dtype, np.integer):
        return labels >= 0
    return ~np.isnan(labels if labels.ndim == 1 else labels.sum(axis=1))
