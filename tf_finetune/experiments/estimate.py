"""Estimates what a training takes: steps, minutes, memory, from a few steps of it.

    python -m tf_finetune estimate run_classifier --flagfile=configs/mrpc.cfg --data_dir=data

The same as `--estimate` of a program. The flags are those of the run, whose folder is left alone.
"""

import argparse
import importlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.experiments.command import exit_status
from tf_finetune.experiments.trial import run_trial
from tf_finetune.runs.flags import parse_flags
from tf_finetune.runs.model_dir import ModelDir

CONFIGS = {
    "run_classifier": "tf_finetune.classification.config",
    "run_generator": "tf_finetune.generation.config",
}
# So many steps are run, and so many rows evaluated.
STEPS, ROWS = 16, 128
# A forward pass is a third of a step: the backward one takes twice as long.
_FORWARD = 1 / 3


@dataclass(frozen=True)
class Measured:
    """A few steps of a training.

    Attributes:
        start: The seconds to the end of the first step: import, data, model, trace.
        rates: The tokens a second of each later step.
        evaluation: The seconds of the evaluation.
        save: The seconds of all that came after it.
        summary: The `train` part of metrics.json.
        rows: Of each split, the rows that there are.
        epochs: That the run will take, given or chosen.
    """

    start: float
    rates: Sequence[float]
    evaluation: float
    save: float
    summary: Mapping[str, Any]
    rows: Mapping[str, int]
    epochs: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the estimate.

    Args:
        arguments: The program and its flags; None: the process' own.

    Returns:
        The exit status: 0, or 2 for flags or data that are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="estimate", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("program", choices=CONFIGS)
    given, flags = parser.parse_known_args(arguments)

    def work() -> None:
        parsed = parse_flags(
            importlib.import_module(CONFIGS[given.program]).Config,
            [given.program, *flags, "--do_train"],
        )
        if parsed is None:
            raise UserError(f"--help: python -m tf_finetune {given.program} --help")
        measured = measure(given.program, flags, parsed[0])
        for name, told in lines(estimate(measured, parsed[0]), measured):
            print(f"{name:<10} {told}")

    return exit_status(work)


def measure(program: str, flags: Sequence[str], config: Any) -> Measured:
    """Runs a few steps of a training in a folder that does not stay.

    Args:
        program: `run_classifier` or `run_generator`.
        flags: The run's.
        config: What they say.

    Raises:
        UserError: The run has failed; the message is its own.
    """
    steps = min(config.loop.max_steps or STEPS, STEPS)
    rows = min(config.data.max_eval_samples or ROWS, ROWS)
    arrived: list[tuple[float, Mapping[str, Any]]] = []

    def note(point: Mapping[str, Any]) -> bool:
        arrived.append((time.monotonic() - began, point))
        return False

    with tempfile.TemporaryDirectory() as folder:
        model_dir = ModelDir(f"{folder}/out")
        more = {
            "do_train": True,
            "do_eval": False,
            "do_predict": False,
            "do_export": False,
            "estimate": False,
            "overwrite": False,
            "model_dir": model_dir.path,
            "data_report": f"{folder}/data.json",
            "max_steps": steps,
            "max_eval_samples": rows,
            "log_steps": 1,
            "steps_per_loop": 1,
            "eval_steps": steps,
            "save_checkpoints_steps": steps,
        }
        began = time.monotonic()
        run_trial(
            program,
            [*flags, *(f"--{name}={str(value).lower()}" for name, value in more.items())],
            model_dir,
            note,
        )
        ended = time.monotonic() - began
        recorded, _ = model_dir.load(type(config))
        summary = model_dir.load_metrics()["train"]
        with open(f"{folder}/data.json", encoding="utf-8") as file:
            facts = json.load(file)
    trained = [point for _, point in arrived if point["split"] == "train"]
    if len(trained) < 3:
        raise UserError(f"--max_steps={steps}: three steps or more are needed to measure.")
    first, last = (at for at, point in (arrived[0], arrived[len(trained) - 1]))
    evaluated = [at for at, point in arrived if point["split"] == "validation"]
    end = evaluated[-1] if evaluated else last
    rates = [point["tokens_per_second"] for point in trained[1:]]
    counts = {split: int(part["rows"]) for split, part in facts["splits"].items()}
    epochs = recorded.loop.num_train_epochs
    return Measured(first, rates, end - last, ended - end, summary, counts, epochs)


def estimate(measured: Measured, config: Any) -> dict[str, float]:
    """Works out what the whole run takes.

    Args:
        measured: A few steps of it.
        config: Of the run.

    Returns:
        `steps`, `steps_per_epoch`; of a step the `step_seconds`, `step_examples` and `step_tokens`;
        and the seconds of the `start`, `training`, `evaluations` and `saves`.
    """
    loop, summary = config.loop, measured.summary
    per_epoch = round(summary["steps"] / summary["epochs"])
    steps = loop.max_steps or math.ceil(per_epoch * measured.epochs)
    # The median is of steps of lengths that were met before; others compile their kernels first.
    token = 1 / statistics.median(measured.rates)
    tokens, examples = (
        count / summary["steps"]
        for count in (summary["tokens"], summary["examples_per_second"] * summary["seconds"])
    )
    step, later = token * tokens, summary["steps"] - 1
    compiled = max(0.0, summary["seconds"] - summary["first_step_seconds"] - later * step)
    row = step / examples * _FORWARD
    shown = measured.rows.get("validation", 0)
    limit = config.data.max_eval_samples
    asked = {split: min(rows, limit or rows) for split, rows in measured.rows.items()}
    times = math.ceil(steps / (loop.eval_steps or per_epoch)) if shown else 0
    traced = max(0.0, measured.evaluation - min(shown, ROWS) * row)
    evaluations = times * asked.get("validation", 0) * row + (traced if shown else 0)
    if config.run.do_eval:
        evaluations += sum(asked.get(split, 0) for split in ("validation", "test")) * row
    saves = max(times, math.ceil(steps / (loop.save_checkpoints_steps or per_epoch)))
    return {
        "steps": steps,
        "steps_per_epoch": per_epoch,
        "step_seconds": step,
        "step_examples": examples,
        "step_tokens": tokens,
        "start": measured.start,
        "training": step * (steps - 1) + compiled,
        "evaluations": evaluations,
        "saves": measured.save * saves,
    }


def lines(found: Mapping[str, float], measured: Measured) -> list[tuple[str, str]]:
    """Returns the lines of an estimate, each a name and what is told."""
    parts = ("start", "training", "evaluations", "saves")
    step, summary = found["step_seconds"], measured.summary
    told = ", ".join(f"{name} {_time(found[name])}" for name in parts)
    rates = (found[name] / step for name in ("step_examples", "step_tokens"))
    speed = ", ".join(f"{r:,.3g} {n}/s" for r, n in zip(rates, ("rows", "tokens"), strict=True))
    return [
        ("steps", f"{found['steps']:,} ({found['steps_per_epoch']:,} an epoch)"),
        ("time", f"{_time(sum(found[name] for name in parts))}: {told}"),
        ("step", f"{step:.3g} s, {speed}"),
        ("memory", f"{summary['peak_memory_bytes'] / 1e9:.1f} GB of this process so far"),
        ("weights", f"{summary['trained_weights']:,} of {summary['weights']:,} are trained"),
        ("measured", f"{summary['steps']} steps; without predictions, exports and the report"),
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    sys.exit(main())
