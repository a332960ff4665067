"""Runs beside each other: what differs, what they reached, what they cost, which is best."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.experiments.outcomes import TEST, VALIDATION, Outcome

# Of these less is better.
_LESS = ("loss", "perplexity", "mean_squared_error", "mean_absolute_error")
COSTS = ("seconds", "peak_memory_bytes", "trained_weights")
# The scores that are told, as far as the runs have them.
_TOLD = (
    "accuracy",
    "f1",
    "macro_f1",
    "micro_f1",
    "matthews_correlation",
    "pearson",
    "spearman",
    "mean_squared_error",
    "normalized_match",
    "exact_match",
    "rouge_l",
    "loss",
)
_SEED = "seed"


def compare_runs(outcomes: Sequence[Outcome], sort: str | None) -> dict[str, Any]:
    """Compares runs.

    The best run is that of the best validation score. Where not all have one, it is chosen by test
    rows, and `warning` says so: its score is too good then, by as much as chance helped it.

    Args:
        outcomes: One or more.
        sort: The column that the runs are sorted by; None: the score that chooses.

    Returns:
        A JSON object: `flags`, the names of those that differ; `columns`, the names of the
        scores and costs; `chosen_by`, the column that chooses the best; the `runs`, sorted, each
        with `model_dir`, `flags`, `scores` (by column `value` and `interval`, which may be null)
        and `against_best` (null: it is the best, or was asked other rows); `seeds`, the runs that
        differ in nothing but the seed: `flags`, `runs`, and of each column `mean` and
        `deviation`; the `command` of the best; and `warning`, which may be empty.

    Raises:
        UserError: There is no such column, or the runs have no score in common.
    """
    columns = _columns(outcomes)
    flags = _differing(outcomes)
    chosen_by, warning = _chosen_by(outcomes, columns)
    values = {id(run): _values(run) for run in outcomes}
    best = _sorted(outcomes, [values[id(run)][chosen_by] for run in outcomes], chosen_by)[0]
    by = sort or chosen_by
    if by not in (*columns, *flags, "model_dir"):
        raise UserError(
            f"--sort={by}: no such column. There are {', '.join((*columns, *flags, 'model_dir'))}."
        )
    keys = [
        {**run.settings, "model_dir": str(run.model_dir), **values[id(run)]} for run in outcomes
    ]
    ordered = _sorted(outcomes, [key.get(by) for key in keys], by)
    return {
        "flags": flags,
        "columns": columns,
        "chosen_by": chosen_by,
        "sorted_by": by,
        "runs": [_told(run, values[id(run)], flags, columns, best) for run in ordered],
        "seeds": _over_seeds(outcomes, values, flags, columns),
        "best": str(best.model_dir),
        "command": f"python {best.program} --flagfile={best.model_dir}/train.cfg --model_dir=<new>",
        "warning": warning,
    }


def less_is_better(column: str) -> bool:
    """Whether less of a column is better."""
    return column in COSTS or column.partition("_")[2] in _LESS


def _columns(outcomes: Sequence[Outcome]) -> list[str]:
    """Returns the columns of scores and costs, each of a value in some run."""
    every = [_values(run) for run in outcomes]
    scores = [f"{split}_{name}" for split in (VALIDATION, TEST) for name in _TOLD]
    known = [n for n in (*scores, *COSTS) if any(n in values for values in every)]
    # Of one label a row, micro-F1 is the accuracy by another name.
    for split in (VALIDATION, TEST):
        pair = (f"{split}_accuracy", f"{split}_micro_f1")
        if all(values.get(pair[0]) == values.get(pair[1]) for values in every):
            known = [name for name in known if name != pair[1]]
    return known


def _values(run: Outcome) -> dict[str, float]:
    scores = {f"{split}_{n}": v for split, part in run.scores.items() for n, v in part.items()}
    return {**{name: run.cost[name] for name in COSTS if name in run.cost}, **scores}


def _differing(outcomes: Sequence[Outcome]) -> list[str]:
    names = dict.fromkeys(name for run in outcomes for name in run.settings)
    return [n for n in names if len({repr(run.settings.get(n)) for run in outcomes}) > 1]


def _chosen_by(outcomes: Sequence[Outcome], columns: Sequence[str]) -> tuple[str, str]:
    """Returns the column that chooses the best run, and what is to be known of it."""
    of_all = [name for name in columns if all(name in _values(run) for run in outcomes)]
    asked = [f"{split}_{outcomes[0].asked}" for split in (VALIDATION, TEST)]
    scores = [name for name in (asked[0], *of_all) if name in of_all and name not in COSTS]
    if asked[0] not in of_all and asked[1] in of_all:
        scores.sort(key=lambda name: (name.startswith(TEST), name != asked[1]))
    if not scores:
        raise UserError(
            f"{', '.join(str(run.model_dir) for run in outcomes)}: the runs have no score in "
            "common. Evaluate each on the same rows: --do_eval."
        )
    if len(outcomes) < 2 or scores[0].startswith(VALIDATION):
        return scores[0], ""
    return scores[0], (
        "Not all of these runs have a validation score, so the best is chosen by the test rows: "
        "its score there is too good, by as much as chance helped it."
    )


def _sorted(outcomes: Sequence[Outcome], keys: Sequence[Any], column: str) -> list[Outcome]:
    """Returns the best first; of flags, the least; runs without a value come last."""
    sign = 1 if less_is_better(column) or not column.startswith((VALIDATION, TEST)) else -1

    def key(place: int) -> tuple[Any, ...]:
        value = keys[place]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return (value is None, 0.0, "" if value is None else str(value))
        return (not math.isfinite(value), sign * value, "")

    return [outcomes[place] for place in sorted(range(len(outcomes)), key=key)]


def _told(
    run: Outcome,
    values: Mapping[str, float],
    flags: Sequence[str],
    columns: Sequence[str],
    best: Outcome,
) -> dict[str, Any]:
    scores = {}
    for column in columns:
        split, _, name = column.partition("_")
        if column in values:
            interval = run.rows.interval(name) if run.rows and _is_of(run, split) else None
            scores[column] = {"value": values[column], "interval": interval and list(interval)}
    return {
        "model_dir": str(run.model_dir),
        "flags": {name: run.settings.get(name) for name in flags},
        "scores": scores,
        "against_best": _against(run, best, columns),
    }


def _is_of(run: Outcome, split: str) -> bool:
    assert run.rows
    return run.rows.split == {VALIDATION: "validation"}.get(split, split)


def _against(run: Outcome, best: Outcome, columns: Sequence[str]) -> dict[str, Any] | None:
    """Compares a run with the best one on the rows that both were asked."""
    if run is best or run.rows is None or best.rows is None:
        return None
    if type(run.rows) is not type(best.rows) or run.rows.identity != best.rows.identity:
        return None
    names = [name.partition("_")[2] for name in columns]
    name = next((name for name in names if run.rows.interval(name)), None)
    return run.rows.difference(best.rows, name) | {"split": run.rows.split} if name else None


def _over_seeds(
    outcomes: Sequence[Outcome],
    values: Mapping[int, Mapping[str, float]],
    flags: Sequence[str],
    columns: Sequence[str],
) -> list[dict[str, Any]]:
    """Returns mean and deviation of runs that differ in the seed alone."""
    others = [name for name in flags if name != _SEED]
    groups: dict[str, list[Outcome]] = {}
    for run in outcomes:
        groups.setdefault(repr([run.settings.get(name) for name in others]), []).append(run)
    found = []
    for runs in groups.values():
        if len(runs) < 2:
            continue
        told = {}
        for column in columns:
            some = [values[id(run)][column] for run in runs if column in values[id(run)]]
            if len(some) > 1:
                told[column] = {"mean": statistics.fmean(some), "deviation": statistics.stdev(some)}
        settings = {name: runs[0].settings.get(name) for name in others}
        found.append({"flags": settings, "runs": len(runs), "scores": told})
    return found
