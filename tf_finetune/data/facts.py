"""What there is in the data, and what may be wrong with it, as a JSON object."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from tf_finetune.data.labelled import Examples, TextData
from tf_finetune.data.problem import Problem, known_labels
from tf_finetune.data.repeats import describe_repeats

# Labels of fewer training rows are told.
FEW_ROWS = 8
# Between digits a hyphen and a blank count: 1-2 is not 12, and -1 is not 1.
_SEPARATORS = re.compile(r"(?<=[^\W\d_])[\s_-]+(?=[^\W_])|(?<=[^\W_])[\s_-]+(?=[^\W\d_])")
_ACCENTS = re.compile("[\u0300-\u036f]")


def describe(data: TextData) -> dict[str, Any]:
    """Describes all splits: rows, labels, repeated texts, and what is reached without learning.

    Args:
        data: The examples. Rows whose label is not known do not count as labelled.

    Returns:
        A JSON object:

        - `problem_type`, `text_columns`, `label_names`;
        - `train_is_sample`: whether `train` is a sample of rows that are streamed;
        - `splits`: for each `rows`, `empty_texts`, `known_labels`; and if there are any, `labels`,
          the rows of each name (of a regression `smallest`, `mean`, `largest`, `std_dev`), and for
          multi_label the rows `without_label`;
        - `alike_labels`: groups of names that differ only in case, accents, blanks, hyphens and
          underscores, with their rows in the first labelled split;
        - `rare_labels`: names of fewer than 8 training rows, with their rows;
        - `baseline`: what always saying the most frequent training label (the mean) reaches, null
          without training labels;
        - `repeats`: see `describe_repeats`;
        - `notices`: of `TextData`.
    """
    problem = data.problem
    known = {split: labels for split, rows in data.parts.items() if len(labels := _known(rows))}
    splits = {
        split: {
            "rows": len(rows),
            "empty_texts": sum(not text.strip() for column in rows.texts for text in column),
            "known_labels": len(known.get(split, ())),
            **(_describe_labels(known[split], problem) if split in known else {}),
        }
        for split, rows in data.parts.items()
    }
    counts = splits[next(iter(known))]["labels"] if known and problem.label_names else {}
    is_sample = data.stream is not None
    return {
        "problem_type": problem.problem_type,
        "text_columns": list(problem.text_columns),
        "label_names": list(problem.label_names),
        "train_is_sample": is_sample,
        "splits": splits,
        "alike_labels": _alike(counts),
        # A sample says little of them.
        "rare_labels": {name: count for name, count in counts.items() if count < FEW_ROWS}
        if "train" in known and not is_sample
        else {},
        "baseline": _baseline(known, problem) if "train" in known else None,
        "repeats": describe_repeats(data.parts),
        "notices": list(data.notices),
    }


def describe_lengths(
    lengths: Mapping[str, np.ndarray],
    max_seq_length: int,
    *,
    long_text: str | None = "truncate",
    encoder_length: int | None = None,
) -> dict[str, Any]:
    """Describes how long the rows are, how many are cut, and how much of them is lost.

    Args:
        lengths: The tokens of each row before truncation, int [n], by split.
        max_seq_length: Where rows are cut.
        long_text: What is made of longer ones, see `pack_long`; None: the encoder decides.
        encoder_length: The most tokens that the encoder takes; None: there is no limit.

    Returns:
        A JSON object: `max_seq_length`, `long_text`, `encoder_length`, and for each of the `splits`
        percentiles of its lengths, `longest`, `cut_rows` (off, or into pieces), `tokens` and
        `tokens_lost`.
    """
    splits = {}
    for split, values in lengths.items():
        marks = np.percentile(values, (50, 90, 99, 100)) if len(values) else np.zeros(4)
        lost = int(np.maximum(values - max_seq_length, 0).sum(dtype=np.int64))
        names = ("median", "percentile_90", "percentile_99", "longest")
        splits[split] = {
            "rows": len(values),
            **dict(zip(names, marks.tolist(), strict=True)),
            "cut_rows": int(np.count_nonzero(values > max_seq_length)),
            "tokens": int(values.sum(dtype=np.int64)),
            "tokens_lost": 0 if long_text == "window" else lost,
        }
    return {
        "max_seq_length": max_seq_length,
        "long_text": long_text,
        "encoder_length": encoder_length,
        "splits": splits,
    }


def _known(rows: Examples) -> np.ndarray:
    """Returns the labels that are known."""
    return np.zeros(0) if rows.labels is None else rows.labels[known_labels(rows.labels)]


def _describe_labels(labels: np.ndarray, problem: Problem) -> dict[str, Any]:
    if problem.problem_type == "regression":
        numbers = labels.astype(np.float64)
        marks = (numbers.min(), numbers.mean(), numbers.max(), numbers.std())
        names = ("smallest", "mean", "largest", "std_dev")
        return {"labels": dict(zip(names, map(float, marks), strict=True))}
    counts = dict(zip(problem.label_names, _counts(labels, problem).tolist(), strict=True))
    if problem.problem_type == "single_label":
        return {"labels": counts}
    return {"labels": counts, "without_label": int((labels.sum(axis=1) == 0).sum())}


def _counts(labels: np.ndarray, problem: Problem) -> np.ndarray:
    """Returns the rows of each label, int [num_labels]."""
    if problem.problem_type == "single_label":
        return np.bincount(labels, minlength=problem.num_outputs)
    return labels.sum(axis=0, dtype=np.float64).astype(np.int64)


def _alike(counts: Mapping[str, int]) -> list[dict[str, int]]:
    groups: dict[str, dict[str, int]] = {}
    for name, count in counts.items():
        plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", name)).casefold().strip()
        groups.setdefault(_SEPARATORS.sub("", plain), {})[name] = count
    return [group for group in groups.values() if len(group) > 1]


def _baseline(known: Mapping[str, np.ndarray], problem: Problem) -> dict[str, Any]:
    """Describes what is reached by always saying what is most frequent in the training labels.

    Args:
        known: The known labels of each split, `train` among them.
        problem: What is learnt.

    Returns:
        `says`: the most frequent label; for multi_label the names of at least half of the rows,
        else the most frequent ones; for a regression the mean. `splits`: its metrics, as
        scikit-learn computes them, on validation and test, else on train.
    """
    train, names = known["train"], problem.label_names
    says: Any
    scores: Callable[[np.ndarray], dict[str, float]]
    if problem.problem_type == "regression":
        says = mean = float(train.mean(dtype=np.float64))
        scores = partial(_number_scores, value=mean)
    elif problem.problem_type == "single_label":
        label = int(_counts(train, problem).argmax())
        says, scores = names[label], partial(_single_scores, label=label)
    else:
        counts = _counts(train, problem)
        chosen = (counts > 0) & (counts >= min(counts.max(), len(train) / 2))
        says = [names[label] for label in np.flatnonzero(chosen)]
        scores = partial(_multi_scores, chosen=chosen)
    held_out = {split: labels for split, labels in known.items() if split != "train"}
    splits = {split: scores(labels) for split, labels in (held_out or {"train": train}).items()}
    return {"says": says, "splits": splits}


def _single_scores(labels: np.ndarray, label: int) -> dict[str, float]:
    share = float(np.mean(labels == label))
    # The other labels that occur have an F1 of 0; if this one does not occur, all have.
    return {"accuracy": share, "macro_f1": 2 * share / (1 + share) / len(np.unique(labels))}


def _multi_scores(labels: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    said = len(labels) * int(chosen.sum())
    right, true = (float(part.sum(dtype=np.float64)) for part in (labels[:, chosen], labels))
    return {"micro_f1": 2 * right / max(said + true, 1)}


def _number_scores(labels: np.ndarray, value: float) -> dict[str, float]:
    errors = labels.astype(np.float64) - value
    square = float(np.mean(errors**2))
    return {
        "mean_squared_error": square,
        "root_mean_squared_error": square**0.5,
        "mean_absolute_error": float(np.mean(np.abs(errors))),
    }
