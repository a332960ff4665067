"""The report of a classifier as numbers: what was run, how good it is, where it is wrong."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_finetune.classification.config import Config
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.experiments import baselines, slices, suspects
from tf_finetune.experiments.advice import advise
from tf_finetune.experiments.calibration import coverage, precision_recall, reliability
from tf_finetune.experiments.compared import compare
from tf_finetune.experiments.confusion import confusion
from tf_finetune.experiments.run_facts import (
    ClassifierRun,
    EvaluatedRows,
    read_classifier_run,
    read_columns,
)
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import told_settings

# Told even where they have their defaults.
_ALWAYS = ("encoder", "max_seq_length", "train_batch_size", "learning_rate", "num_train_epochs")
_SEED = 0


def report_classifier(model_dir: ModelDir, slice_columns: Sequence[str]) -> dict[str, Any]:
    """Makes the report of a classifier.

    Args:
        model_dir: Its folder.
        slice_columns: Columns of the data by which the rows are scored too.

    Returns:
        A JSON object: `kind`, `headline`, `model_dir`, `problem`, `settings`, `missing`, `data`,
        `curves`, `cost`, `exports`, `prices`, `results`; as far as there are rows and labels for it
        `comparison`, `confusion`, `reliability`, `coverage`, `precision_recall`, `by_label`,
        `by_length`, `by_column`, `errors`, `mislabelled`, `duplicates`; and `advice`.

    Raises:
        UserError: There is no run, or a file of it is damaged.
    """
    run = read_classifier_run(model_dir)
    problem = run.problem
    report: dict[str, Any] = {
        "kind": "classifier",
        "headline": "This run was not evaluated.",
        "model_dir": str(model_dir),
        "problem": {
            "type": problem.problem_type,
            "text_columns": list(problem.text_columns),
            "labels": list(problem.label_names),
        },
        "settings": told_settings(run.config, Config(), _ALWAYS),
        "missing": list(run.missing),
        "data": run.facts,
        "curves": list(run.log),
        "cost": run.metrics.get("train"),
        "exports": run.metrics.get("exports"),
        "prices": run.metrics.get("prices"),
        "results": {part: run.metrics[part] for part in ("eval", "test") if part in run.metrics},
    }
    fitted, tfidf = _fit(run)
    if run.rows:
        comparison = compare(run, tfidf)
        report |= {"comparison": comparison, "headline": comparison["headline"]}
        report["missing"] += comparison.pop("missing")
        report |= _errors(run, run.rows)
        if slice_columns:
            columns = read_columns(run, slice_columns)
            report["by_column"] = {
                name: slices.by_column(run.rows.judged, values) for name, values in columns.items()
            }
        if run.train:
            rows = Examples(run.rows.texts, None, run.rows.locations)
            report["duplicates"] = _with_texts(
                suspects.near_duplicates(run.train, run.rows.split, rows, tfidf),
                run.train,
                rows,
            )
    if tfidf and fitted:
        report["mislabelled"] = _mislabelled(fitted, tfidf, problem)
    report["advice"] = advise(model_dir, run.config, run.log, report)
    return report


def _fit(run: ClassifierRun) -> tuple[Examples | None, baselines.Tfidf | None]:
    """Returns the rows that TF-IDF is fitted on, and it."""
    if run.train is None or run.train.labels is None:
        return None, None
    some, _ = baselines.sampled(run.train, baselines.MOST_ROWS, _SEED)
    return some, baselines.fit_tfidf(some, run.problem)


def _errors(run: ClassifierRun, rows: EvaluatedRows) -> dict[str, Any]:
    judged, problem = rows.judged, run.problem
    found: dict[str, Any] = {"by_length": slices.by_length(judged, rows.texts)}
    found["errors"] = [
        {
            "row": row + 1,
            "texts": {n: c[row] for n, c in zip(problem.text_columns, rows.texts, strict=True)},
            "truth": label_of(judged.truth[row], problem),
            "said": label_of(judged.predicted[row], problem),
            "by": by,
        }
        for row, by in suspects.worst_errors(judged, problem)
    ]
    if problem.problem_type == "regression":
        pairs = np.stack([judged.truth, judged.predicted], axis=1)
        return {**found, "numbers": pairs.tolist()}
    # A sample of streamed rows says little of how many there are.
    is_whole = run.train is not None and not (run.facts or {}).get("train_is_sample")
    train = run.train.labels if run.train and is_whole else None
    if problem.problem_type == "single_label":
        found["coverage"] = coverage(judged, problem.reject_below)
    return {
        **found,
        "confusion": confusion(judged, problem.label_names),
        "reliability": reliability(judged),
        "precision_recall": precision_recall(judged),
        "by_label": slices.by_label(judged, problem, train),
    }


def _mislabelled(train: Examples, tfidf: baselines.Tfidf, problem: Problem) -> dict[str, Any]:
    outputs = tfidf.out_of_fold(_SEED)
    labels = tfidf.labels
    found = suspects.mislabelled(outputs, labels, problem)
    predicted = baselines.judge(outputs, labels, problem).predicted
    for part in found["rows"]:
        row = part.pop("row")
        part["location"] = train.locations[row] if len(train.locations) else f"row {row + 1}"
        part["texts"] = {
            name: column[row]
            for name, column in zip(problem.text_columns, train.texts, strict=True)
        }
        part["label"] = label_of(labels[row], problem)
        part["said"] = label_of(predicted[row], problem)
    return {**found, "examined": len(train)}


def _with_texts(found: dict[str, Any], train: Examples, rows: Examples) -> dict[str, Any]:
    for pair in found["near"]["pairs"]:
        row, other = pair.pop("row"), pair.pop("train_row")
        pair["text"] = " | ".join(column[row] for column in rows.texts)
        pair["train_text"] = " | ".join(column[other] for column in train.texts)
    return found


def label_of(value: Any, problem: Problem) -> str:
    """Returns a row's label as text."""
    if problem.problem_type == "regression":
        return f"{value:.3g}"
    if problem.problem_type == "multi_label":
        return ", ".join(problem.label_names[place] for place in np.flatnonzero(value)) or "(none)"
    return problem.label_names[int(value)]
