"""Predictions beside the truth, their scores, and how sure these are: all from weights of rows.

A score is a function of weights of the rows. With a weight of 1 it is the score itself; with the
numbers of times that rows were drawn it is that of a resample, so that 1,000 resamples are a few
products of matrices, and two models are compared on the same ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_finetune.data.problem import ProblemType
from tf_finetune.generation.significance import CONFIDENCE, RESAMPLES, mcnemar, wilson_interval

# So many weights are kept at once.
_MOST_WEIGHTS = 20_000_000


@dataclass(frozen=True)
class Judged:
    """A model's predictions for rows whose labels are known.

    Attributes:
        problem_type: What is predicted.
        truth: int [n]; multi_label bool [n, num_labels]; regression float [n].
        predicted: The same of the model.
        probabilities: float [n, num_labels]; None of a regression, or where there are none.
    """

    problem_type: ProblemType
    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def right(self) -> np.ndarray:
        """Which rows are wholly right, bool [n]."""
        equal = self.truth == self.predicted
        return equal if equal.ndim == 1 else equal.all(axis=1)

    def take(self, rows: np.ndarray) -> "Judged":
        """Returns some of the rows."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return Judged(self.problem_type, self.truth[rows], self.predicted[rows], probabilities)


Score = Callable[[Judged, np.ndarray], np.ndarray]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divides; 0/0 is 0, as in scikit-learn."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def _counts(rows: Judged, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns of each label the rows that are right, true and predicted, float [draws, labels]."""
    truth, predicted = rows.truth, rows.predicted
    if truth.ndim == 1:
        labels = np.arange(max(truth.max(), predicted.max()) + 1)
        truth, predicted = truth[:, None] == labels, predicted[:, None] == labels
    both, true, said = (
        weights @ part.astype(np.float64) for part in (truth & predicted, truth, predicted)
    )
    return both, true, said


def _accuracy(rows: Judged, weights: np.ndarray) -> np.ndarray:
    return weights @ rows.right / weights.sum(axis=1)


def _f1(rows: Judged, weights: np.ndarray) -> np.ndarray:
    both, true, said = _counts(rows, weights)
    return _share(2 * both, true + said)[:, 1] if both.shape[1] > 1 else np.zeros(len(weights))


def _macro_f1(rows: Judged, weights: np.ndarray) -> np.ndarray:
    both, true, said = _counts(rows, weights)
    scores = _share(2 * both, true + said)
    if rows.problem_type == "multi_label":
        return scores.mean(axis=1)
    return scores.sum(axis=1) / ((true + said) > 0).sum(axis=1)


def _micro_f1(rows: Judged, weights: np.ndarray) -> np.ndarray:
    both, true, said = (part.sum(axis=1) for part in _counts(rows, weights))
    return _share(2 * both, true + said)


def _matthews(rows: Judged, weights: np.ndarray) -> np.ndarray:
    """Matthews' correlation of several classes (Gorodkin, 2004)."""
    both, true, said = _counts(rows, weights)
    total = weights.sum(axis=1)
    covariance = both.sum(axis=1) * total - (true * said).sum(axis=1)
    spread = (total**2 - (said**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    return _share(covariance, np.sqrt(np.maximum(spread, 0)))


def _correlation(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1)
    # Means before squares: numbers far from 0 would lose their digits.
    one, other = one - one.mean(), other - other.mean()
    first, second = weights @ one / total, weights @ other / total
    covariance = weights @ (one * other) / total - first * second
    spread = (weights @ one**2 / total - first**2) * (weights @ other**2 / total - second**2)
    # Equal numbers have no correlation; what rounding leaves of their spread is not one.
    least = 1e-14 * max(float(one.var() * other.var()), 1e-300)
    return np.divide(
        covariance, np.sqrt(np.maximum(spread, 0)), out=np.zeros(len(total)), where=spread > least
    )


def _pearson(rows: Judged, weights: np.ndarray) -> np.ndarray:
    return _correlation(rows.truth, rows.predicted, weights)


def _spearman(rows: Judged, weights: np.ndarray) -> np.ndarray:
    """Correlates ranks; a row that was drawn twice has two equal ranks."""

    def correlation(drawn: np.ndarray) -> float:
        one, other = (_ranks(values, drawn) for values in (rows.truth, rows.predicted))
        return float(_correlation(one, other, drawn[None])[0])

    return np.array([correlation(drawn) for drawn in weights])


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the mean rank of each value, of rows that stand there `weights` times."""
    _, places = np.unique(values, return_inverse=True)
    counts = np.bincount(places, weights)
    return (np.cumsum(counts) - counts / 2)[places]


def _squared_error(rows: Judged, weights: np.ndarray) -> np.ndarray:
    return weights @ (rows.truth - rows.predicted) ** 2 / weights.sum(axis=1)


SCORES: dict[str, Score] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "micro_f1": _micro_f1,
    "matthews_correlation": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
    "mean_squared_error": _squared_error,
}
_OF_TYPE = {
    "single_label": ("accuracy", "macro_f1", "matthews_correlation"),
    "multi_label": ("micro_f1", "macro_f1", "accuracy"),
    "regression": ("pearson", "spearman", "mean_squared_error"),
}


def score_names(problem_type: ProblemType, num_labels: int) -> tuple[str, ...]:
    """Returns the scores that a report tells, the usual one first."""
    names = _OF_TYPE[problem_type]
    return (*names, "f1") if problem_type == "single_label" and num_labels == 2 else names


def score(rows: Judged, name: str) -> float:
    """Returns a score of all rows."""
    return float(SCORES[name](rows, np.ones((1, len(rows))))[0])


def interval(rows: Judged, name: str, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of a score: Wilson's of accuracy, else by resamples of the rows."""
    if name == "accuracy":
        return wilson_interval(int(rows.right.sum()), len(rows))
    draws = np.concatenate([SCORES[name](rows, weights) for weights in _draws(len(rows), seed)])
    return _middle(draws)


def difference(ours: Judged, theirs: Judged, name: str, seed: int = 0) -> dict[str, Any]:
    """Compares two models on the same rows.

    Args:
        ours: One's predictions.
        theirs: The other's, for the same rows.
        name: The score.
        seed: Of the resamples.

    Returns:
        `difference`, ours minus theirs, and its `interval` by paired resamples; but for a
        regression also `mcnemar`, whose `base` are the others.
    """
    draws = np.concatenate(
        [
            SCORES[name](ours, weights) - SCORES[name](theirs, weights)
            for weights in _draws(len(ours), seed)
        ]
    )
    found: dict[str, Any] = {
        "score": name,
        "difference": score(ours, name) - score(theirs, name),
        "interval": list(_middle(draws)),
    }
    if ours.problem_type != "regression":
        found["mcnemar"] = mcnemar(theirs.right, ours.right)
    return found


def _draws(rows: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each row is in each resample, float [some draws, rows]."""
    random = np.random.default_rng(seed)
    size = max(1, min(RESAMPLES, _MOST_WEIGHTS // max(1, rows)))
    for start in range(0, RESAMPLES, size):
        drawn = random.integers(rows, size=(min(size, RESAMPLES - start), rows))
        yield np.stack([np.bincount(row, minlength=rows) for row in drawn]).astype(np.float64)


def _middle(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
