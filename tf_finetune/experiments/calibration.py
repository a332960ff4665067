"""Whether probabilities mean what they say, and what a threshold gives for what."""

import math
from typing import Any

import numpy as np

from tf_finetune.classification.calibrate import BINS
from tf_finetune.experiments.judged import Judged

MOST_POINTS = 200
# Of the rows, that are answered.
_SHARES = (0.95, 0.9, 0.8, 0.7, 0.5)


def reliability(judged: Judged) -> dict[str, Any]:
    """Compares how sure a model is with how often it is right.

    Args:
        judged: With probabilities. Of one label of several the greatest counts, of any number of
            labels that of each.

    Returns:
        `bins` of equal width that hold any: `predictions`, their mean `confidence` and the share
        that is `right`; and `expected_calibration_error`, the mean difference of the two, each bin
        by its size (Naeini et al., 2015).
    """
    assert judged.probabilities is not None
    if judged.problem_type == "multi_label":
        sure, right = judged.probabilities.ravel(), judged.truth.ravel()
    else:
        sure, right = judged.probabilities.max(axis=1), judged.right
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for number in range(BINS):
        chosen = place == number
        if chosen.any():
            mean, share = float(sure[chosen].mean()), float(right[chosen].mean())
            error += abs(mean - share) * chosen.mean()
            bins.append({"predictions": int(chosen.sum()), "confidence": mean, "right": share})
    return {"bins": bins, "expected_calibration_error": float(error)}


def coverage(judged: Judged, reject_below: float) -> dict[str, Any]:
    """Compares how many rows are answered with how many of the answers are right.

    Args:
        judged: Of one label of several, with probabilities.
        reject_below: The run's.

    Returns:
        `coverage` and `accuracy` (Geifman & El-Yaniv, 2017) of at most 200 points, the surest rows
        first; and `choices`, the same with their `reject_below`: the run's own first, if it has
        one, then those that answer some shares of the rows.
    """
    assert judged.probabilities is not None
    order = np.argsort(-judged.probabilities.max(axis=1), kind="stable")
    sure, right = judged.probabilities.max(axis=1)[order], judged.right[order]
    accuracy = np.cumsum(right) / np.arange(1, len(right) + 1)

    def at(least: float) -> dict[str, Any]:
        count = int((sure >= least).sum())
        value = float(accuracy[count - 1]) if count else None
        return {"reject_below": least, "coverage": count / len(sure), "accuracy": value}

    levels = [float(sure[math.ceil(share * len(sure)) - 1]) for share in _SHARES]
    # Rounded down, so that the row itself is answered.
    levels = [math.floor(level * 1000) / 1000 for level in levels]
    # Rows that are equally sure are answered all or none.
    ends = np.flatnonzero(np.append(sure[1:] < sure[:-1], True))
    shown = ends[np.unique(np.linspace(0, len(ends) - 1, MOST_POINTS).round().astype(int))]
    return {
        "coverage": ((shown + 1) / len(sure)).tolist(),
        "accuracy": accuracy[shown].tolist(),
        "choices": [at(least) for least in ([reject_below] if reject_below else []) + levels],
    }


def precision_recall(judged: Judged) -> dict[str, Any] | None:
    """Returns precision and recall at every threshold.

    Of two labels those of the second; of more, of all labels together.

    Args:
        judged: With probabilities.

    Returns:
        `precision` and `recall` of at most 200 points; and `average_precision`. None: no label is
        true of any row.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    assert judged.probabilities is not None
    scores, truth = judged.probabilities, judged.truth
    if judged.problem_type == "single_label":
        truth = truth[:, None] == np.arange(scores.shape[1])
        if scores.shape[1] == 2:
            truth, scores = truth[:, 1:], scores[:, 1:]
    truth, scores = truth.ravel(), scores.ravel()
    if not truth.any():
        return None
    precision, recall, _ = precision_recall_curve(truth, scores)
    # At equal steps of recall, which falls: of equal thresholds most are near none.
    steps = np.linspace(1, 0, MOST_POINTS)
    shown = np.unique(np.minimum(np.searchsorted(-recall, -steps), len(recall) - 1))
    return {
        "precision": precision[shown].tolist(),
        "recall": recall[shown].tolist(),
        "average_precision": float(average_precision_score(truth, scores)),
    }
