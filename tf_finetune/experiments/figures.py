"""Figures as inline SVG, whose colours are the page's own, so that they are light and dark."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

from tf_finetune.data.wording import shown

# matplotlib knows no CSS: it draws in these colours, which then become the page's.
_INK, _MUTED, _LINE, _ONE, _OTHER = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
_COLOURS = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _ONE: "var(--one)",
    _OTHER: "var(--other)",
}
_STYLE: Any = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
}
WIDTH, HEIGHT = 4.4, 2.7


@contextmanager
def _drawn(title: str, description: str, size: tuple[float, float]) -> Iterator[Any]:
    """Yields axes and a list that gets the SVG when the block ends."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    svg: list[str] = []
    with rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        # Of letters that the font lacks; the browser has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=size, layout="constrained")
        yield figure.add_subplot(), svg
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    svg.append(_inline(file.getvalue(), title, description))


def _inline(svg: str, title: str, description: str) -> str:
    """Makes a part of a page from a file of SVG."""
    svg = svg[svg.index("<svg") :]
    inner = svg[svg.index(">") + 1 :]
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box
    width = float(box[1].split()[2])
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    inner = re.sub(r'<g id="[^"]*">', "<g>", inner)
    # A size alone: the family is the page's.
    inner = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", inner)
    for colour, name in _COLOURS.items():
        inner = inner.replace(colour, name)
    return (
        f'<svg role="img" aria-label="{escape(f"{title}. {description}")}" viewBox="{box[1]}" '
        f'style="max-width:{width * 4 / 3:.0f}px"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{inner}"
    )


def curves(points: Sequence[Mapping[str, Any]], name: str, title: str) -> str | None:
    """Draws a number of the log over the epochs; None: it is not there.

    Args:
        points: Of the log.
        name: The number.
        title: The figure's.
    """
    lines = {}
    for split in ("train", "validation"):
        found = [
            (point["epoch"], point[name])
            for point in points
            if point.get("split") == split and isinstance(point.get(name), int | float)
        ]
        if found:
            lines[split] = found
    if not lines:
        return None
    ends = "; ".join(f"{split} ends at {found[-1][1]:.4g}" for split, found in lines.items())
    with _drawn(title, f"{ends}.", (WIDTH, HEIGHT)) as (axes, svg):
        for split, found in lines.items():
            style = {"color": _ONE, "marker": "o", "markersize": 4}
            if split == "train":
                style = {"color": _OTHER, "linewidth": 1.2}
            axes.plot(*zip(*found, strict=True), label=split, **style)
        axes.set_xlabel("epoch")
        axes.ticklabel_format(axis="y", scilimits=(-3, 5))
        if len(lines) > 1:
            axes.legend()
    return svg[0]


def intervals(
    names: Sequence[str],
    values: Sequence[float],
    ranges: Sequence[Sequence[float]],
    title: str,
    emphasis: bool = True,
) -> str:
    """Draws values with their intervals, one below the other; the first may stand out."""
    said = (
        f"{name}: {value:.3f} ({low:.3f} to {high:.3f})"
        for name, value, (low, high) in zip(names, values, ranges, strict=True)
    )
    size = (WIDTH, 0.7 + 0.34 * len(names))
    with _drawn(title, "; ".join(said) + ".", size) as (axes, svg):
        for place, (value, (low, high)) in enumerate(zip(values, ranges, strict=True)):
            colour = _OTHER if emphasis and place else _ONE
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot([value], [place], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(names)), [shown(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(False, axis="y")
    return svg[0]


def reliability(found: Mapping[str, Any]) -> str:
    """Draws how often a model is right over how sure it is."""
    error = found["expected_calibration_error"]
    title, bins = "How often it is right, by how sure it is", found["bins"]
    said = "; ".join(
        f"sure {part['confidence']:.2f}, right {part['right']:.2f} ({part['predictions']:,})"
        for part in bins
    )
    with _drawn(title, f"{said}. ECE {error:.3f}.", (WIDTH, HEIGHT)) as (axes, svg):
        axes.plot([0, 1], [0, 1], color=_MUTED, linestyle=":", linewidth=1)
        sure, right = ([part[name] for part in bins] for name in ("confidence", "right"))
        axes.plot(sure, right, color=_ONE)
        most = max(part["predictions"] for part in bins)
        sizes = [12 + 90 * part["predictions"] / most for part in bins]
        axes.scatter(sure, right, sizes, color=_ONE)
        axes.set(xlabel="probability", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    return svg[0]


def coverage(found: Mapping[str, Any]) -> str:
    """Draws the accuracy of the surest answers over their share of the rows."""
    title = "Accuracy over the share of rows answered"
    said = f"All rows: {found['accuracy'][-1]:.3f}."
    with _drawn(title, said, (WIDTH, HEIGHT)) as (axes, svg):
        axes.plot(found["coverage"], found["accuracy"], color=_ONE)
        axes.set(xlabel="share of rows answered", ylabel="accuracy of the answers", xlim=(0, 1.02))
    return svg[0]


def precision_recall(found: Mapping[str, Any]) -> str:
    """Draws precision over recall."""
    title = "Precision and recall at every threshold"
    said = f"Average precision {found['average_precision']:.3f}."
    with _drawn(title, said, (WIDTH, HEIGHT)) as (axes, svg):
        axes.plot(found["recall"], found["precision"], color=_ONE)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    return svg[0]


def confusion(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draws a confusion matrix: the share of each true label's rows, numbers where they fit."""
    from matplotlib.patches import Rectangle

    size = max(3.2, 1.6 + 0.14 * len(names) if len(names) > 15 else 1.8 + 0.42 * len(names))
    right = sum(row[place] for place, row in enumerate(counts))
    total = max(1, sum(map(sum, counts)))
    said = f"{right:,} of {total:,} rows are on the diagonal."
    small = 7 if len(names) > 40 else 8 if len(names) > 15 else 9
    with _drawn("Confusion matrix", said, (size, size)) as (axes, svg):
        for true, row in enumerate(counts):
            for place, count in enumerate(row):
                if not count:
                    continue
                share = count / sum(row)
                colour = _ONE if true == place else _OTHER
                axes.add_patch(
                    Rectangle(
                        (place - 0.5, true - 0.5),
                        1,
                        1,
                        color=colour,
                        alpha=0.12 + 0.7 * share,
                        lw=0,
                    )
                )
                if len(names) <= 15:
                    text = f"{count:,}"
                    axes.text(place, true, text, ha="center", va="center", fontsize=small)
        labels = [shown(name) for name in names]
        turned = 0 if sum(map(len, labels)) < 24 else 90
        axes.set_xticks(range(len(names)), labels, rotation=turned, fontsize=small)
        axes.set_yticks(range(len(names)), labels, fontsize=small)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        axes.grid(visible=False)
    return svg[0]


def numbers(pairs: Sequence[Sequence[float]]) -> str:
    """Draws predicted over true numbers."""
    step = max(1, len(pairs) // 1_500)
    some = pairs[::step]
    truth, said = zip(*some, strict=True)
    low, high = min(*truth, *said), max(*truth, *said)
    text = f"{len(some):,} of {len(pairs):,} rows; the dotted line is where both are equal."
    with _drawn("Predicted and true numbers", text, (WIDTH, 3.4)) as (axes, svg):
        axes.plot([low, high], [low, high], color=_MUTED, linestyle=":", linewidth=1)
        axes.scatter(truth, said, 7, color=_ONE, alpha=0.3, linewidths=0)
        axes.set(xlabel="true", ylabel="predicted")
    return svg[0]
