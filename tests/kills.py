"""Runs that are killed at chosen moments and started again, and what a run leaves, to compare."""

import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tests.programs import Program
from tf_finetune.training.checkpoints import find

# How often a run is killed: 20 times by `make test_thorough`.
KILLS = int(os.environ.get("KILLS", "3"))
# What the moments below are made for.
EVAL_STEPS, SAVE_STEPS = 16, 4


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Returns a curve's points as TensorBoard finds them, in all files in their order."""
    points = []
    for path in sorted(folder.glob("events.out.tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                if value.tag == tag:
                    points.append((event.step, float(tf.make_ndarray(value.tensor))))
    return points


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of the training log without the speeds, which no two runs share."""
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        for name in [name for name in line if name.endswith("_per_second")]:
            assert line["split"] == "train" and line.pop(name) > 0
    return lines


def assert_same_curves_and_files(killed: Path, whole: Path, steps: int) -> None:
    """Compares log, curves and the names of all files of runs of so many steps."""
    lines = log_lines(killed)
    assert lines == log_lines(whole)
    points = [(line["step"], line["split"]) for line in lines]
    assert len(set(points)) == len(points) == steps // 10 + steps // EVAL_STEPS
    for curve in ("train", "validation"):
        points = scalars(killed / curve, "loss")
        assert points == scalars(whole / curve, "loss")
        assert len({step for step, _ in points}) == len(points) > 0
    assert [p.name for p in killed.iterdir() if p.name.startswith(".")] == []
    assert {p.name for p in killed.iterdir()} == {p.name for p in whole.iterdir()}
    checkpoints = [{p.name for p in (d / "checkpoints").iterdir()} for d in (killed, whole)]
    assert checkpoints[0] == checkpoints[1]


def saved_steps(folder: Path) -> set[int]:
    """Returns the steps of the checkpoints that are whole."""
    paths = find(str(folder / "checkpoints"), "step")
    return {int(path.rpartition("-")[2]) for path in paths}


def newer(folder: Path, pattern: str, since: float) -> bool:
    """Whether there is something that was made after a time."""
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > since:
                return True
    return False


# What is waited for: a checkpoint is being written (its last file is the index); the last steps
# before an evaluation, some milliseconds long, have begun; one checkpoint was written; the export
# is being written.
KINDS: dict[str, Callable[[Path, set[int], float], bool]] = {
    "checkpoint": lambda folder, _, since: newer(folder, "checkpoints/step-*_temp*", since),
    "evaluation": lambda folder, before, _: any(
        (step + SAVE_STEPS) % EVAL_STEPS == 0 for step in saved_steps(folder) - before
    ),
    "training": lambda folder, before, _: bool(saved_steps(folder) - before),
    "export": lambda folder, _, since: newer(folder, ".export.*", since),
}
# Up to so many seconds are waited after that.
DELAYS = {"checkpoint": 0.0, "evaluation": 0.4, "training": 0.3, "export": 0.3}


def kill(start_again: Callable[[], Program], folder: Path, plan: Sequence[str]) -> list[str]:
    """Starts a run for each moment of a plan, kills it there, and returns the moments that were.

    Args:
        start_again: Starts the same command.
        folder: Its model directory.
        plan: Of the `KINDS`.
    """
    chance, kills = random.Random(7), []
    for kind in plan:
        before, since, moment = saved_steps(folder), time.time(), 0.0
        program = start_again()
        while program.status is None:
            if not moment and KINDS[kind](folder, before, since):
                moment = time.monotonic() + chance.random() * DELAYS[kind]
            if moment and time.monotonic() >= moment:
                program.kill()
                kills.append(kind)
                break
            time.sleep(0.0005)
        print(kind, program.status, saved_steps(folder), flush=True)
    return kills
