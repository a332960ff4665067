"""Base and tuned model side by side on the same rows."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_finetune.data.wording import aligned
from tf_finetune.errors import UserError
from tf_finetune.generation.answers import Answer, Question
from tf_finetune.generation.samples import sample_text
from tf_finetune.generation.scores import score_answers, summarize
from tf_finetune.generation.significance import RESAMPLES, bootstrap_interval, mcnemar

TUNED = "tuned"
RANDOM_ROWS = 8
WORST_ROWS = 4
_MATCHES = ("exact_match", "normalized_match")
# Those that are not a mean over rows.
_COUNTS = ("examples", "answer_tokens")


@dataclass(frozen=True)
class Evaluated:
    """What one model did, asked in one way.

    Attributes:
        answers: Its answer to each row.
        losses: From `loss_metrics`; may be empty.
    """

    answers: Sequence[Answer]
    losses: Mapping[str, Any]


def compare(
    questions: Sequence[Question], evaluated: Mapping[str, Evaluated], seed: int
) -> dict[str, Any]:
    """Compares models on the same rows.

    The base model has its best chance: for each score, the tuned one is compared with that column
    of the base, plain, told the format or shown examples, which is best in this score.

    Args:
        questions: The rows, each with a reference.
        evaluated: What each did, by the name of its column; `tuned` is the tuned model, all others
            are the base model. The order is kept, and of equal ones the earlier counts as better.
        seed: Of the random rows and of the bootstrap.

    Returns:
        An object for metrics.json:
        `columns`: by name the losses and the result of `summarize`.
        `best_base`: the column of the base with most normalized matches, then the greatest ROUGE-L;
            null without one, as are the next two.
        `paired`: for `exact_match`, `normalized_match` and `rouge_l` the `base` column, and the
            result of `mcnemar`, or the `difference` of the means with its `interval`.
        `samples`: rows, counted from 0: `random` with their `seed`; `worst`, where the tuned model
            is not right and has the least ROUGE-L; `regressions`, where it has lost most against
            the best base.

    Raises:
        UserError: There are no rows, or one has no reference.
    """
    references = [_reference(question) for question in questions]
    scores = {name: score_answers(part.answers, references) for name, part in evaluated.items()}
    columns = {name: {**evaluated[name].losses, **summarize(scores[name])} for name in evaluated}
    bases = [name for name in columns if name != TUNED]

    def best(*metrics: str) -> str:
        return max(bases, key=lambda name: [columns[name][metric] for metric in metrics])

    result: dict[str, Any] = {"columns": columns, "best_base": None, "paired": None}
    tuned, before = scores[TUNED], None
    if bases:
        result["best_base"] = best("normalized_match", "rouge_l")
        before = scores[result["best_base"]]
        result["paired"] = {}
        for metric in _MATCHES:
            base = best(metric, "rouge_l")
            rows = mcnemar(scores[base][metric], tuned[metric])
            result["paired"][metric] = {"base": base, **rows}
        base = best("rouge_l")
        gained = tuned["rouge_l"] - scores[base]["rouge_l"]
        result["paired"]["rouge_l"] = {
            "base": base,
            "difference": float(gained.mean()),
            "interval": list(bootstrap_interval(gained, seed)),
        }
    return {**result, "samples": _choose_rows(tuned, before, seed)}


def comparison_table(compared: Mapping[str, Any]) -> str:
    """Lays out a comparison: a column for each, the best base, and how tuned and base differ.

    Args:
        compared: From `compare`.
    """
    columns = compared["columns"]
    names = [
        name
        for name in dict.fromkeys(name for column in columns.values() for name in column)
        if name not in ("counts", "intervals")
    ]
    # What is counted comes first.
    names.sort(key=lambda name: name not in _COUNTS)
    lines = [["", *columns]]
    lines += [[_spaced(name), *(_cell(part, name) for part in columns.values())] for name in names]
    text = aligned(lines)
    if compared["paired"]:
        examples = columns[TUNED]["examples"]
        text.append(f"Best base: {compared['best_base']}. On the same {examples:,} rows:")
        text += [_paired_line(name, told) for name, told in compared["paired"].items()]
    return "\n".join(text)


def comparison_samples(
    questions: Sequence[Question],
    evaluated: Mapping[str, Evaluated],
    compared: Mapping[str, Any],
) -> str:
    """Shows the rows that a comparison has chosen, with the answers of the best base and tuned.

    Args:
        questions: As for `compare`.
        evaluated: As for `compare`.
        compared: From `compare`.
    """
    samples = compared["samples"]
    shown = [name for name in (compared["best_base"], TUNED) if name]
    titles = {
        "random": f"{len(samples['random'])} random rows (seed {samples['seed']})",
        "worst": "worst answers (least ROUGE-L)",
        "regressions": f"regressions (worse than {compared['best_base']})",
    }
    parts = []
    for kind, title in titles.items():
        rows = [
            sample_text(questions[row], {name: evaluated[name].answers[row].text for name in shown})
            for row in samples[kind]
        ]
        if rows:
            parts.append("\n".join([f"{title}:", *rows]))
    return "\n\n".join(parts)


def _reference(question: Question) -> str:
    if question.reference is None:
        raise UserError(
            f"{question.location}: no answer to compare with. Give rows with answers, or "
            "--do_predict alone."
        )
    return question.reference


def _choose_rows(
    tuned: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray] | None, seed: int
) -> dict[str, Any]:
    """Chooses the rows to show; `base` None: without regressions."""
    right, rouge = tuned["normalized_match"], tuned["rouge_l"]
    wrong = np.flatnonzero(~right).tolist()
    drawn = random.Random(seed).sample(range(len(right)), min(RANDOM_ROWS, len(right)))
    lost = []
    if base is not None:
        fall = base["rouge_l"] - rouge
        # Rows that the base has right come first.
        order = sorted(wrong, key=lambda row: (not base["normalized_match"][row], -fall[row]))
        lost = [row for row in order if base["normalized_match"][row] or fall[row] > 0]
    return {
        "seed": seed,
        "random": sorted(drawn),
        "worst": sorted(wrong, key=lambda row: rouge[row])[:WORST_ROWS],
        "regressions": lost[:WORST_ROWS],
    }


def _cell(column: Mapping[str, Any], name: str) -> str:
    value = column.get(name)
    if value is None:
        return "-"
    if name in _COUNTS:
        return f"{value:,}"
    decimals = 1 if name == "mean_tokens" else 3
    text = f"{value:,.{decimals}f}"
    if name in column["intervals"]:
        text += " [{:.{d}f}, {:.{d}f}]".format(*column["intervals"][name], d=decimals)
    return text


def _paired_line(name: str, told: Mapping[str, Any]) -> str:
    start = f"  {_spaced(name)} against {told['base']}: "
    if "difference" in told:
        low, high = told["interval"]
        return (
            f"{start}{told['difference']:+.3f} [{low:+.3f}, {high:+.3f}] "
            f"(paired bootstrap, {RESAMPLES:,} resamples)"
        )
    return (
        f"{start}both right {told['both_right']:,}, only base {told['only_base']:,}, "
        f"only tuned {told['only_tuned']:,}, both wrong {told['both_wrong']:,} "
        f"(McNemar p = {told['p_value']:.2g})"
    )


def _spaced(name: str) -> str:
    return "ROUGE-L" if name == "rouge_l" else name.replace("_", " ")
