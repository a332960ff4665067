"""A temperature that makes probabilities as sure as the model is right."""

import dataclasses
import json
import os
from typing import Any

import numpy as np
from scipy import optimize, special

from tf_finetune.classification.metrics import probabilities
from tf_finetune.data.problem import Problem, known_labels
from tf_finetune.errors import UserError
from tf_finetune.files import exists, read_bytes, write_text_atomic
from tf_finetune.runs.exports import CALIBRATION
from tf_finetune.runs.model_dir import ModelDir

# A model is seldom less sure by half or more sure tenfold than it may be.
_RANGE = (0.1, 10.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Finds the temperature of the least mean loss: Guo et al. 2017, arXiv:1706.04599.

    Args:
        logits: Float [n, num_labels].
        labels: int [n]; rows with a negative one do not count.

    Returns:
        What logits are divided by before the softmax; 1 where no row tells it: there are none, or
        the model errs in none, or a constant is as good.
    """
    known = known_labels(labels)
    logits, labels = logits[known].astype(np.float64), labels[known]
    if not len(labels) or (logits.argmax(axis=1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        shares = special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-shares[np.arange(len(labels)), labels].mean())

    found = optimize.minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Returns the expected calibration error (Guo et al. 2017): |right - sure|, over equal bins.

    Args:
        probabilities: Float [n, num_labels].
        labels: int [n], all known.
        bins: Of the probability of the chosen label.
    """
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.minimum((sure * bins).astype(int), bins - 1)
    sums = [np.bincount(places, values, bins) for values in (sure, right)]
    return float(np.abs(sums[0] - sums[1]).sum() / len(labels))


def calibrate(logits: np.ndarray, labels: np.ndarray, problem: Problem) -> tuple[Problem, str]:
    """Returns a problem of one label with its temperature, and a line on what that changes.

    Args:
        logits: See `fit_temperature`.
        labels: Of the same rows.
        problem: The model's.
    """
    known = known_labels(labels)
    found = dataclasses.replace(problem, temperature=fit_temperature(logits, labels))
    before, after = (
        calibration_error(probabilities(logits[known], one), labels[known])
        for one in (problem, found)
    )
    return found, (
        f"calibration temperature {found.temperature:.2f}: expected calibration error "
        f"{before:.3f} -> {after:.3f}"
    )


def save_temperature(model_dir: ModelDir, temperature: float) -> None:
    """Keeps a temperature with its model."""
    write_text_atomic(_file(model_dir), json.dumps({"temperature": temperature}) + "\n")


def load_temperature(model_dir: ModelDir) -> float:
    """Returns the temperature of a model; 1 without one.

    Raises:
        UserError: Its file is damaged.
    """
    if not exists(_file(model_dir)):
        return 1.0
    try:
        content: Any = json.loads(read_bytes(_file(model_dir)))
        temperature = float(content["temperature"])
    except (ValueError, TypeError, KeyError) as error:
        raise model_dir.damaged(error) from None
    if not _RANGE[0] <= temperature <= _RANGE[1]:
        raise UserError(
            f"{_file(model_dir)}: temperature {temperature} is not between {_RANGE[0]} and "
            f"{_RANGE[1]}. Remove the file, or train again."
        )
    return temperature


def _file(model_dir: ModelDir) -> str:
    return os.path.join(model_dir.path, CALIBRATION)
