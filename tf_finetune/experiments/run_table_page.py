"""A comparison of runs as text for a terminal, and as a page."""

from collections.abc import Mapping
from typing import Any

from tf_finetune.data.wording import aligned
from tf_finetune.experiments.compared import capital, metric_name
from tf_finetune.experiments.outcomes import TEST, VALIDATION
from tf_finetune.experiments.page import Commands, Section, Table, Text
from tf_finetune.experiments.run_page import p_value

_COSTS = {
    "seconds": ("training, s", 1, ",.0f"),
    "peak_memory_bytes": ("memory, GB", 1e-9, ",.2f"),
    "trained_weights": ("trained weights", 1, ",.0f"),
}
_SPLITS = {VALIDATION: "validation", TEST: "test"}


def run_table_text(table: Mapping[str, Any]) -> str:
    """Lays out a comparison for a terminal.

    Args:
        table: From `run_table.compare_runs`.
    """
    lines = [*aligned([_header(table), *_rows(table)])]
    if table["seeds"]:
        lines += ["", *aligned([_seed_header(table), *_seed_rows(table)])]
    if table["warning"]:
        lines += ["", f"warning: {table['warning']}"]
    return "\n".join([*lines, "", f"best       {table['best']}", f"  {table['command']}"])


def run_table_sections(table: Mapping[str, Any]) -> tuple[str, str, list[Section]]:
    """Lays out a comparison for a page: its title, the line below, and its sections."""
    column, runs = table["chosen_by"], table["runs"]
    found = next(run for run in runs if run["model_dir"] == table["best"])
    score = found["scores"][column]["value"]
    title = f"The best of {len(runs)} runs is {table['best']}: {_name(column)} {score:.3f}"
    place = runs.index(found)
    caption = (
        f"Sorted by {_name(table['sorted_by'])}. In brackets: 95 % intervals. The last column is "
        "the difference to the best run, by paired resamples and McNemar's test, where both were "
        "evaluated on the same rows."
    )
    main = [Table(caption, _header(table), _rows(table), emphasis=place)]
    seeds = []
    if table["seeds"]:
        caption = "Runs that differ in nothing but the seed: mean and standard deviation."
        seeds = [Table(caption, _seed_header(table), _seed_rows(table))]
    command = ("This is the best run.", "To train it again:", table["command"])
    sections = [
        Section("Runs", [*([Text(table["warning"])] if table["warning"] else []), *main]),
        Section("Over seeds", seeds),
        Section("Again", [Commands([command])]),
    ]
    return title, f"Chosen by {_name(column)}.", sections


def _name(column: str) -> str:
    if column in _COSTS:
        return _COSTS[column][0]
    split, _, score = column.partition("_")
    return f"{_SPLITS[split]} {metric_name(score)}" if split in _SPLITS else f"--{column}"


def _header(table: Mapping[str, Any]) -> list[str]:
    names = [capital(_name(column)) for column in table["columns"]]
    flags = [f"--{name}" for name in table["flags"]]
    return ["run", *flags, *names, "against the best"]


def _rows(table: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            run["model_dir"],
            *(_flag(run["flags"][name]) for name in table["flags"]),
            *(_score(column, run["scores"].get(column)) for column in table["columns"]),
            _against(run["against_best"], run["model_dir"] == table["best"]),
        ]
        for run in table["runs"]
    ]


def _seed_header(table: Mapping[str, Any]) -> list[str]:
    flags = [f"--{name}" for name in table["flags"] if name != "seed"]
    return ["seeds", *flags, *(capital(_name(column)) for column in table["columns"])]


def _seed_rows(table: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            str(group["runs"]),
            *map(_flag, group["flags"].values()),
            *(_spread(column, group["scores"].get(column)) for column in table["columns"]),
        ]
        for group in table["seeds"]
    ]


def _flag(value: Any) -> str:
    if value is None or value == ():
        return "–"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(column: str, value: float) -> str:
    _, scale, form = _COSTS.get(column, ("", 1, ".4f"))
    return f"{value * scale:{form}}"


def _score(column: str, score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "–"
    text = _number(column, score["value"])
    if score["interval"]:
        low, high = score["interval"]
        text += f" [{low:.3f}, {high:.3f}]"
    return text


def _spread(column: str, spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return "–"
    mean, deviation = (_number(column, spread[name]) for name in ("mean", "deviation"))
    return f"{mean} ± {deviation}"


def _against(found: Mapping[str, Any] | None, is_best: bool) -> str:
    if is_best:
        return "best"
    if found is None:
        return "–"
    low, high = found["interval"]
    text = f"{metric_name(found['score'])} {found['difference']:+.4f} [{low:+.3f}, {high:+.3f}]"
    return f"{text}, p {p_value(found['p_value'])}" if "p_value" in found else text
