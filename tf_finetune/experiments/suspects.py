"""Rows to look at: the worst errors, labels that look wrong, texts that stand in two splits."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.data.repeats import describe_repeats
from tf_finetune.experiments.baselines import Tfidf
from tf_finetune.experiments.judged import Judged

MOST_ROWS = 20
# Texts of at least this cosine are nearly the same.
NEAR = 0.9
_BLOCK = 1_000


def worst_errors(judged: Judged, problem: Problem) -> list[tuple[int, float]]:
    """Returns the rows that are most wrong, the worst first, and how much they are.

    That is the probability of the label that was said, less that of the true one; of several labels
    the greatest probability against a label's truth; of a number the distance.
    """
    if problem.problem_type == "regression":
        wrong = np.abs(judged.truth - judged.predicted)
        order = np.argsort(-wrong, kind="stable")[:MOST_ROWS]
    else:
        assert judged.probabilities is not None
        wrong = _disagreement(judged.probabilities, judged.truth)
        order = np.argsort(-wrong, kind="stable")
        order = order[~judged.right[order]][:MOST_ROWS]
    return [(int(row), float(wrong[row])) for row in order]


def mislabelled(outputs: np.ndarray, labels: np.ndarray, problem: Problem) -> dict[str, Any]:
    """Finds rows whose label a model that has not seen them surely contradicts.

    Of one label of several it is confident learning (Northcutt et al., 2021): a row counts if
    another label is at least as probable as it is on average for rows of that label, and more so
    than the given one. Else the rows are those that are furthest off, and not counted.

    Args:
        outputs: Out of fold: probabilities, or a regression's numbers.
        labels: The rows' labels, as in `Examples`.
        problem: What they are of.

    Returns:
        `count` (None: not counted), and the `rows` that are furthest off with `by`, how much.
    """
    count = None
    if problem.problem_type == "regression":
        wrong = np.abs(outputs - labels)
    elif problem.problem_type == "multi_label":
        wrong = _disagreement(outputs, labels > 0.5)
    else:
        given = outputs[np.arange(len(labels)), labels]
        usual = np.array(
            [
                given[labels == label].mean() if (labels == label).any() else np.inf
                for label in range(problem.num_outputs)
            ]
        )
        confident = np.where(outputs >= usual, outputs, 0)
        suspect = (confident.max(axis=1) > given) & (confident.argmax(axis=1) != labels)
        count = int(suspect.sum())
        wrong = np.where(suspect, _disagreement(outputs, labels), -np.inf)
    order = np.argsort(-wrong, kind="stable")[:MOST_ROWS]
    rows = [{"row": int(row), "by": float(wrong[row])} for row in order if np.isfinite(wrong[row])]
    return {"count": count, "rows": rows}


def _disagreement(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns how sure probabilities are against the truth, for each row."""
    if truth.ndim == 2:
        return np.where(truth, 1 - probabilities, probabilities).max(axis=1)
    rows = np.arange(len(truth))
    others = probabilities.copy()
    others[rows, truth] = -np.inf
    return others.max(axis=1) - probabilities[rows, truth]


def near_duplicates(
    train: Examples, split: str, rows: Examples, tfidf: Tfidf | None
) -> dict[str, Any]:
    """Finds evaluated rows whose text, or nearly that text, was trained on.

    Args:
        train: The training rows.
        split: The name of the evaluated ones.
        rows: The evaluated ones.
        tfidf: Of some training rows, in `train`'s order if of all; None: nearly equal texts are not
            looked for.

    Returns:
        `equal`, `alike` (but for case, blanks and outer punctuation), each of `rows` and `pairs` of
        locations; and `near`, the rest with a cosine of 0.9 or more: `rows`, and `pairs` of a
        row of each, the nearest first.
    """
    across = describe_repeats({"train": train, split: rows})["across"][0]
    near: dict[str, Any] = {"rows": 0, "pairs": []}
    if tfidf and len(tfidf.labels) == len(train):
        found = _nearest(tfidf, train.texts, rows.texts)
        close = [(cosine, row, other) for row, (cosine, other) in enumerate(found)]
        close = sorted((item for item in close if NEAR <= item[0] < 1 - 1e-9), reverse=True)
        near["rows"] = len(close)
        near["pairs"] = [
            {"row": row, "train_row": other, "cosine": cosine}
            for cosine, row, other in close[:MOST_ROWS]
        ]
    return {"equal": across["equal"], "alike": across["alike"], "near": near}


def _nearest(
    tfidf: Tfidf, train: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]
) -> list[tuple[float, int]]:
    """Returns for each row the greatest cosine to a training row, and that row."""
    from scipy import sparse

    def unit(texts: Sequence[Sequence[str]]) -> Any:
        parts = [tfidf.vectorizer.transform(column) for column in texts]
        return sparse.csr_matrix(sparse.hstack(parts)) / len(parts) ** 0.5

    known, asked = unit(train).T.tocsr(), unit(rows)
    found = []
    for start in range(0, asked.shape[0], _BLOCK):
        cosines = sparse.csr_matrix(asked[start : start + _BLOCK] @ known)
        for row in range(cosines.shape[0]):
            values = cosines.data[cosines.indptr[row] : cosines.indptr[row + 1]]
            if len(values):
                best = int(values.argmax())
                found.append(
                    (float(values[best]), int(cosines.indices[cosines.indptr[row] + best]))
                )
            else:
                found.append((0.0, -1))
    return found
