"""The page of a generator's report, from its numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.experiments import figures
from tf_finetune.experiments.compared import capital, metric_name
from tf_finetune.experiments.generator_report import KINDS, RIGHT
from tf_finetune.experiments.page import Cards, Figure, Figures, Section, Table, Text, render
from tf_finetune.experiments.run_page import advice, cost, curves, data, p_value, settings

_SHARES = ("exact_match", "normalized_match", "json_valid", "rouge_l", "stopped", "repeated")
_TITLES = {
    "empty": "nothing at all",
    "repeated": "goes round in a loop",
    "did not stop": "did not stop",
    "wrong format": "no JSON where the reference is",
    "wrong": "says something else",
}


def generator_page(report: Mapping[str, Any]) -> str:
    """Writes the page of `report_generator`."""
    subtitle = f"{report['model_dir']} · {report['settings'].get('model') or ''}"
    answers = report.get("answers", {})
    sections = [
        Section("How good it is", _comparison(report.get("comparison"))),
        Section("What to try next", advice(report["advice"])),
        Section("What is wrong", _kinds(report.get("kinds"))),
        *(Section(f"Answers: {_TITLES[kind]}", _cards(answers.get(kind), kind)) for kind in KINDS),
        Section("Answers to random rows", _cards(answers.get("random"), "random")),
        Section("Training", curves(report["curves"], "token_accuracy")),
        Section("Other results", _results(report["results"])),
        Section("What was run", [*settings(report), *data(report.get("data")), *cost(report)]),
        Section("What is missing here", [Text(text) for text in report["missing"]]),
    ]
    return render(report["headline"], subtitle, sections)


def _comparison(found: Mapping[str, Any] | None) -> list[Any]:
    if not found:
        return []
    columns = found["columns"]
    names = [name for name in _SHARES if name in columns["tuned"]]
    rows = []
    for name in names:
        cells = []
        for column in columns.values():
            low, high = column["intervals"][name]
            cells.append(f"{column[name]:.3f} ({low:.3f} to {high:.3f})")
        rows.append([metric_name(name), *cells])
    for name in ("loss", "perplexity", "mean_tokens"):
        values = [column.get(name) for column in columns.values()]
        if any(value is not None for value in values):
            cells = ["–" if value is None else f"{value:.3f}" for value in values]
            rows.append([metric_name(name), *cells])
    drawn = []
    for name in ("normalized_match", "rouge_l"):
        ordered = sorted(columns, key=lambda column: column != "tuned")
        svg = figures.intervals(
            ordered,
            [columns[column][name] for column in ordered],
            [columns[column]["intervals"][name] for column in ordered],
            f"{capital(metric_name(name))} with its 95 % interval",
        )
        drawn.append(Figure(svg, f"{capital(metric_name(name))}, with 95 % intervals."))
    caption = "Scores on the same rows, with 95 % intervals: Wilson's of shares, else bootstrap."
    blocks = [Figures(drawn), Table(caption, ["", *columns], rows)]
    if found["paired"]:
        blocks.append(_paired(found["paired"]))
    return blocks


def _paired(paired: Mapping[str, Any]) -> Table:
    rows = []
    for name, part in paired.items():
        if "p_value" in part:
            row = [f"{part['only_tuned']:,}", f"{part['only_base']:,}", p_value(part["p_value"])]
        else:
            low, high = part["interval"]
            row = ["–", "–", f"{part['difference']:+.3f} ({low:+.3f} to {high:+.3f})"]
        rows.append([metric_name(name), part["base"], *row])
    header = ["", "against", "only tuned right", "only base right", "McNemar's p, or difference"]
    return Table("The model against the base that is best in each score.", header, rows, (0, 1))


def _kinds(kinds: Mapping[str, Mapping[str, int]] | None) -> list[Any]:
    if not kinds:
        return []
    rows = [
        [_TITLES.get(kind, kind), *(f"{found[kind]:,}" for found in kinds.values())]
        for kind in (RIGHT, *KINDS)
    ]
    return [Table("Answers by what is wrong with them first.", ["", *kinds], rows)]


def _cards(answers: Sequence[Mapping[str, Any]] | None, kind: str) -> list[Any]:
    if not answers:
        return []
    cards = []
    for part in answers:
        card = [("prompt", part["prompt"]), ("reference", part["reference"])]
        card += part["answers"].items()
        cards.append([*card, *([("kind", part["kind"])] if kind == "random" else [])])
    return [Cards(cards, f"Answers: {kind}")]


def _results(results: Mapping[str, Any]) -> list[Any]:
    blocks = []
    for part in ("eval", "general", "preferences"):
        found = results.get(part)
        if not found:
            continue
        nested = all(isinstance(value, Mapping) for value in found.values())
        columns = found if nested else {part: found}
        names = dict.fromkeys(
            name
            for column in columns.values()
            for name, value in column.items()
            if isinstance(value, int | float)
        )
        rows = [
            [metric_name(name), *(_number(column.get(name)) for column in columns.values())]
            for name in names
        ]
        blocks.append(Table(f"Results: {part}.", ["", *columns], rows))
    return blocks


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
