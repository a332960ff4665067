"""What to try next, from what was seen; each with a command to paste."""

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.classification.config import Config
from tf_finetune.generation.config import Config as GeneratorConfig
from tf_finetune.runs.model_dir import ModelDir

# Of the validation's loss, above its least.
OVER_FITTED = 1.05
# Of the loss at the start, at the end.
HARDLY_LEARNT = 0.9
CUT = 0.05
# Predicted labels, of the true ones.
MISCOUNTED = 0.2
UNSURE = 0.1


def advise(
    model_dir: ModelDir,
    config: Config,
    log: Sequence[Mapping[str, Any]],
    report: Mapping[str, Any],
) -> list[dict[str, str]]:
    """Says what may make a classifier better.

    Args:
        model_dir: Its folder.
        config: Its configuration.
        log: The points of its training.
        report: The report so far.

    Returns:
        What was `seen`, what to `try`, and the `command`.
    """
    found = [
        *_by_curves(config, log),
        *_by_lengths(config, report.get("data")),
        *_by_labels(config, report),
        *_by_baselines(config, report.get("comparison")),
        *_by_calibration(config, report),
    ]
    return _told(model_dir, config, found)


def advise_generator(
    model_dir: ModelDir,
    config: GeneratorConfig,
    log: Sequence[Mapping[str, Any]],
    report: Mapping[str, Any],
) -> list[dict[str, str]]:
    """Says what may make a generator better; see `advise`."""
    found = _by_curves(config, log)
    kinds = report.get("kinds", {}).get("tuned", {})
    answers = max(1, sum(kinds.values()))
    if kinds.get("did not stop", 0) > CUT * answers:
        tokens = config.sampling.max_new_tokens
        seen = f"{kinds['did not stop']:,} of {answers:,} answers were cut at {tokens} tokens."
        found.append((seen, "Longer answers.", {"max_new_tokens": 2 * tokens}))
    if kinds.get("repeated", 0) > CUT * answers:
        seen = f"{kinds['repeated']:,} of {answers:,} answers end in a loop."
        rate = _round(config.optimizer.learning_rate / 2)
        found.append((seen, "Half the rate.", {"learning_rate": rate}))
    return _told(model_dir, config, found)


Advice = tuple[str, str, dict[str, Any]]


def _told(
    model_dir: ModelDir, config: Config | GeneratorConfig, found: Sequence[Advice]
) -> list[dict[str, str]]:
    """Adds the commands; where nothing is to be advised, another seed is."""
    nothing = (
        "Nothing stands out.",
        "See how much the seed changes, before small differences are believed.",
        {"seed": config.runtime.seed + 1},
    )
    return [
        {"seen": seen, "try": tried, "command": _command(model_dir, config.program, flags)}
        for seen, tried, flags in found or [nothing]
    ]


def _by_curves(config: Config | GeneratorConfig, log: Sequence[Mapping[str, Any]]) -> list[Advice]:
    losses = [point["loss"] for point in log if point.get("split") == "train" and "loss" in point]
    checks = [point for point in log if point.get("split") == "validation"]
    held_out = [point["loss"] for point in checks if isinstance(point.get("loss"), float)]
    rate = config.optimizer.learning_rate
    if None in losses or None in held_out:
        return [("The loss was not finite.", "A lower rate.", {"learning_rate": _round(rate / 3)})]
    found: list[Advice] = []
    few = max(1, len(losses) // 10)
    first, last = (sum(part) / few for part in (losses[:few], losses[-few:])) if losses else (0, 0)
    if len(losses) > 4 and last > HARDLY_LEARNT * first:
        found.append(
            (
                f"The training loss hardly fell: {first:.3g} at the start, {last:.3g} at the end. "
                "The rate is too low, or so high that nothing is learnt.",
                "Three times the rate; if that is worse, a third.",
                {"learning_rate": _round(rate * 3)},
            )
        )
    if len(held_out) > 2:
        least = min(held_out)
        best = checks[held_out.index(least)]
        if held_out[-1] > OVER_FITTED * least and best is not checks[-1]:
            found.append(
                (
                    f"Over-fitting: the validation's loss was least ({least:.3g}) after "
                    f"{best['epoch']:.3g} epochs, and is {held_out[-1]:.3g} at the end.",
                    "Fewer epochs.",
                    _length(config, max(1, math.ceil(best["epoch"])), best["step"]),
                )
            )
        elif held_out[-1] == least and held_out[-1] < 0.97 * held_out[-2]:
            found.append(
                (
                    "The validation's loss was still falling at the end.",
                    "More epochs.",
                    _times(config, 2),
                )
            )
    return found


def _times(config: Config | GeneratorConfig, factor: int) -> dict[str, Any]:
    """Returns the flag of a training that is so many times as long."""
    steps, epochs = config.loop.max_steps, config.loop.num_train_epochs
    return _length(config, math.ceil(epochs * factor), (steps or 0) * factor)


def _length(config: Config | GeneratorConfig, epochs: int, steps: int) -> dict[str, Any]:
    """Returns the flag of a training's length: that which the run was given."""
    return {"max_steps": steps} if config.loop.max_steps else {"num_train_epochs": epochs}


def _by_lengths(config: Config, facts: Mapping[str, Any] | None) -> list[Advice]:
    lengths: Mapping[str, Any] = (facts or {}).get("lengths") or {}
    train = lengths.get("splits", {}).get("train")
    if not train or not lengths["long_text"] or lengths["long_text"] == "window":
        return []
    share = train["cut_rows"] / max(1, train["rows"])
    if share < CUT:
        return []
    needed, room = math.ceil(train["percentile_99"]), lengths["encoder_length"] or math.inf
    seen = f"{share:.0%} of the training rows are longer than {lengths['max_seq_length']} tokens."
    if lengths["max_seq_length"] < room:
        length = int(min(needed, room))
        return [(seen, "Read more of them.", {"max_seq_length": length})]
    return [(seen, "Read them whole, in pieces.", {"long_text": "window"})]


def _by_labels(config: Config, report: Mapping[str, Any]) -> list[Advice]:
    labels = report.get("by_label") or ()
    known = [part for part in labels if part["train_rows"] is not None and part["rows"]]
    if report["problem"]["type"] == "multi_label" and not config.labels.tune_thresholds:
        true, said = (sum(part[name] for part in labels) for name in ("rows", "predicted"))
        if labels and abs(said - true) > MISCOUNTED * true:
            seen = f"{said:,} labels are predicted where {true:,} are true."
            flags = {"tune_thresholds": "true", **_held_out(report)}
            return [(seen, "Each label's own threshold.", flags)]
    missed = [part for part in known if part["recall"] == 0]
    if missed and config.encoder.class_weights == "none":
        names = ", ".join(f"'{part['label']}' ({part['train_rows']:,})" for part in missed[:4])
        more = f" and {len(missed) - 4} more" if len(missed) > 4 else ""
        return [
            (
                f"Never found, with their training rows: {names}{more}.",
                "Give rare labels more weight; more rows of them help more.",
                {"class_weights": "balanced"},
            )
        ]
    return []


def _by_baselines(config: Config, comparison: Mapping[str, Any] | None) -> list[Advice]:
    if not comparison or "does not" not in comparison["headline"]:
        return []
    rate = config.optimizer.learning_rate
    return [
        (
            "A linear model on words is as good or better.",
            "Twice the rate and more epochs; or keep the linear model, which costs less.",
            {"learning_rate": _round(rate * 2), **_times(config, 2)},
        )
    ]


def _held_out(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flag that holds validation rows out, if the run had none."""
    return {} if "eval" in report["results"] else {"validation_fraction": 0.1}


def _by_calibration(config: Config, report: Mapping[str, Any]) -> list[Advice]:
    reliability = report.get("reliability") or {}
    error, bins = reliability.get("expected_calibration_error", 0.0), reliability.get("bins", [])
    sure = sum(part["predictions"] * (part["confidence"] - part["right"]) for part in bins)
    if error < UNSURE or sure < 0 or config.encoder.label_smoothing_factor:
        return []
    seen = f"Probabilities are {error:.2f} too high on average."
    if report["problem"]["type"] == "single_label" and (flags := _held_out(report)):
        return [(seen, "A temperature, which is found on rows that are held out.", flags)]
    return [(seen, "Smoothed labels.", {"label_smoothing_factor": 0.1})]


def _command(model_dir: ModelDir, program: str, flags: Mapping[str, Any]) -> str:
    names = "-".join(f"{name.split('_')[-1]}{value}" for name, value in flags.items())
    parts = [
        f"--flagfile={os.path.join(model_dir.path, 'train.cfg')}",
        f"--model_dir={model_dir.path.rstrip('/')}-{names}",
        *(f"--{name}={value}" for name, value in flags.items()),
        "--do_train",
        "--do_eval",
    ]
    return " \\\n  ".join([f"python {program}", *map(shlex.quote, parts)])


def _round(rate: float) -> float:
    return float(f"{rate:.1g}")
