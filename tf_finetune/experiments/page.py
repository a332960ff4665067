"""A report as one page of HTML: everything in it, nothing fetched, every text escaped."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tf_finetune.data.wording import escaped


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        svg: From `figures`, which has escaped its texts.
        caption: A sentence below it; may be empty in a group.
        least: Its least width in pixels; where the page is narrower, it is scrolled by itself.
    """

    svg: str
    caption: str = ""
    least: int = 0
    kind: str = "figure"


@dataclass(frozen=True)
class Figures:
    """Figures side by side, as far as there is room."""

    parts: Sequence[Figure]
    kind: str = "figures"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: What it shows.
        header: The names of its columns.
        rows: Its cells, as text; the first of each row is its header.
        texts: The columns that hold texts, which are set to the left and may be long.
        emphasis: The row that stands out; None: none.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[int] = (0,)
    emphasis: int | None = None
    kind: str = "table"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Commands:
    """What to try.

    Attributes:
        parts: What was seen, what to try, and the command, of each.
    """

    parts: Sequence[tuple[str, str, str]]
    kind: str = "commands"


@dataclass(frozen=True)
class Cards:
    """Texts to read, such as errors.

    Attributes:
        parts: For each the pairs of a name and a text.
        label: What they are.
    """

    parts: Sequence[Sequence[tuple[str, str]]]
    label: str
    kind: str = "cards"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        blocks: What is in it.
    """

    title: str
    blocks: Sequence[Any] = field(default_factory=list)


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Writes a page.

    Args:
        title: Its first line, which says the most important thing.
        subtitle: The line below.
        sections: Its parts; those without content are left out.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    # Texts of the data may hold controls that turn the line around, or end it.
    environment.filters["shown"] = lambda text: escaped(str(text))
    environment.filters["lines"] = lambda text: "\n".join(map(escaped, text.split("\n")))
    filled = [section for section in sections if section.blocks]
    template = environment.from_string(_PAGE)
    return template.render(
        title=title, subtitle=subtitle, sections=filled, style=_STYLE, policy=_POLICY
    )


# Nothing runs and nothing is fetched, whatever a text may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2024; --muted: #5f6872;
  --line: #dfe3e8; --soft: #f5f7f9; --one: #1f5fbf; --other: #c2571a; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e4e7eb; --muted: #9aa4af;
  --line: #30363d; --soft: #1d2126; --one: #7aaef5; --other: #f0a070; } }
@media print { :root { color-scheme: light; --paper: #fff; --ink: #000; --muted: #444;
  --line: #ccc; --soft: #fff; --one: #1f5fbf; --other: #c2571a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 20px 80px; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 8px; font-weight: 650; }
h2 { font-size: 1.15rem; margin: 52px 0 12px; padding-top: 14px;
  border-top: 1px solid var(--line); }
p { margin: 8px 0; max-width: 74ch; }
.sub, nav, figcaption, caption, dt { color: var(--muted); font-size: 0.9rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 18px 0 0;
  padding: 0; }
a { color: var(--one); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr));
  gap: 20px 32px; align-items: start; }
figure { margin: 12px 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit; }
figure.wide svg { min-width: var(--least, 0); }
.scroll { overflow: auto; max-height: 560px; margin: 14px 0; }
.scroll.whole { max-height: none; }
.scroll:focus-visible, pre:focus-visible { outline: 2px solid var(--one); }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 6px; }
th, td { padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; font-weight: 400; }
thead th { color: var(--muted); position: sticky; top: 0; background: var(--paper); }
th.text, td.text { text-align: left; white-space: normal; min-width: 11em; }
tr.emphasis > * { font-weight: 650; }
.cards { display: grid; gap: 0; padding: 0; margin: 8px 0; list-style: none; }
.cards > li { padding: 10px 0; border-bottom: 1px solid var(--line); }
dl { display: grid; grid-template-columns: minmax(70px, max-content) 1fr; gap: 2px 16px;
  margin: 0; }
dd { margin: 0; white-space: pre-wrap; }
.commands { padding-left: 1.2em; margin: 8px 0; }
.commands > li { margin-bottom: 16px; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px;
  padding: 10px 12px; margin: 6px 0 0; overflow-x: auto; font-size: 0.85rem; }
@media (max-width: 600px) { main { padding: 24px 16px 60px; } h1 { font-size: 1.35rem; }
  dl { grid-template-columns: 1fr; } dt { margin-top: 4px; } }
@media print { nav { display: none; } pre { white-space: pre-wrap; }
  .scroll { max-height: none; overflow: visible; }
  figure, .cards > li, tr { break-inside: avoid; } main { padding: 0; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<link rel="icon" href="data:,">
<title>{{ title|shown }}</title>
<style>{{ style|safe }}</style>
</head>
<body>
<main>
<h1>{{ title|shown }}</h1>
<p class="sub">{{ subtitle|shown }}</p>
<nav aria-label="Contents"><ul>
{% for section in sections %}
<li><a href="#part-{{ loop.index }}">{{ section.title|shown }}</a></li>
{% endfor %}
</ul></nav>
{% for section in sections %}
<section aria-labelledby="part-{{ loop.index }}">
<h2 id="part-{{ loop.index }}">{{ section.title|shown }}</h2>
{% for block in section.blocks %}
{% if block.kind == "text" %}
<p>{{ block.text|shown }}</p>
{% elif block.kind == "figures" %}
<div class="grid">
{% for figure in block.parts %}
<figure>{{ figure.svg|safe }}
{% if figure.caption %}<figcaption>{{ figure.caption|shown }}</figcaption>{% endif %}
</figure>
{% endfor %}
</div>
{% elif block.kind == "figure" %}
<div class="scroll whole" tabindex="0" role="region" aria-label="{{ block.caption|shown }}">
<figure class="wide" style="--least: {{ block.least }}px">{{ block.svg|safe }}
<figcaption>{{ block.caption|shown }}</figcaption></figure></div>
{% elif block.kind == "table" %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ block.caption|shown }}">
<table>
<caption>{{ block.caption|shown }}</caption>
<thead><tr>
{% for name in block.header %}
<th scope="col"{% if loop.index0 in block.texts %} class="text"{% endif %}>{{ name|shown }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in block.rows %}
<tr{% if loop.index0 == block.emphasis %} class="emphasis"{% endif %}>
{% for cell in row %}
{% set class = ' class="text"' if loop.index0 in block.texts else '' %}
{% if loop.first %}<th scope="row"{{ class|safe }}>{{ cell|shown }}</th>
{% else %}<td{{ class|safe }}>{{ cell|shown }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table></div>
{% elif block.kind == "cards" %}
<ul class="cards" aria-label="{{ block.label|shown }}">
{% for item in block.parts %}
<li><dl>
{% for name, text in item %}
<dt>{{ name|shown }}</dt><dd>{{ text|shown }}</dd>
{% endfor %}
</dl></li>
{% endfor %}
</ul>
{% elif block.kind == "commands" %}
<ol class="commands">
{% for seen, tried, command in block.parts %}
<li>{{ seen|shown }} {{ tried|shown }}<pre tabindex="0"><code>{{ command|lines }}</code></pre></li>
{% endfor %}
</ol>
{% endif %}
{% endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
