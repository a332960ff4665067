"""Metrics from logits and labels, as scikit-learn and scipy compute them."""

from functools import partial
from typing import Any

import numpy as np
from scipy import special

from tf_finetune.data.problem import Problem, known_labels
from tf_finetune.errors import UserError

_BINARY = ("precision", "recall", "f1", "matthews_correlation", "roc_auc", "macro_f1", "micro_f1")
_MULTI_CLASS = ("macro_f1", "micro_f1", "matthews_correlation", "roc_auc")
_MULTI_LABEL = ("micro_f1", "macro_f1", "roc_auc")
_REGRESSION = ("pearson", "spearman", "mean_squared_error")
# Geifman & El-Yaniv, 2017, arXiv:1705.08500.
_SELECTIVE = ("coverage", "selective_accuracy")
_LESS_IS_BETTER = ("loss", "mean_squared_error")


def metric_names(problem: Problem) -> tuple[str, ...]:
    """Returns the names of the numbers that `compute_metrics` returns for a problem."""
    if problem.problem_type == "regression":
        return ("loss", *_REGRESSION)
    if problem.problem_type == "multi_label":
        return ("loss", "accuracy", *_MULTI_LABEL)
    names = _BINARY if problem.num_outputs == 2 else _MULTI_CLASS
    return ("loss", "accuracy", *(_SELECTIVE if problem.reject_below else ()), *names)


def greater_is_better(name: str) -> bool:
    """Returns whether a greater value of this metric is better."""
    return name not in _LESS_IS_BETTER


def check_metric_name(name: str, problem: Problem) -> None:
    """Checks that `metric_for_best_model` is a metric of the problem.

    Raises:
        UserError: The problem has no such metric; the message lists those it has.
    """
    if name not in metric_names(problem):
        described: str = problem.problem_type
        if described != "regression":
            described += f" with {problem.num_outputs} labels"
        raise UserError(
            f"--metric_for_best_model={name}: no such metric for {described}. "
            f"Allowed are {', '.join(metric_names(problem))}."
        )


def probabilities(logits: np.ndarray, problem: Problem) -> np.ndarray:
    """Turns logits into probabilities.

    Args:
        logits: Float [n, num_labels].
        problem: `single_label` (softmax, by its temperature) or `multi_label` (a sigmoid for each
            label).

    Returns:
        float32 [n, num_labels].
    """
    logits = logits.astype(np.float64)
    if problem.problem_type == "multi_label":
        return special.expit(logits).astype(np.float32)
    return special.softmax(logits / problem.temperature, axis=1).astype(np.float32)


def choose_labels(probabilities: np.ndarray, problem: Problem) -> np.ndarray:
    """Returns the labels of multi-label rows: those whose probability reaches the threshold.

    Args:
        probabilities: float32 [n, num_labels].
        problem: Its thresholds are compared in float32, as the exported graph does.

    Returns:
        bool [n, num_labels].
    """
    return probabilities >= problem.label_thresholds


def is_sure(probabilities: np.ndarray, problem: Problem) -> np.ndarray:
    """Returns which single-label rows are sure enough to be answered, bool [n].

    Args:
        probabilities: float32 [n, num_labels].
        problem: Its `reject_below` is compared in float32, as the exported graph does.
    """
    return probabilities.max(axis=1) >= np.float32(problem.reject_below)


def compute_metrics(logits: np.ndarray, labels: np.ndarray, problem: Problem) -> dict[str, Any]:
    """Computes every metric of a problem, over the rows whose label is known.

    `loss` is the plain mean loss, without label smoothing or class weights. With two labels,
    `precision`, `recall` and `f1` are of the second one. `macro_f1` is over the labels that occur
    or are predicted (multi_label: over all), as scikit-learn's default. A multi-label row counts
    for `accuracy` if all its labels are right. `roc_auc` of several labels is each label against
    the rest, averaged over the labels that occur but not in every row. With `reject_below`,
    `coverage` is the share of rows that get an answer, `selective_accuracy` that of right answers.

    Args:
        logits: float32 [n, num_outputs].
        labels: int32 [n]; multi_label 0 or 1 [n, num_labels]; regression float32 [n]. Those not
            known are -1 or NaN, as in `Examples`.
        problem: The model's problem, with the threshold of multi-label rows.

    Returns:
        `examples`, the number of rows with a known label; Python floats under the names of
        `metric_names`; and except for a regression `per_class`:
        {label name: {precision, recall, f1, support}}. A quotient 0/0 is 0.0, as is Matthews'
        correlation when only one class occurs or is predicted. None (null in JSON) where undefined:
        `pearson` and `spearman` of equal predictions or labels, `roc_auc` of equal labels,
        `selective_accuracy` of no answer.

    Raises:
        UserError: No rows with a known label, or logits that are not finite.
    """
    known = _known(labels, problem)
    if not known.any():
        raise UserError(
            "There are no rows to evaluate whose label is known. Check the file and "
            "--max_eval_samples."
        )
    if not np.isfinite(logits).all():
        rows = int((~np.isfinite(logits)).any(axis=1).sum())
        raise UserError(
            f"The model's outputs are not finite in {rows} of {len(logits)} rows: it has diverged. "
            "Train with a lower --learning_rate, or with --precision=float32."
        )
    logits, labels = logits[known].astype(np.float64), labels[known]
    if problem.problem_type == "regression":
        results = _regression(logits.reshape(-1), labels.reshape(-1).astype(np.float64))
    elif problem.problem_type == "multi_label":
        results = _multi_label(logits, labels > 0.5, problem)
    else:
        results = _single_label(logits, labels.reshape(-1).astype(np.int64), problem)
    return {"examples": len(labels), **results}


def _known(labels: np.ndarray, problem: Problem) -> np.ndarray:
    """Returns which rows have a known label, bool [n], whatever the type of the numbers."""
    if problem.problem_type == "single_label":
        return known_labels(labels.reshape(-1).astype(np.int64))
    return known_labels(labels.astype(np.float64))


def _single_label(logits: np.ndarray, labels: np.ndarray, problem: Problem) -> dict[str, Any]:
    from sklearn import metrics

    predicted = logits.argmax(axis=1)
    truth = labels[:, None] == np.arange(problem.num_outputs)
    results = {
        "loss": float(np.mean(special.logsumexp(logits, axis=1) - logits[truth])),
        "accuracy": float(np.mean(predicted == labels)),
        **_label_scores(labels, predicted, problem),
        # scikit-learn's value is the same, but it warns when only one class is left.
        "matthews_correlation": 0.0
        if np.ptp(labels) == 0 or np.ptp(predicted) == 0
        else float(metrics.matthews_corrcoef(labels, predicted)),
    }
    if problem.reject_below:
        answered = is_sure(probabilities(logits, problem), problem)
        right = (predicted == labels)[answered]
        values = float(np.mean(answered)), float(np.mean(right)) if len(right) else None
        results |= dict(zip(_SELECTIVE, values, strict=True))
    if problem.num_outputs != 2:
        return {**results, "roc_auc": _roc_auc(truth, special.softmax(logits, axis=1))}
    second = results["per_class"][problem.label_names[1]]
    results |= {name: second[name] for name in ("precision", "recall", "f1")}
    # The difference of the logits orders the rows as the probability does, without its rounding.
    return {**results, "roc_auc": _roc_auc(truth[:, 1:], logits[:, 1:] - logits[:, :1])}


def _multi_label(logits: np.ndarray, truth: np.ndarray, problem: Problem) -> dict[str, Any]:
    chosen = choose_labels(probabilities(logits, problem), problem)
    return {
        "loss": float(np.mean(-special.log_expit(np.where(truth, logits, -logits)))),
        "accuracy": float(np.mean((chosen == truth).all(axis=1))),
        **_label_scores(truth, chosen, problem),
        "roc_auc": _roc_auc(truth, logits),
    }


def _regression(values: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    from scipy import stats

    error = float(np.mean((values - labels) ** 2))
    defined = np.ptp(values) > 0 and np.ptp(labels) > 0
    return {
        "loss": error,
        "mean_squared_error": error,
        "pearson": float(stats.pearsonr(values, labels).statistic) if defined else None,
        "spearman": float(stats.spearmanr(values, labels).statistic) if defined else None,
    }


def _label_scores(truth: np.ndarray, chosen: np.ndarray, problem: Problem) -> dict[str, Any]:
    """Scores int [n] or, of multi_label, bool [n, num_labels], label by label and together."""
    from sklearn.metrics import precision_recall_fscore_support

    each: Any = range(problem.num_outputs)
    if truth.shape[1:] == (1,):  # scikit-learn takes a single column for two classes.
        truth, chosen, each = truth[:, 0], chosen[:, 0], [1]
    averaged = each if problem.problem_type == "multi_label" else None  # None: those that occur.
    scores = partial(precision_recall_fscore_support, truth, chosen, zero_division=0)
    return {
        "macro_f1": float(scores(labels=averaged, average="macro")[2]),
        "micro_f1": float(scores(labels=averaged, average="micro")[2]),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f1), "support": int(n)}
            for name, p, r, f1, n in zip(problem.label_names, *scores(labels=each), strict=True)
        },
    }


def _roc_auc(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """Averages over the columns of [n, columns] that hold both classes; None if there are none."""
    from sklearn.metrics import roc_auc_score

    areas = [
        roc_auc_score(column, score)
        for column, score in zip(truth.T, scores.T, strict=True)
        if column.min() != column.max()
    ]
    return float(np.mean(areas)) if areas else None


def collapse_warning(logits: np.ndarray, labels: np.ndarray, problem: Problem) -> str | None:
    """Returns a warning if all rows of a known label get one prediction although these differ.

    Args:
        logits: float32 [n, num_outputs].
        labels: As for `compute_metrics`.
        problem: The model's problem.

    Returns:
        The warning with the usual causes, or None.
    """
    known = _known(labels, problem)
    logits, labels = logits[known], labels[known]
    if problem.problem_type == "regression" or len(labels) < 2 or (labels == labels[0]).all():
        return None
    if problem.problem_type == "multi_label":
        chosen = choose_labels(probabilities(logits, problem), problem)
        if (chosen != chosen[0]).any():
            return None
        names = [name for name, on in zip(problem.label_names, chosen[0], strict=True) if on]
        return (
            f"every one of {len(logits)} rows is predicted {', '.join(names) or 'no label'}. "
            "Usual causes: training too short, or a --threshold too high for rare labels "
            "(or try --class_weights=balanced)."
        )
    predicted = logits.argmax(axis=1)
    if (predicted != predicted[0]).any():
        return None
    return (
        f"every one of {len(logits)} rows is predicted {problem.label_names[predicted[0]]!r}: the "
        "model has collapsed to one class. Usual cause: a learning rate that is too high or has "
        "too little warm-up (lower --learning_rate); else too little training, or classes of very "
        "different size (--class_weights=balanced)."
    )
