"""The parts of a report's page that are those of every run: curves, settings, data, cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.experiments import figures
from tf_finetune.experiments.compared import capital, metric_name
from tf_finetune.experiments.page import Commands, Figure, Figures, Table

_COST = {
    "seconds": ("training, s", ",.0f"),
    "steps": ("steps", ",d"),
    "epochs": ("epochs", ".3g"),
    "steady_examples_per_second": ("rows a second, after the first step", ",.1f"),
    "tokens_per_second": ("tokens a second", ",.0f"),
    "first_step_seconds": ("first step, s", ",.1f"),
    "peak_memory_bytes": ("most memory, GB", ",.2f"),
    "weights": ("weights", ",d"),
    "trained_weights": ("weights that were trained", ",d"),
    "best_step": ("step of the best weights", ",d"),
}

_EXPORT = {
    "score": ("score", ".4f"),
    "points lost": ("loss", ".2f"),
    "rows a second": ("rows_per_second", ",.0f"),
    "ms a row": ("milliseconds", ",.1f"),
    "MB": ("megabytes", ",.1f"),
    "weights": ("weights", ",d"),
}
_PRICED = {"teacher": "the teacher", "model": "this model"}


def curves(points: Sequence[Mapping[str, Any]], score: str) -> list[Any]:
    """Returns the curves of the loss, of a score and of the rate, as far as they were logged."""
    drawn = []
    named = {"loss": "Loss", score: capital(metric_name(score)), "learning_rate": "Rate"}
    for name, title in named.items():
        if svg := figures.curves(points, name, f"{title} over the training"):
            drawn.append(Figure(svg, f"{title}."))
    return [Figures(drawn)] if drawn else []


def advice(found: Sequence[Mapping[str, str]]) -> list[Any]:
    """Returns what to try next."""
    return [Commands([(part["seen"], part["try"], part["command"]) for part in found])]


def p_value(value: float) -> str:
    """Returns the value of a test as it is written."""
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def settings(report: Mapping[str, Any]) -> list[Any]:
    """Returns the flags that made the model."""
    rows = [[f"--{name}", _value(value)] for name, value in report["settings"].items()]
    return [Table("The flags that made the model.", ["flag", "value"], rows, texts=(0, 1))]


def data(facts: Mapping[str, Any] | None) -> list[Any]:
    """Returns the rows of each split."""
    if not facts or "splits" not in facts:
        return []
    lengths = (facts.get("lengths") or {}).get("splits") or facts.get("tokens") or {}
    rows = []
    for split, part in facts["splits"].items():
        row = [split, f"{part['rows']:,}"]
        if length := lengths.get(split):
            marks = (length[name] for name in ("median", "percentile_99"))
            row += [*(f"{mark:.0f}" for mark in marks), f"{length['cut_rows']:,}"]
        else:
            row += ["–", "–", "–"]
        rows.append(row)
    header = ["split", "rows", "tokens, median", "tokens, 99 %", "rows that are cut"]
    return [Table("The data.", header, rows)]


def cost(report: Mapping[str, Any]) -> list[Any]:
    """Returns the time, memory and size of the training."""
    found = dict(report.get("cost") or {})
    if "peak_memory_bytes" in found:
        found["peak_memory_bytes"] /= 1e9
    rows = [
        [title, f"{found[name]:{form}}"] for name, (title, form) in _COST.items() if found.get(name)
    ]
    return [Table("What the training has cost.", ["", "value"], rows)] if rows else []


def prices(report: Mapping[str, Any]) -> list[Any]:
    """Returns what an answer of the teacher, the model and its exports costs, and is worth."""
    models = report.get("prices") or {}
    weights = {"weights": models["model"]["weights"]} if "model" in models else {}
    found = {_PRICED[name]: models[name] for name in _PRICED if name in models}
    found |= {name: {**weights, **one} for name, one in (report.get("exports") or {}).items()}
    rows = [
        [
            f"{name}, {one['quantization']}",
            *(f"{one[key]:{form}}" if key in one else "–" for key, form in _EXPORT.values()),
        ]
        for name, one in found.items()
    ]
    caption = (
        "From raw texts to logits, on the machine that trained or exported it; points are "
        "hundredths of the score, against this model."
    )
    return [Table(caption, ["", *_EXPORT], rows)] if rows else []


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
