"""Whether probabilities mean what they say, and what a threshold gives for what."""

from typing import Any

import numpy as np

from tf_finetune.experiments.judged import Judged

BINS = 10
MOST_POINTS = 200


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
