"""Runs that are stopped or killed, and started again by the same command, end as one that was not.

So do two workers beside one process.
"""

import hashlib
import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.generation.conftest import day_rows, write_lines
from tests.kills import (
    EVAL_STEPS,
    KILLS,
    SAVE_STEPS,
    assert_same_curves_and_files,
    kill,
    log_lines,
    saved_steps,
)
from tests.programs import Program, start_workers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arguments(tiny_llama, tmp_path_factory) -> Callable[..., list[str]]:
    folder = tmp_path_factory.mktemp("rows")
    # With its first layer alone, so that a run soon begins to train.
    model = shutil.copytree(tiny_llama, folder / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    for name, rows in (("train", 64), ("validation", 23), ("test", 7)):
        write_lines(folder / f"{name}.jsonl", day_rows(rows))
    return lambda model_dir, steps, *more: [
        *(f"--model={model}", f"--data_dir={folder}", f"--model_dir={model_dir}"),
        *("--do_train", f"--max_steps={steps}", f"--save_checkpoints_steps={SAVE_STEPS}"),
        *("--train_batch_size=4", "--learning_rate=3e-3", "--max_seq_length=64"),
        *("--max_new_tokens=4", "--num_fewshot=0"),
        *more,
    ]


def preference_rows(count: int) -> list[dict[str, str]]:
    """Makes the days of `day_rows` as prompts with an answer to prefer to another."""
    days = [row["messages"] for row in day_rows(count)]
    return [
        {"prompt": one["content"], "chosen": two["content"], "rejected": "why?"}
        for one, two in days
    ]


def answers(folder: Path) -> list[dict[str, Any]]:
    """Returns the answers to the test file without their times."""
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert all(answer.pop("seconds") > 0 for answer in found) and len(found) == 7
    return found


def results(
    killed: Path, whole: Path, steps: int, assert_same_weights: Callable[..., None]
) -> list[dict[str, Any]]:
    """Returns the results of two runs, whose weights, curves and files have to be the same."""
    for kind in ("step", "best"):
        assert_same_weights(killed, whole, kind)
    assert_same_curves_and_files(killed, whole, steps)
    return [json.loads((folder / "metrics.json").read_text()) for folder in (killed, whole)]


@pytest.mark.parametrize(
    ("kills", "flags"),
    [
        (KILLS, ("--lora_rank=4", "--lora_dropout=0.1", "--precision=mixed_bfloat16")),
        pytest.param(
            *(KILLS, ("--lora_rank=0", "--packing", "--precision=float32")),
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["adapters in bfloat16", "all weights in float32"],
)
def test_a_killed_run_ends_as_one_that_was_not(
    kills, flags, arguments, tmp_path, assert_same_weights
):
    steps, log = 256, tmp_path / "log"
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def run(folder: Path) -> Program:
        more = (*flags, f"--eval_steps={EVAL_STEPS}", "--do_eval", "--do_predict")
        more += ("--nodo_report",)
        return Program("run_generator", arguments(folder, steps, *more), log)

    run(whole).finish()
    plan = [("checkpoint", "evaluation", "training")[number % 3] for number in range(kills)]
    random.Random(3).shuffle(plan)
    assert kill(lambda: run(killed), killed, plan) == plan
    run(killed).finish()
    metrics, expected = results(killed, whole, steps, assert_same_weights)
    assert metrics["eval"] == expected["eval"] and metrics["eval"]["loss"] > 0
    assert metrics["test"] == expected["test"]
    assert answers(killed) == answers(whole)


@pytest.mark.thorough
def test_killed_preferences_end_as_those_that_were_not(arguments, tmp_path, assert_same_weights):
    steps, log = 128, tmp_path / "log"
    pairs, whole, killed = (tmp_path / name for name in ("pairs", "whole", "killed"))
    pairs.mkdir()
    for name, count in (("train", 64), ("validation", 23)):
        write_lines(pairs / f"{name}.jsonl", preference_rows(count))

    def run(folder: Path) -> Program:
        flags = (f"--data_dir={pairs}", "--method=dpo", "--lora_rank=4", "--do_eval")
        more = (*flags, f"--eval_steps={EVAL_STEPS}", "--nodo_report")
        return Program("run_generator", arguments(folder, steps, *more), log)

    run(whole).finish()
    plan = ["training", "evaluation", "checkpoint", "training"][: max(2, KILLS // 4)]
    assert kill(lambda: run(killed), killed, plan) == plan
    run(killed).finish()
    metrics, expected = results(killed, whole, steps, assert_same_weights)
    assert metrics["preferences"] == expected["preferences"]


def test_a_killed_export_leaves_the_whole_one_before(arguments, tmp_path):
    log, folder = tmp_path / "log", tmp_path / "run"
    Program("run_generator", arguments(folder, 8, "--lora_rank=4", "--do_export"), log).finish()

    def again() -> Program:
        return Program("run_generator", [f"--model_dir={folder}", "--do_export"], log)

    def files() -> dict[str, str]:
        """Returns the hash of each exported file; those of a graph differ each time."""
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for name in ("export", "adapter", "saved_model")
            for path in (folder / name).rglob("*")
            if path.is_file() and path.suffix != ".pb"
        }

    whole = files()
    assert {"export/model.safetensors", "adapter/adapter_model.safetensors"} <= set(whole)
    assert "| train rows | 64 |" in (folder / "export" / "README.md").read_text()
    plan = ["export"] * max(2, KILLS // 5)
    assert kill(again, folder, plan) == plan
    assert files() == whole
    again().finish()
    assert files() == whole
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.thorough
def test_sigterm_saves_and_the_same_command_goes_on(arguments, tmp_path, assert_same_weights):
    steps, log = 120, tmp_path / "log"

    def run(folder: Path) -> Program:
        flags = ("--lora_rank=4", "--lora_dropout=0.1", "--precision=float32", "--do_predict")
        return Program("run_generator", arguments(folder, steps, *flags), log)

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(whole).finish()
    process, deadline = run(stopped), time.monotonic() + 300
    while not saved_steps(stopped):
        assert process.status is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send(signal.SIGTERM)
    said = process.finish(128 + signal.SIGTERM)
    assert "Traceback" not in said and not (stopped / "predictions.jsonl").exists()
    last = max(saved_steps(stopped))
    assert last < steps
    assert f"SIGTERM: stopped after step {last} of {steps}" in said
    said = run(stopped).finish()
    assert f"going on from step {last} of {steps}" in said
    assert_same_weights(stopped, whole)
    assert answers(stopped) == answers(whole)


@pytest.mark.thorough
def test_two_workers_train_and_answer_as_one_process(arguments, tmp_path):
    """Each has a folder of its own: the second one's stays empty."""
    flags = ("--lora_rank=0", "--precision=mixed_bfloat16", "--do_eval", "--do_predict")
    flags += ("--eval_steps=10", "--train_batch_size=8", "--nodo_report")
    one, *two = (tmp_path / name for name in ("one", "two0", "two1"))
    process = Program("run_generator", arguments(one, 20, *flags), tmp_path / "log")
    workers = start_workers(
        "run_generator", arguments(f"{tmp_path}/two{{index}}", 20, *flags), tmp_path
    )
    for program in (*workers, process):
        program.finish()
    assert not two[1].exists()
    assert {path.name for path in two[0].iterdir()} == {path.name for path in one.iterdir()}
    lines, expected = map(log_lines, (two[0], one))
    assert [(line["step"], line["split"]) for line in lines] == [
        *((10, "train"), (10, "validation"), (20, "train"), (20, "validation"))
    ]
    for ours, theirs in zip(lines, expected, strict=True):
        assert ours["epoch"] == theirs["epoch"]
        # bfloat16 has 8 bits. A batch of other rows differs by a tenth and more.
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)
    assert len(answers(two[0])) == 7
    metrics, others = (json.loads((d / "metrics.json").read_text()) for d in (two[0], one))
    assert metrics["train"]["steps"] == others["train"]["steps"] == 20
    assert metrics["test"]["examples"] == others["test"]["examples"] == 7
    assert metrics["eval"]["loss"] == pytest.approx(others["eval"]["loss"], rel=1e-2)
