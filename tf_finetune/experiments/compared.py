"""The model beside the simplest things that work, on the same rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_finetune.data.labelled import Examples
from tf_finetune.errors import UserError
from tf_finetune.experiments import baselines, untuned
from tf_finetune.experiments.judged import Judged, difference, interval, score, score_names
from tf_finetune.experiments.run_facts import ClassifierRun

TUNED = "tuned"
TITLES = {
    TUNED: "This model",
    "tfidf": "TF-IDF with logistic regression",
    "untuned": "The untuned model, nearest class mean",
    "majority": "The most frequent label",
}
_OF_NUMBERS = {
    "tfidf": "TF-IDF with ridge regression",
    "untuned": "The untuned model, ridge regression",
    "majority": "The mean of the training rows",
}
_NAMES = {
    "f1": "F1",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "matthews_correlation": "Matthews' correlation",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "rouge_l": "ROUGE-L",
}
_SEED = 0


def compare(run: ClassifierRun, tfidf: baselines.Tfidf | None) -> dict[str, Any]:
    """Compares a classifier with what needs no fine-tuning.

    Args:
        run: The run, with rows that were evaluated.
        tfidf: Fitted on its training rows.

    Returns:
        `metric`, by which they are compared; `models`: by name `title`, `rows`, each score's
        `value` and `interval` (null: a correlation of equal numbers), and a `note`; `paired`: by
        name the result of `difference` between this model and that one; the `headline`; and what
        is `missing`.
    """
    assert run.rows
    judged, problem = run.rows.judged, run.problem
    names = score_names(problem.problem_type, problem.num_outputs)
    asked = run.config.loop.metric_for_best_model
    metric = asked if asked in names else names[0]
    titles = {**TITLES, **(_OF_NUMBERS if problem.problem_type == "regression" else {})}
    models = {TUNED: _scores(judged, names, titles[TUNED], "")}
    paired = {}
    missing: list[str] = []
    for name, (theirs, rows, note) in _others(run, tfidf, missing).items():
        models[name] = _scores(theirs, names, titles[name], note)
        if models[name]["scores"][metric]["value"] is not None:
            paired[name] = difference(judged.take(rows), theirs, metric, _SEED)
    headline = _headline(models, paired, metric, run.rows.split)
    return {
        "metric": metric,
        "models": models,
        "paired": paired,
        "headline": headline,
        "missing": missing,
    }


def metric_name(metric: str) -> str:
    """Returns a score's name as it is written."""
    return _NAMES.get(metric, metric.replace("_", " "))


def capital(text: str) -> str:
    """Returns a text whose first letter is a capital."""
    return text[:1].upper() + text[1:]


def _others(
    run: ClassifierRun, tfidf: baselines.Tfidf | None, missing: list[str]
) -> dict[str, tuple[Judged, np.ndarray, str]]:
    """Returns what the others say, of which rows, and what is to be known of it."""
    assert run.rows
    problem, train, truth = run.problem, run.train, run.rows.judged.truth
    every = np.arange(len(truth))
    if train is None or train.labels is None:
        return {}

    def judge(outputs: np.ndarray, rows: np.ndarray) -> Judged:
        return baselines.judge(outputs, truth[rows], problem)

    found = {}
    if tfidf:
        fitted = len(tfidf.labels)
        note = f"fitted on {fitted:,} of {len(train):,} rows" if fitted < len(train) else ""
        found["tfidf"] = (judge(tfidf.predict(run.rows.texts), every), every, note)
    try:
        found["untuned"] = _untuned(run, train)
    except UserError as error:
        missing.append(f"The untuned model is not compared: {error}")
    found["majority"] = (
        judge(baselines.majority(train.labels, len(truth), problem), every),
        every,
        "",
    )
    return found


def _untuned(run: ClassifierRun, train: Examples) -> tuple[Judged, np.ndarray, str]:
    assert run.rows
    some, _ = baselines.sampled(train, untuned.MOST_ROWS, _SEED)
    evaluated, rows = baselines.sampled(Examples(run.rows.texts), untuned.MOST_ROWS, _SEED)
    known, asked = untuned.embed(run.config, run.problem, [some, evaluated])
    assert some.labels is not None
    said = untuned.nearest_mean(known, some.labels, asked, run.problem)
    parts = []
    if len(some) < len(train):
        parts.append(f"means of {len(some):,} training rows")
    if len(rows) < len(run.rows.judged):
        parts.append(f"asked {len(rows):,} of the rows")
    judged = baselines.judge(said, run.rows.judged.truth[rows], run.problem)
    return judged, rows, "; ".join(parts)


def _scores(judged: Judged, names: tuple[str, ...], title: str, note: str) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for name in names:
        scores[name] = {"value": None, "interval": None}
        if name not in ("pearson", "spearman") or np.ptp(judged.predicted):
            low, high = interval(judged, name, _SEED)
            scores[name] = {"value": score(judged, name), "interval": [low, high]}
    return {"title": title, "rows": len(judged), "scores": scores, "note": note}


def _headline(models: Mapping[str, Any], paired: Mapping[str, Any], metric: str, split: str) -> str:
    """Says in one sentence what was reached, and whether it was worth it."""
    ours = models[TUNED]["scores"][metric]["value"]
    rows = f"{models[TUNED]['rows']:,} {split} rows"
    name = metric_name(metric)
    if ours is None:
        return f"This model says one number for all {rows}."
    if "tfidf" not in paired:
        return f"{capital(name)} {ours:.3f} on {rows}."
    title, theirs = models["tfidf"]["title"], models["tfidf"]["scores"][metric]["value"]
    low, high = paired["tfidf"]["interval"]
    better = paired["tfidf"]["difference"]
    if metric == "mean_squared_error":
        low, high, better = -high, -low, -better
    numbers = f"{name} {ours:.3f} against {theirs:.3f} on {rows}"
    if better <= 0:
        return f"This model does not beat {title}: {numbers}."
    if low <= 0:
        return f"This model does not surely beat {title}, it may be chance: {numbers}."
    return f"This model beats {title}: {numbers}."
