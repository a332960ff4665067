"""A short account of the data for the screen: what there is, and what may be wrong with it."""

import os.path
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_finetune.data.facts import FEW_ROWS
from tf_finetune.data.wording import aligned, escaped, rows_text, shown, wrapped

# With more labels than this, only the most and the least frequent are shown.
MOST_LABELS = 10
MOST_NOTICES = 8
# In a sentence at most so many names or groups of names are listed.
MOST_NAMES = 4


def data_report(facts: Mapping[str, Any]) -> str:
    """Describes all splits: rows, labels, repeated texts, and what is reached without learning.

    Args:
        facts: From `describe`.

    Returns:
        At most some 30 lines. Control characters of the data are escaped.
    """
    kind = facts["problem_type"]
    if kind != "regression":
        kind += f" ({len(facts['label_names'])} labels)"
    columns = ", ".join(map(shown, facts["text_columns"]))
    parts = [f"Data: {kind} on {columns}", *_row_table(facts)]
    labelled = _labelled(facts)
    if labelled:
        parts += _number_table(labelled) if kind == "regression" else _label_table(labelled)
    sentences = [*data_sentences(facts), *_notices(facts["notices"])]
    return "\n".join([*parts, *(line for sentence in sentences for line in wrapped(sentence))])


def data_sentences(facts: Mapping[str, Any]) -> list[str]:
    """Says what may be wrong: rare labels, repeated texts, what is reached without learning.

    Args:
        facts: From `describe`.

    Returns:
        A sentence each. Control characters of the data are escaped.
    """
    labelled = _labelled(facts)
    has_names = labelled and facts["problem_type"] != "regression"
    of_labels = _label_sentences(labelled, facts) if has_names else ()
    return [*of_labels, *_repeat_sentences(facts), *_baseline_sentences(facts)]


def length_report(lengths: Mapping[str, Any]) -> str:
    """Describes how long the rows are, how many are cut, and the share of tokens that is lost.

    Args:
        lengths: From `describe_lengths`.

    Returns:
        A table with a line per split, and what is done with rows that are too long, if any is.
    """
    cut_at = f"cut at {lengths['max_seq_length']}"
    if lengths["long_text"] == "window":
        cut_at = "in pieces"
    lines = [["tokens", "median", "90 %", "99 %", "longest", cut_at, "tokens lost"]]
    for split, part in lengths["splits"].items():
        marks = (part[name] for name in ("median", "percentile_90", "percentile_99", "longest"))
        cut, lost = part["cut_rows"], part["tokens_lost"] / max(1, part["tokens"])
        share = cut / max(1, part["rows"])
        lines.append(
            [split, *(f"{mark:.0f}" for mark in marks), f"{cut:,} ({share:.1%})", f"{lost:.1%}"]
        )
    sentences = [line for sentence in _long_sentences(lengths) for line in wrapped(sentence)]
    return "\n".join([*aligned(lines), *sentences])


_METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "mean_squared_error": "mean squared error",
    "root_mean_squared_error": "RMSE",
    "mean_absolute_error": "MAE",
}


def _long_sentences(lengths: Mapping[str, Any]) -> Iterator[str]:
    """Says what is done with rows that are too long."""
    room, reads, long_text = (
        lengths[name] for name in ("max_seq_length", "encoder_length", "long_text")
    )
    rows, cut = (
        sum(part[name] for part in lengths["splits"].values()) for name in ("rows", "cut_rows")
    )
    if not cut or long_text is None:
        return
    limit = f" (the encoder reads up to {reads:,})" if reads else ""
    if long_text == "window":
        done = "each is read whole, in overlapping pieces (--long_text=window)"
    else:
        kept = "beginning is" if long_text == "truncate" else "beginning and end are"
        done = f"only their {kept} read (--long_text={long_text}); --long_text=window reads all"
        if not reads or reads > room:
            done += ", a higher --max_seq_length more"
    yield f"{cut / rows:.1%} of the rows are longer than {room:,} tokens{limit}: {done}."


def _row_table(facts: Mapping[str, Any]) -> list[str]:
    lines = [["", "rows", "empty texts", "labels"]]
    for split, part in facts["splits"].items():
        rows, known = part["rows"], part["known_labels"]
        labelled = "yes" if known == rows else f"{known:,} known" if known else "no"
        name = f"{split} (a sample)" if facts["train_is_sample"] and split == "train" else split
        lines.append([name, f"{rows:,}", f"{part['empty_texts']:,}", labelled])
    return aligned(lines)


def _number_table(labelled: Mapping[str, Any]) -> list[str]:
    lines = [["label", "smallest", "mean", "largest", "std. dev."]]
    for split, part in labelled.items():
        lines.append([split, *(f"{number:.4g}" for number in part["labels"].values())])
    return aligned(lines)


def _label_table(labelled: Mapping[str, Any]) -> list[str]:
    counts = {split: part["labels"] for split, part in labelled.items()}
    first = next(iter(counts.values()))
    names = sorted(first, key=first.__getitem__, reverse=True)
    lines = [["label", *counts]]
    for place, name in enumerate(names):
        hidden = len(names) - MOST_LABELS if len(names) > MOST_LABELS else 0
        if hidden and place == MOST_LABELS // 2:
            lines.append([f"... {hidden} more", *("" for _ in counts)])
        if not hidden or not MOST_LABELS // 2 <= place < MOST_LABELS // 2 + hidden:
            cells = (
                f"{count[name]:,} ({count[name] / labelled[split]['known_labels']:.1%})"
                for split, count in counts.items()
            )
            lines.append([shown(name), *cells])
    return aligned(lines)


def _labelled(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the splits that have labels."""
    return {split: part for split, part in facts["splits"].items() if part["known_labels"]}


def _label_sentences(labelled: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    """Says what may be wrong with the names of labels and their rows."""
    split, part = next(iter(labelled.items()))
    missing = sum(count == 0 for count in part["labels"].values())
    if missing:
        yield f"{missing} of {len(part['labels'])} labels never occur in {split}."
    for split, part in labelled.items():
        if part.get("without_label"):
            yield f"{_rows(part['without_label'], split, 'have', 'has')} no label."
    rare = {name: count for name, count in facts["rare_labels"].items() if count}
    if rare:
        few = _listed(_counted(rare))
        what = "labels have" if len(rare) > 1 else "label has"
        yield f"{len(rare)} {what} fewer than {FEW_ROWS} rows in train: {few}."
    if facts["alike_labels"]:
        groups = [" = ".join(_counted(group)[:MOST_NAMES]) for group in facts["alike_labels"]]
        yield f"Labels that are equal but for case, accents or blanks: {_listed(groups)}."


def _repeat_sentences(facts: Mapping[str, Any]) -> list[str]:
    """Says which texts stand in the data more than once."""
    lines = []
    for split, told in facts["repeats"]["within"].items():
        if told["rows"]:
            line = f"{_rows(told['rows'], split, 'repeat', 'repeats')} an earlier row's text"
            other = told["other_label"]
            if other["rows"]:
                line += f", {other['rows']:,} with another label ({_example(other)})"
            lines.append(f"{line}.")
    for told in facts["repeats"]["across"]:
        split, earlier, equal, alike = (
            told[name] for name in ("split", "stand_in", "equal", "alike")
        )
        rows = equal["rows"] or alike["rows"]
        if rows:
            share = f"{split} ({rows / facts['splits'][split]['rows']:.1%})"
            line = f"{_rows(rows, share, 'stand', 'stands')} in {earlier}"
            if equal["rows"]:
                line += " too"
            if alike["rows"]:
                line += f", {alike['rows']:,} more" if equal["rows"] else ""
                line += f" but for case, blanks or outer punctuation ({_example(alike)})"
            lines.append(f"{line}.")
    return lines or ["No row occurs twice."]


def _rows(count: int, split: str, verb: str, verb_of_one: str) -> str:
    return f"{rows_text(count)} of {split} {verb if count != 1 else verb_of_one}"


def _baseline_sentences(facts: Mapping[str, Any]) -> Iterator[str]:
    """Says what is reached without learning."""
    baseline = facts["baseline"]
    if baseline is None:
        return
    says = baseline["says"]
    if isinstance(says, float):
        said = f"{says:.4g}"
    else:
        names = [says] if isinstance(says, str) else says
        said = _listed([f"'{shown(name)}'" for name in names]) or "no label"
    sample = ", from a sample of train" if facts["train_is_sample"] else ""
    scores = (
        ", ".join(
            f"{_METRICS[name]} {value:{'.4g' if 'error' in name else '.4f'}}"
            for name, value in scores.items()
        )
        + f" on {split}"
        for split, scores in baseline["splits"].items()
    )
    yield f"Always saying {said}{sample}: {'; '.join(scores)}."


def _notices(notices: Sequence[str]) -> list[str]:
    lines = [f"notice: {escaped(notice)}" for notice in notices[:MOST_NOTICES]]
    if len(notices) > MOST_NOTICES:
        lines.append(f"... {len(notices) - MOST_NOTICES} more: --data_report=<file>")
    return lines


def _counted(counts: Mapping[str, int]) -> list[str]:
    """Returns names with their rows, the fewest first."""
    return [
        f"'{shown(name)}' ({counts[name]:,})" for name in sorted(counts, key=counts.__getitem__)
    ]


def _listed(parts: Sequence[str]) -> str:
    hidden = len(parts) - MOST_NAMES
    return ", ".join(parts[:MOST_NAMES]) + (f", {hidden:,} more" if hidden > 0 else "")


def _example(told: Mapping[str, Any]) -> str:
    """Returns the first pair of rows; the folders of their files are left out."""
    one, other = (shown(os.path.basename(place)) for place in told["pairs"][0])
    return f"e.g. {one} and {other}"
