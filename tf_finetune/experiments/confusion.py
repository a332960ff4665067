"""What is taken for what: the confusion matrix in an order that shows it, and its worst pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_finetune.experiments.judged import Judged

MOST_PAIRS = 15


def confusion(judged: Judged, names: Sequence[str]) -> dict[str, Any]:
    """Counts which labels are taken for which.

    Args:
        judged: Of one label of several, or of any number.
        names: The labels' names.

    Returns:
        `pairs`: the worst `truth`, `said`, `rows`, and `share` of the rows of that truth. Of one
        label of several also `labels`, so ordered that those that are confused stand together, and
        `counts`, the matrix of true by predicted labels in that order.
    """
    if judged.problem_type == "multi_label":
        missed, extra = judged.truth & ~judged.predicted, judged.predicted & ~judged.truth
        counts = missed.astype(np.int64).T @ extra.astype(np.int64)
        return {"pairs": _pairs(counts, judged.truth.sum(axis=0), names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (judged.truth, judged.predicted), 1)
    order = similar_together(counts)
    return {
        "labels": [names[label] for label in order],
        "counts": counts[np.ix_(order, order)].tolist(),
        "pairs": _pairs(counts, counts.sum(axis=1), names),
    }


def similar_together(counts: np.ndarray) -> list[int]:
    """Orders labels so that those that are confused stand side by side.

    Labels are clustered by the share of their rows that is confused, and the tree's leaves are
    turned so that neighbours are most alike (Bar-Joseph et al., 2001). With two labels, or where
    nothing is confused, they stay as they are.

    Args:
        counts: int [labels, labels].

    Returns:
        The labels' indices.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    likeness = shares + shares.T
    np.fill_diagonal(likeness, 0)
    if len(counts) < 3 or not likeness.any():
        return list(range(len(counts)))
    distances = squareform(likeness.max() - likeness, checks=False)
    tree = hierarchy.linkage(distances, "average", optimal_ordering=True)
    return [int(label) for label in hierarchy.leaves_list(tree)]


def _pairs(counts: np.ndarray, rows: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = []
    for true, said in zip(*np.unravel_index(worst, wrong.shape), strict=True):
        if wrong[true, said]:
            pairs.append(
                {
                    "truth": names[true],
                    "said": names[said],
                    "rows": int(wrong[true, said]),
                    "share": float(wrong[true, said] / max(1, rows[true])),
                }
            )
    return pairs
