"""Probabilities that are as sure as the model is right, and the thresholds of labels."""

import dataclasses
import json
import os
from typing import Any

import numpy as np

from tf_finetune.classification.metrics import compute_metrics, probabilities
from tf_finetune.data.problem import Problem, known_labels
from tf_finetune.errors import UserError
from tf_finetune.files import exists, read_bytes, write_text_atomic
from tf_finetune.runs.exports import CALIBRATION
from tf_finetune.runs.model_dir import ModelDir

# A model is seldom less sure by half or more sure tenfold than it may be.
_RANGE = (0.1, 10.0)
# A threshold of fewer rows is that of chance.
LEAST_ROWS = 10
# Of the expected calibration error, as Guo et al. count it.
BINS = 15


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Finds the temperature of the least mean loss: Guo et al. 2017, arXiv:1706.04599.

    Args:
        logits: Float [n, num_labels].
        labels: int [n]; rows with a negative one do not count.

    Returns:
        What logits are divided by before the softmax; 1 where no row tells it: there are none, or
        the model errs in none, or a constant is as good.
    """
    # Every command imports this module, and few fit a temperature.
    from scipy import optimize, special

    known = known_labels(labels)
    logits, labels = logits[known].astype(np.float64), labels[known]
    if not len(labels) or (logits.argmax(axis=1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        shares = special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-shares[np.arange(len(labels)), labels].mean())

    found = optimize.minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def fit_thresholds(shares: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Finds each label's threshold of the highest F1: Lipton et al. 2014, arXiv:1402.1892.

    A label of fewer than `LEAST_ROWS` rows gets the threshold of the highest micro-F1 of all.

    Args:
        shares: Probabilities, float [n, num_labels].
        truth: bool [n, num_labels].

    Returns:
        float64 [num_labels], each halfway between two probabilities.
    """
    shared = _best_threshold(shares.ravel(), truth.ravel())
    return np.array(
        [
            _best_threshold(column, true) if true.sum() >= LEAST_ROWS else shared
            for column, true in zip(shares.T, truth.T, strict=True)
        ]
    )


def _best_threshold(shares: np.ndarray, truth: np.ndarray) -> float:
    """Returns the threshold of the highest F1; the half where no row is true."""
    if not truth.any():
        return 0.5
    order = np.argsort(-shares, kind="stable")
    shares = shares[order].astype(np.float64)
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(shares) + 1) + truth.sum())
    # Rows of one probability are all chosen or none.
    below = np.append(shares[1:], 0.0)
    place = int(np.where(below < shares, f1, -1.0).argmax())
    return float(np.clip((shares[place] + below[place]) / 2, 1e-6, 1 - 1e-6))


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Returns the expected calibration error (Guo et al. 2017): |right - sure|, over equal bins.

    Args:
        probabilities: float [n, num_labels].
        labels: int [n], all known.
        bins: Of the probability of the chosen label.
    """
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.minimum((sure * bins).astype(int), bins - 1)
    sums = [np.bincount(places, values, bins) for values in (sure, right)]
    return float(np.abs(sums[0] - sums[1]).sum() / len(labels))


def calibrate(logits: np.ndarray, labels: np.ndarray, problem: Problem) -> tuple[Problem, str]:
    """Finds the temperature of one label of several, the thresholds of any number of labels.

    Args:
        logits: Float [n, num_labels].
        labels: Of the same rows, as `Examples` has them; unknown ones do not count.
        problem: The model's, not a regression.

    Returns:
        The problem with what was found, and a line on what that changes on these rows.
    """
    known = known_labels(labels)
    logits, labels = logits[known], labels[known]
    if problem.problem_type == "multi_label":
        thresholds = fit_thresholds(probabilities(logits, problem), labels > 0.5)
        found = dataclasses.replace(problem, thresholds=tuple(map(float, thresholds)))
        told = [
            f"{metric} {before[metric]:.3f} -> {after[metric]:.3f}"
            for before, after in [[compute_metrics(logits, labels, p) for p in (problem, found)]]
            for metric in ("micro_f1", "macro_f1")
        ]
        return found, f"thresholds of {len(thresholds)} labels: {', '.join(told)}"
    found = dataclasses.replace(problem, temperature=fit_temperature(logits, labels))
    before, after = (
        calibration_error(probabilities(logits, one), labels) for one in (problem, found)
    )
    return found, (
        f"calibration temperature {found.temperature:.2f}: expected calibration error "
        f"{before:.3f} -> {after:.3f}"
    )


def check_tuning(problem: Problem, is_trained: bool, has_validation: bool) -> None:
    """Checks that `--tune_thresholds` finds thresholds, or those that were found.

    Args:
        problem: What is learnt, or of a model that is not trained what it has learnt.
        is_trained: Whether the run trains.
        has_validation: Whether it has labelled validation rows.

    Raises:
        UserError: It does not.
    """
    if problem.problem_type != "multi_label":
        raise UserError(
            "--tune_thresholds: only rows of any number of labels have thresholds; these are "
            f"{problem.problem_type}. Leave the flag out."
        )
    if is_trained and not has_validation:
        raise UserError(
            "--tune_thresholds: they are found on validation rows. Give --validation_file or "
            "--validation_fraction."
        )
    if not is_trained and not problem.thresholds:
        raise UserError(
            "--tune_thresholds: this model was trained without. Leave the flag out, or train with "
            "--do_train."
        )


def save_calibration(model_dir: ModelDir, problem: Problem) -> None:
    """Keeps the temperature and the thresholds of a problem with its model."""
    content = {
        "temperature": problem.temperature,
        "thresholds": dict(zip(problem.label_names, problem.thresholds, strict=False)),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_text_atomic(_file(model_dir), f"{text}\n")


def load_calibration(model_dir: ModelDir, problem: Problem) -> Problem:
    """Returns a problem with what was kept with its model, if anything was.

    Raises:
        UserError: The file is damaged.
    """
    if not exists(_file(model_dir)):
        return problem
    try:
        content: Any = json.loads(read_bytes(_file(model_dir)))
        temperature, each = float(content["temperature"]), content["thresholds"]
        thresholds = tuple(float(each[name]) for name in problem.label_names) if each else ()
        if not _RANGE[0] <= temperature <= _RANGE[1]:
            raise ValueError(f"temperature {temperature}")
        return dataclasses.replace(problem, temperature=temperature, thresholds=thresholds)
    except (ValueError, TypeError, KeyError, UserError) as error:
        raise UserError(
            f"{_file(model_dir)} is damaged: {error}. Remove the file, or train again."
        ) from None


def _file(model_dir: ModelDir) -> str:
    return os.path.join(model_dir.path, CALIBRATION)
