"""The page of a classifier's report, from its numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.data.wording import shown
from tf_finetune.experiments import figures
from tf_finetune.experiments.compared import capital, metric_name
from tf_finetune.experiments.page import (
    Cards,
    Figure,
    Figures,
    Section,
    Table,
    Text,
    render,
)
from tf_finetune.experiments.run_page import advice, cost, curves, data, p_value, prices, settings

# Wider matrices are scrolled.
_LEAST_MATRIX = 960
_MANY_LABELS = 15


def classifier_page(report: Mapping[str, Any]) -> str:
    """Writes the page of `report_classifier`."""
    problem = report["problem"]
    what = problem["type"].replace("_", " ")
    if problem["labels"]:
        what += f", {len(problem['labels'])} labels"
    subtitle = f"{report['model_dir']} · {what} · {report['settings'].get('encoder') or ''}"
    sections = [
        Section("How good it is", _comparison(report.get("comparison"))),
        Section("What to try next", advice(report["advice"])),
        Section("Training", curves(report["curves"], _score_of(report))),
        Section("Where it errs", _confusion(report)),
        Section("How sure it is", _sureness(report)),
        Section("By label", _labels(report.get("by_label"))),
        Section("By part of the data", _parts(report)),
        Section("The worst errors", _errors(report.get("errors"))),
        Section("Labels that look wrong", _mislabelled(report.get("mislabelled"))),
        Section("Texts in two splits", _duplicates(report.get("duplicates"))),
        Section("What was run", [*settings(report), *data(report.get("data")), *cost(report)]),
        Section("What an answer costs", prices(report)),
        Section("What is missing here", [Text(text) for text in report["missing"]]),
    ]
    return render(report["headline"], subtitle, sections)


def _score_of(report: Mapping[str, Any]) -> str:
    return report["comparison"]["metric"] if "comparison" in report else "accuracy"


def _comparison(found: Mapping[str, Any] | None) -> list[Any]:
    if not found:
        return []
    models, metric = found["models"], found["metric"]
    names = list(next(iter(models.values()))["scores"])
    rows = []
    for model in models.values():
        cells = []
        for score in names:
            part = model["scores"][score]
            if part["value"] is None:
                cells.append("–")
                continue
            low, high = part["interval"]
            cells.append(f"{part['value']:.3f} ({low:.3f} to {high:.3f})")
        title = model["title"] + (f" ({model['note']})" if model["note"] else "")
        rows.append([title, *cells])
    known = [model for model in models.values() if model["scores"][metric]["value"] is not None]
    drawn = figures.intervals(
        [model["title"] for model in known],
        [model["scores"][metric]["value"] for model in known],
        [model["scores"][metric]["interval"] for model in known],
        f"{capital(metric_name(metric))} with its 95 % interval",
    )
    blocks: list[Any] = [
        Figures([Figure(drawn, f"{capital(metric_name(metric))}, with 95 % intervals.")]),
        Table(
            "Scores on the same rows, with 95 % intervals: Wilson's of accuracy, else by 1,000 "
            "resamples of the rows.",
            ["", *map(metric_name, names)],
            rows,
            emphasis=0,
        ),
    ]
    if found["paired"]:
        blocks.append(_paired(found))
    return blocks


def _paired(found: Mapping[str, Any]) -> Table:
    rows, header = [], ["against", f"difference in {metric_name(found['metric'])}", "95 % interval"]
    with_test = any("mcnemar" in part for part in found["paired"].values())
    if with_test:
        header += ["only this right", "only the other right", "McNemar's p"]
    for name, part in found["paired"].items():
        low, high = part["interval"]
        row = [
            found["models"][name]["title"],
            f"{part['difference']:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
        ]
        if test := part.get("mcnemar"):
            row += [f"{test['only_tuned']:,}", f"{test['only_base']:,}", p_value(test["p_value"])]
        rows.append(row)
    return Table("This model against each other one, row by row.", header, rows)


def _confusion(report: Mapping[str, Any]) -> list[Any]:
    if "numbers" in report:
        drawn = figures.numbers(report["numbers"])
        return [Figures([Figure(drawn, "Each row's predicted number over its true one.")])]
    found = report.get("confusion")
    if not found:
        return []
    blocks: list[Any] = []
    if "counts" in found:
        names = found["labels"]
        caption = "Rows are true labels, columns predicted ones; the darker, the greater the share."
        least = 0
        if len(names) > _MANY_LABELS:
            caption += " Labels that are confused stand together."
            least = _LEAST_MATRIX
        blocks.append(Figure(figures.confusion(names, found["counts"]), caption, least))
    rows = [
        [pair["truth"], pair["said"], f"{pair['rows']:,}", f"{pair['share']:.0%}"]
        for pair in found["pairs"]
    ]
    if rows:
        header = ["true", "taken for", "rows", "of the true label's"]
        caption = "The worst pairs."
        if "counts" not in found:
            header[:2] = ["missed", "said in its row"]
            caption = "Pairs of a label that was missed and one that was wrong in the same row."
        blocks.append(Table(caption, header, rows, texts=(0, 1)))
    else:
        blocks.append(Text("No label is taken for another."))
    return blocks


def _sureness(report: Mapping[str, Any]) -> list[Any]:
    found = report.get("reliability")
    if not found:
        return []
    error = found["expected_calibration_error"]
    parts = [
        Figure(
            figures.reliability(found),
            "On the dotted line a probability is what it says. Expected calibration error "
            f"{error:.3f}.",
        )
    ]
    if curve := report.get("precision_recall"):
        caption = f"Average precision {curve['average_precision']:.3f}."
        parts.append(Figure(figures.precision_recall(curve), caption))
    answered = report.get("coverage")
    if not answered:
        return [Figures(parts)]
    caption = "Accuracy of the answers, if only the surest rows are answered."
    parts.append(Figure(figures.coverage(answered), caption))
    rows = [
        [
            f"{part['reject_below']:g}",
            f"{part['coverage']:.1%}",
            "–" if part["accuracy"] is None else f"{part['accuracy']:.3f}",
        ]
        for part in answered["choices"]
    ]
    header = ["--reject_below", "rows answered", "accuracy of the answers"]
    return [Figures(parts), Table("What refusing unsure answers gives.", header, rows)]


def _labels(labels: Sequence[Mapping[str, Any]] | None) -> list[Any]:
    if not labels:
        return []
    rows = [
        [
            part["label"],
            "–" if part["train_rows"] is None else f"{part['train_rows']:,}",
            f"{part['rows']:,}",
            f"{part['predicted']:,}",
            *(f"{part[name]:.3f}" for name in ("precision", "recall", "f1")),
        ]
        for part in sorted(labels, key=lambda part: part["f1"])
    ]
    header = ["label", "trained on", "rows", "predicted", "precision", "recall", "F1"]
    return [Table("Each label, the worst first.", header, rows)]


def _parts(report: Mapping[str, Any]) -> list[Any]:
    found = {}
    if "by_length" in report:
        found["by the characters of the text"] = report["by_length"]
    for name, part in report.get("by_column", {}).items():
        found[f"by {name}"] = part
    drawn = []
    for title, part in found.items():
        metric, parts = metric_name(part["metric"]), part["parts"]
        svg = figures.intervals(
            [f"{shown(value['value'])} ({value['rows']:,})" for value in parts],
            [value["score"] for value in parts],
            [value["interval"] for value in parts],
            f"{capital(metric)} {title}",
            emphasis=False,
        )
        caption = f"{capital(metric)} {title} (rows), with 95 % intervals."
        drawn.append(Figure(svg, caption))
    return [Figures(drawn)] if drawn else []


def _errors(errors: Sequence[Mapping[str, Any]] | None) -> list[Any]:
    if not errors:
        return []
    cards = [
        [
            *part["texts"].items(),
            ("true", part["truth"]),
            ("predicted", f"{part['said']} (off by {part['by']:.2f})"),
        ]
        for part in errors
    ]
    return [Text("The rows that are furthest off, the worst first."), Cards(cards, "Errors")]


def _mislabelled(found: Mapping[str, Any] | None) -> list[Any]:
    if not found or not found["rows"]:
        return []
    counted = (
        f"{found['count']:,} of {found['examined']:,} training rows"
        if found["count"] is not None
        else "These training rows"
    )
    text = (
        f"{counted} are surely contradicted by TF-IDF with a linear model that has not seen them "
        "(out of fold, 3 parts). Some are wrong labels, some are only hard: read them. The worst "
        "first."
    )
    cards = [
        [
            *part["texts"].items(),
            ("label", part["label"]),
            ("looks like", part["said"]),
            ("where", part["location"]),
        ]
        for part in found["rows"]
    ]
    return [Text(text), Cards(cards, "Rows that look mislabelled")]


def _duplicates(found: Mapping[str, Any] | None) -> list[Any]:
    if not found:
        return []
    equal, alike, near = (found[name]["rows"] for name in ("equal", "alike", "near"))
    if not equal + alike + near:
        return [Text("No evaluated text, or nearly the same one, was trained on.")]
    text = (
        f"Of the evaluated rows {equal:,} have a text that was trained on, {alike:,} one that "
        f"differs in case, blanks or outer punctuation only, and {near:,} nearly the same words "
        "(cosine of TF-IDF 0.9 or more). A right answer to them says little."
    )
    cards = [
        [("evaluated", pair["text"]), ("trained on", pair["train_text"])]
        for pair in near_pairs(found)
    ]
    return [Text(text), *([Cards(cards, "Nearly the same texts")] if cards else [])]


def near_pairs(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Returns the first pairs of nearly equal texts."""
    return found["near"]["pairs"][:8]
