"""Runs that are killed and started again by the same command end as one that was not."""

import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tf_finetune.training.checkpoints import find

REPOSITORY = Path(__file__).resolve().parents[1]
STEPS, EVAL_STEPS, SAVE_STEPS = 192, 16, 4


def write_rows(path: Path, rows: int) -> None:
    words = ("good", "great", "film", "plot", "very")
    lines = [f"{words[i % 5]} {'movie ' * (i % 7)}{i}\t{i * i % 3 % 2}" for i in range(rows)]
    path.write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def command(tiny_bert_dir, tmp_path_factory) -> Callable[[Path], list[str]]:
    folder = tmp_path_factory.mktemp("rows")
    for name, rows in (("train", 64), ("dev", 3000), ("test", 50)):
        write_rows(folder / f"{name}.tsv", rows)
    return lambda model_dir: [
        sys.executable,
        str(REPOSITORY / "run_classifier.py"),
        f"--encoder={tiny_bert_dir}",
        *(f"--{a}_file={folder}/{b}.tsv" for a, b in (("train", "train"), ("validation", "dev"))),
        f"--test_file={folder}/test.tsv",
        f"--model_dir={model_dir}",
        *("--do_train", "--do_eval", "--do_predict", "--do_export"),
        *(f"--max_steps={STEPS}", f"--eval_steps={EVAL_STEPS}"),
        f"--save_checkpoints_steps={SAVE_STEPS}",
        *("--train_batch_size=8", "--precision=float32", "--learning_rate=1e-3"),
        "--max_seq_length=32",
    ]


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
        if line["split"] == "train":
            assert line.pop("examples_per_second") > 0 and line.pop("tokens_per_second") > 0
    return lines


def assert_same_results(killed: Path, whole: Path) -> None:
    metrics, expected = (json.loads((d / "metrics.json").read_text()) for d in (killed, whole))
    assert metrics["eval"] == expected["eval"] and metrics["test"] == expected["test"]
    assert metrics["train"]["examples_per_second"] > 0
    for name in ("predictions.tsv", "predictions.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    lines = log_lines(killed)
    assert lines == log_lines(whole)
    points = [(line["step"], line["split"]) for line in lines]
    assert len(set(points)) == len(points) == STEPS // 10 + STEPS // EVAL_STEPS
    for curve in ("train", "validation"):
        points = scalars(killed / curve, "loss")
        assert points == scalars(whole / curve, "loss")
        assert len({step for step, _ in points}) == len(points)
    assert [p.name for p in killed.iterdir() if p.name.startswith(".")] == []
    assert {p.name for p in killed.iterdir()} == {p.name for p in whole.iterdir()}
    checkpoints = [{p.name for p in (d / "checkpoints").iterdir()} for d in (killed, whole)]
    assert checkpoints[0] == checkpoints[1]


def steps(folder: Path) -> set[int]:
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
        (step + SAVE_STEPS) % EVAL_STEPS == 0 for step in steps(folder) - before
    ),
    "training": lambda folder, before, _: bool(steps(folder) - before),
    "export": lambda folder, _, since: newer(folder, ".export.*", since),
}


@pytest.mark.slow
def test_a_run_killed_at_20_moments_ends_as_one_that_was_not(
    command, tmp_path, assert_same_weights
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True)
    assert len(scalars(whole / "train", "loss")) == STEPS // 10
    rng = random.Random(7)
    plan = ["checkpoint"] * 5 + ["evaluation"] * 5 + ["training"] * 6
    rng.shuffle(plan)
    delays = {"checkpoint": 0.0, "evaluation": 0.4, "training": 0.3, "export": 0.3}
    kills = dict.fromkeys(KINDS, 0)
    for kind in (*plan, *["export"] * 4):
        before, since, moment = steps(killed), time.time(), 0.0
        with subprocess.Popen(
            command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                if not moment and KINDS[kind](killed, before, since):
                    moment = time.monotonic() + rng.random() * delays[kind]
                if moment and time.monotonic() >= moment:
                    process.kill()
                    kills[kind] += 1
                    break
                time.sleep(0.0005)
        print(kind, steps(killed), flush=True)
    assert kills == {"checkpoint": 5, "evaluation": 5, "training": 6, "export": 4}
    done = subprocess.run(command(killed), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for kind in ("step", "best"):
        assert_same_weights(killed, whole, kind)
    assert_same_results(killed, whole)
