"""Scores of parts of the rows: by label, by length of the text, by any column of the data."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_finetune.data.problem import Problem
from tf_finetune.experiments.judged import Judged, interval, score

PARTS = 5
MOST_VALUES = 12
# A number for each part, not a correlation, which changes with the range of a part's labels.
_SCORE = {
    "single_label": "accuracy",
    "multi_label": "micro_f1",
    "regression": "mean_squared_error",
}


def by_length(judged: Judged, texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Scores rows by the characters of their texts, in parts of about equal size."""
    lengths = np.sum([[len(text) for text in column] for column in texts], axis=0)
    return _described(judged, *_by_number(lengths.astype(np.float64)))


def by_column(judged: Judged, values: Sequence[Any]) -> dict[str, Any]:
    """Scores rows by the values of a column.

    Args:
        judged: The rows.
        values: The value of each. Numbers of many values are put together in parts of about equal
            size; of other values the most frequent are told, and the others together.
    """
    shown = ["(none)" if value is None or value == "" else str(value) for value in values]
    counts = Counter(shown)
    if len(counts) > MOST_VALUES:
        try:
            return _described(judged, *_by_number(np.array(shown, np.float64)))
        except ValueError:
            pass
    names = [name for name, _ in counts.most_common(MOST_VALUES)]
    groups = [np.array([value == name for value in shown]) for name in names]
    if len(counts) > MOST_VALUES:
        groups.append(~np.any(groups, axis=0))
        names.append(f"{len(counts) - MOST_VALUES:,} others")
    return _described(judged, names, groups)


def by_label(judged: Judged, problem: Problem, train: np.ndarray | None) -> list[dict[str, Any]]:
    """Scores each label.

    Args:
        judged: The rows.
        problem: Its labels.
        train: The training rows' labels, to count; None: they are not known.

    Returns:
        For each label its `label`, `train_rows` (or None), `rows`, `predicted`, `precision`,
        `recall` and `f1`.
    """
    hot, said, learnt = (_hot(part, problem) for part in (judged.truth, judged.predicted, train))
    assert hot is not None and said is not None
    found = []
    for place, name in enumerate(problem.label_names):
        both = int((hot[:, place] & said[:, place]).sum())
        true, predicted = int(hot[:, place].sum()), int(said[:, place].sum())
        found.append(
            {
                "label": name,
                "train_rows": None if learnt is None else int(learnt[:, place].sum()),
                "rows": true,
                "predicted": predicted,
                "precision": both / predicted if predicted else 0.0,
                "recall": both / true if true else 0.0,
                "f1": 2 * both / (true + predicted) if true + predicted else 0.0,
            }
        )
    return found


def _hot(labels: np.ndarray | None, problem: Problem) -> np.ndarray | None:
    if labels is None or labels.ndim == 2:
        return None if labels is None else labels > 0.5
    return labels[:, None] == np.arange(problem.num_outputs)


def _by_number(values: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    """Cuts numbers into parts of about equal size; equal ones stay together."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, PARTS + 1)))
    if len(edges) == 1:
        return [f"{edges[0]:g}"], [np.ones(len(values), bool)]
    places = np.clip(np.searchsorted(edges, values, side="left"), 1, None) - 1
    names, groups = [], []
    for place in range(len(edges) - 1):
        chosen = places == place
        if chosen.any():
            low, high = values[chosen].min(), values[chosen].max()
            names.append(f"{low:g} to {high:g}" if low < high else f"{low:g}")
            groups.append(chosen)
    return names, groups


def _described(
    judged: Judged, names: Sequence[str], groups: Sequence[np.ndarray]
) -> dict[str, Any]:
    metric = _SCORE[judged.problem_type]
    parts = []
    for name, group in zip(names, groups, strict=True):
        rows = judged.take(np.flatnonzero(group))
        parts.append(
            {
                "value": name,
                "rows": len(rows),
                "score": score(rows, metric),
                "interval": list(interval(rows, metric)),
            }
        )
    return {"metric": metric, "parts": parts}
