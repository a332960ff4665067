"""The report of a generator as numbers: its answers beside those of its base."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_finetune.errors import UserError
from tf_finetune.experiments.advice import advise_generator
from tf_finetune.experiments.compared import capital, metric_name
from tf_finetune.experiments.run_facts import EVALUATE, read_facts, read_lines, read_log
from tf_finetune.generation.answers import Answer
from tf_finetune.generation.comparison import TUNED
from tf_finetune.generation.config import Config
from tf_finetune.generation.scores import score_answers
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import report_files
from tf_finetune.runs.settings import told_settings

# Told even where they have their defaults.
_ALWAYS = ("model", "max_seq_length", "train_batch_size", "learning_rate", "num_train_epochs")
RIGHT = "right"
# What is wrong with an answer; the first that is true counts.
KINDS = ("empty", "repeated", "did not stop", "wrong format", "wrong")
# Of each kind so many are shown.
MOST_ROWS = 4


def report_generator(model_dir: ModelDir) -> dict[str, Any]:
    """Makes the report of a generator.

    Args:
        model_dir: Its folder.

    Returns:
        A JSON object: `kind`, `headline`, `model_dir`, `settings`, `missing`, `data`, `curves`,
        `cost`, `results`; as far as it was evaluated on rows with answers `comparison`, the
        `kinds` of answers (rows by kind, of each column) and the `answers` to read; and `advice`.

    Raises:
        UserError: There is no run, or a file of it is damaged.
    """
    config, _ = model_dir.load(Config)
    metrics, log = model_dir.load_metrics(), read_log(model_dir)
    results = ("eval", "test", "general", "preferences")
    report: dict[str, Any] = {
        "kind": "generator",
        "headline": "This run was not evaluated on rows with answers.",
        "model_dir": str(model_dir),
        "settings": told_settings(config, Config(), _ALWAYS),
        "missing": [],
        "data": read_facts(model_dir),
        "curves": log,
        "cost": metrics.get("train"),
        "results": {part: metrics[part] for part in results if part in metrics},
    }
    if not log:
        report["missing"].append("There is no log of the training, so there are no curves.")
    compared = metrics.get("comparison")
    if compared:
        report |= {"comparison": compared, "headline": _headline(compared)}
    records = read_lines(report_files(model_dir).evaluated)
    if compared and records:
        report |= _answers(model_dir, records, compared)
    else:
        report["missing"].append(
            "No answers of base and tuned model are here. python run_generator.py "
            f"--model_dir={model_dir} {EVALUATE} --test_file=<rows with answers> writes them."
        )
    report["advice"] = advise_generator(model_dir, config, log, report)
    return report


def _headline(compared: Mapping[str, Any]) -> str:
    """Says in one sentence whether the model is better than its base."""
    columns, paired = compared["columns"], compared["paired"]
    rows = f"{columns[TUNED]['examples']:,} test rows"
    # Where nothing is right to the letter, that which tells more.
    metric = "normalized_match" if columns[TUNED]["normalized_match"] else "rouge_l"
    name, ours = metric_name(metric), columns[TUNED][metric]
    if not paired:
        return f"{capital(name)} {ours:.3f} on {rows}."
    base = paired[metric]["base"]
    theirs = columns[base][metric]
    asked = "" if base == "base" else f" ({base})"
    numbers = f"{name} {ours:.3f} against {theirs:.3f}{asked} on {rows}"
    if ours <= theirs:
        return f"This model does not beat its base: {numbers}."
    test = paired[metric]
    sure = test["p_value"] < 0.05 if "p_value" in test else test["interval"][0] > 0
    if not sure:
        return f"This model does not surely beat its base, it may be chance: {numbers}."
    return f"This model beats its base: {numbers}."


def _answers(
    model_dir: ModelDir, records: Sequence[Mapping[str, Any]], compared: Mapping[str, Any]
) -> dict[str, Any]:
    """Sorts the answers by what is wrong with them, and chooses those to read."""
    shown = [name for name in (compared["best_base"], TUNED) if name]
    try:
        answers = {
            name: [
                Answer(part["text"], part["tokens"], part["finish_reason"], 0.0)
                for part in (record["answers"][name] for record in records)
            ]
            for name in shown
        }
        references = [str(record["reference"]) for record in records]
        prompts = [_last(record["prompt"]) for record in records]
    except (LookupError, TypeError) as error:
        raise UserError(
            f"{report_files(model_dir).evaluated}: not the answers of this model ({error!r}). "
            f"Evaluate again: {EVALUATE}."
        ) from None
    scores = {name: score_answers(answers[name], references) for name in shown}
    kinds = {name: kinds_of(scores[name]) for name in shown}

    def told(row: int) -> dict[str, Any]:
        said = {name: answers[name][row].text for name in shown}
        kind = kinds[TUNED][row]
        return {
            **{"row": row + 1, "prompt": prompts[row], "reference": references[row]},
            **{"answers": said, "kind": kind},
        }

    rouge = scores[TUNED]["rouge_l"]
    chosen = {}
    for kind in KINDS:
        rows = [row for row, found in enumerate(kinds[TUNED]) if found == kind]
        chosen[kind] = [told(row) for row in sorted(rows, key=lambda r: rouge[r])[:MOST_ROWS]]
    drawn = [row for row in compared["samples"]["random"] if row < len(records)]
    return {
        "kinds": {
            name: {kind: found.count(kind) for kind in (RIGHT, *KINDS)}
            for name, found in kinds.items()
        },
        "answers": {"random": [told(row) for row in drawn], **chosen},
    }


def kinds_of(scores: Mapping[str, np.ndarray]) -> list[str]:
    """Says what is wrong with each answer.

    Args:
        scores: From `score_answers`.

    Returns:
        For each row `right`, if it is a normalized match, or the first of `KINDS` that is true.
    """
    rows = len(scores["normalized_match"])
    formed = scores.get("json_valid", np.ones(rows, bool))
    wrong = (scores["empty"], scores["repeated"], ~scores["stopped"], ~formed, np.ones(rows, bool))
    return [
        RIGHT
        if scores["normalized_match"][row]
        else next(kind for kind, true in zip(KINDS, wrong, strict=True) if true[row])
        for row in range(rows)
    ]


def _last(prompt: Any) -> str:
    """Returns the text of a prompt: that of its last message, if it is of messages."""
    return prompt if isinstance(prompt, str) else str(prompt[-1].get("content") or "")
