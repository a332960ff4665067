"""Runs that are killed and started again by the same command end as one that was not."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kills import (
    EVAL_STEPS,
    KILLS,
    SAVE_STEPS,
    assert_same_curves_and_files,
    kill,
    scalars,
)
from tests.programs import Program

STEPS = 192


def write_rows(path: Path, rows: int) -> None:
    words = ("good", "great", "film", "plot", "very")
    lines = [f"{words[i % 5]} {'movie ' * (i % 7)}{i}\t{i * i % 3 % 2}" for i in range(rows)]
    path.write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def arguments(tiny_bert_dir, tmp_path_factory) -> Callable[[Path], list[str]]:
    folder = tmp_path_factory.mktemp("rows")
    for name, rows in (("train", 64), ("dev", 3000), ("test", 50)):
        write_rows(folder / f"{name}.tsv", rows)
    return lambda model_dir: [
        f"--encoder={tiny_bert_dir}",
        *(f"--{a}_file={folder}/{b}.tsv" for a, b in (("train", "train"), ("validation", "dev"))),
        f"--test_file={folder}/test.tsv",
        f"--model_dir={model_dir}",
        *("--do_train", "--do_eval", "--do_predict", "--do_export"),
        *(f"--max_steps={STEPS}", f"--eval_steps={EVAL_STEPS}"),
        f"--save_checkpoints_steps={SAVE_STEPS}",
        *("--train_batch_size=8", "--precision=float32", "--learning_rate=1e-3"),
        *("--max_seq_length=32", "--nodo_report"),
    ]


def assert_same_results(killed: Path, whole: Path) -> None:
    metrics, expected = (json.loads((d / "metrics.json").read_text()) for d in (killed, whole))
    assert metrics["eval"] == expected["eval"] and metrics["test"] == expected["test"]
    assert metrics["train"]["examples_per_second"] > 0
    for name in ("predictions.tsv", "predictions.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert_same_curves_and_files(killed, whole, STEPS)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(
    arguments, tmp_path, assert_same_weights
):
    def start(model_dir: Path) -> Program:
        return Program("run_classifier", arguments(model_dir), tmp_path / "log")

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(whole).finish()
    assert len(scalars(whole / "train", "loss")) == STEPS // 10
    plan = [("checkpoint", "evaluation", "training")[i % 3] for i in range(max(3, KILLS * 4 // 5))]
    random.Random(7).shuffle(plan)
    plan += ["export"] * max(1, KILLS // 5)

    assert kill(lambda: start(killed), killed, plan) == plan
    start(killed).finish()
    for kind in ("step", "best"):
        assert_same_weights(killed, whole, kind)
    assert_same_results(killed, whole)
