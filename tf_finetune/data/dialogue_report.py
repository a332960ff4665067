"""A short account of prompts and conversations for the screen."""

import os.path
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_finetune.data.wording import aligned, escaped, rows_text, shown, wrapped

MOST_NOTICES = 8
MOST_ROLES = 6


def dialogue_report(facts: Mapping[str, Any]) -> str:
    """Describes all splits: rows, turns, roles, empty answers, repeated rows.

    Args:
        facts: From `dialogue_facts`.

    Returns:
        At most some 20 lines. Control characters of the data are escaped.
    """
    forms = dict.fromkeys(form for part in facts["splits"].values() for form in part["forms"])
    lines = [f"Data: {', '.join(forms)}", *_row_table(facts)]
    sentences = dialogue_sentences(facts)
    notices = facts["notices"]
    sentences += [f"notice: {escaped(notice)}" for notice in notices[:MOST_NOTICES]]
    if len(notices) > MOST_NOTICES:
        sentences.append(f"... {len(notices) - MOST_NOTICES} more: --data_report=<file>")
    return "\n".join([*lines, *(line for sentence in sentences for line in wrapped(sentence))])


def dialogue_sentences(facts: Mapping[str, Any]) -> list[str]:
    """Says what may be wrong: turns of each role, empty answers, repeated rows.

    Args:
        facts: From `dialogue_facts`.

    Returns:
        A sentence each. Control characters of the data are escaped.
    """
    return [*_turn_sentences(facts["splits"]), *_repeat_sentences(facts)]


def token_report(tokens: Mapping[str, Mapping[str, Any]]) -> str:
    """Describes how long the rows are in tokens, how many are cut, and how many left out.

    Args:
        tokens: From `token_facts`, for each split.

    Returns:
        A table with a line per split.
    """
    longest = next(iter(tokens.values()))["max_seq_length"]
    header = ["tokens", "median", "90 %", "99 %", "longest", "total", "answers"]
    lines = [[*header, f"cut at {longest}", "left out"]]
    for split, part in tokens.items():
        marks = (part[name] for name in ("median", "percentile_90", "percentile_99", "longest"))
        counts = (f"{part[name]:,}" for name in ("tokens", "answer_tokens"))
        lost = (
            f"{part[name]:,} ({part[name] / max(1, part['rows']):.1%})"
            for name in ("cut_rows", "dropped_rows")
        )
        lines.append([split, *(f"{mark:.0f}" for mark in marks), *counts, *lost])
    return "\n".join(aligned(lines))


def _row_table(facts: Mapping[str, Any]) -> list[str]:
    lines = [["", "rows", "turns", "most", "learnt", "no answer", "characters", "longest"]]
    for split, part in facts["splits"].items():
        name = f"{split} (a sample)" if facts["train_is_sample"] and split == "train" else split
        names = ("rows", "turns", "most_turns", "trained_turns", "without_answer", "characters")
        longest = part["longest"]
        length = longest["characters"] if longest else 0
        lines.append([name, *(f"{part[name]:,}" for name in names), f"{length:,}"])
    return aligned(lines)


def _turn_sentences(splits: Mapping[str, Any]) -> Iterator[str]:
    for split, part in splits.items():
        if roles := part["roles"]:
            listed = ", ".join(f"{role} {n:,}" for role, n in list(roles.items())[:MOST_ROLES])
            yield f"Turns of {split}: {listed}."
        if part["empty_answers"]:
            verb = "has" if part["empty_answers"] == 1 else "have"
            yield f"{rows_text(part['empty_answers'])} of {split} {verb} an empty answer."
        if others := part["empty_turns"] - part["empty_answers"]:
            what = "turn of {} holds" if others == 1 else "turns of {} hold"
            yield f"{others:,} {what.format(split)} no text."


def _repeat_sentences(facts: Mapping[str, Any]) -> Sequence[str]:
    sentences: list[str] = []
    for split, told in facts["repeats"]["within"].items():
        sentences += _kinds(told, split, "an earlier row", facts)
    for told in facts["repeats"]["across"]:
        sentences += _kinds(told, told["split"], f"a row of {told['stand_in']}", facts)
    return sentences or ["No row occurs twice."]


def _kinds(
    told: Mapping[str, Any], split: str, other: str, facts: Mapping[str, Any]
) -> Iterator[str]:
    total = facts["splits"][split]["rows"]
    ends = {
        "equal": f"equal {other}",
        "alike": f"equal {other} but for case, blanks or outer punctuation",
        "same_prompt": f"have the prompt of {other}, and another answer",
    }
    for kind, end in ends.items():
        if count := told[kind]["rows"]:
            end = end.replace("equal", "equals").replace("have", "has") if count == 1 else end
            one, two = (shown(os.path.basename(place)) for place in told[kind]["pairs"][0])
            yield f"{rows_text(count)} of {split} ({count / total:.1%}) {end} ({one} and {two})."
