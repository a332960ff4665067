"""Searches of flags: what is searched, trials that are shared and survive, and a whole sweep."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tf_finetune.classification.config import Config
from tf_finetune.errors import UserError
from tf_finetune.experiments.search_space import Range, parse_space, points
from tf_finetune.experiments.study import Plan, Study
from tf_finetune.experiments.sweep import main
from tf_finetune.runs.flags import parse_flags

REPOSITORY = Path(__file__).resolve().parents[2]
PLAN = Plan("run_classifier", ["--a=b"], ["dropout=0..0.3"], "tpe", None, False, "median")


def test_a_space_has_ranges_and_values():
    text = "learning_rate=1e-5..5e-4:log,pooling=mean,pooled,max_steps=2..9,dropout=0..0.3:0.1"
    assert parse_space([text, "seed=1,2"], Config) == {
        "learning_rate": Range(1e-5, 5e-4, log=True),
        "pooling": ("mean", "pooled"),
        "max_steps": Range(2, 9, whole=True),
        "dropout": Range(0, 0.3, step=0.1),
        "seed": ("1", "2"),
    }
    grid = points(parse_space(["pooling=mean,pooled,seed=1,2"], Config))
    assert [(p["pooling"], p["seed"]) for p in grid] == [
        *(("mean", "1"), ("mean", "2"), ("pooled", "1"), ("pooled", "2"))
    ]


@pytest.mark.parametrize(
    ("search", "complaint"),
    [
        ("learning_rte=1,2", "--search=learning_rte: no such flag. Did you mean learning_rate?"),
        ("1e-5", "--search=1e-5: no flag is named"),
        ("seed=1,seed=2", "--search=seed: stands there twice"),
        ("seed=1,,2", "a value is empty"),
        ("learning_rate=1e-4..1e-5", "must be less"),
        ("dropout=0..0.3:log", "above 0 for :log"),
        ("seed=1..2.5", "whole numbers"),
        ("pooling=mean..pooled", "not a number's flag"),
        ("model_dir=a,b", "the sweep itself sets"),
    ],
)
def test_what_cannot_be_searched_is_named(search, complaint, tmp_path, capsys):
    command = ["run_classifier", f"--search={search}", f"--sweep_dir={tmp_path}/sweep"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert complaint in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--search=pooling=mean,sum"], "--pooling"),
        (["--search=seed=1,2", "--model_dir=out"], "--model_dir: a sweep has --sweep_dir"),
        (["--search=seed=1,2", "--no_such_flag"], "--no_such_flag: no such flag"),
        (["--search=dropout=0..0.3", "--sampler=grid"], "a grid needs values"),
    ],
)
def test_flags_are_checked_before_a_run(flags, complaint, tmp_path, capsys):
    assert main(["run_classifier", *flags, f"--sweep_dir={tmp_path}/sweep"]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists() or not list((tmp_path / "sweep").glob("trial*"))


def test_workers_share_trials_and_take_over_those_of_killed_ones(tmp_path):
    space = {"dropout": Range(0, 0.3)}
    one, two = (Study(tmp_path, None, PLAN, space, seed=3) for _ in range(2))
    one.begin_with({"dropout": 0.125})
    (first, lock), (second, other) = one.take(3), two.take(3)
    assert first.params == {"dropout": 0.125} and first.number != second.number
    one.tell(first, 0.5)
    os.close(lock)
    # The other worker dies without a word: its trial goes on, with the same values.
    os.close(other)
    again, lock = one.take(3)
    assert (again.number, again.params) == (second.number, second.params)
    third, last = two.take(3)
    assert third.number == 2 and one.take(3) is None
    two.tell(third, 0.9)
    one.tell(again, None, pruned=True)
    assert one.complete() == [2, 0]
    assert two.counts() == {"complete": 2, "pruned": 1, "fail": 0}
    for handle in (lock, last):
        os.close(handle)
    with pytest.raises(UserError, match=r"holds another sweep: flags is \['--a=b'\] there"):
        Study(tmp_path, None, Plan(**{**vars(PLAN), "flags": ["--a=c"]}), space, seed=3)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_its_end(tiny_bert_dir, tmp_path, capsys):
    for name in ("train", "dev"):
        rows = [f"a {('good', 'bad')[i % 2]} film {i}\t{('good', 'bad')[i % 2]}" for i in range(24)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    sweep = tmp_path / "sweep"
    command = ["run_classifier", f"--encoder={tiny_bert_dir}", f"--sweep_dir={sweep}"]
    command += [f"--train_file={tmp_path}/train.tsv", f"--validation_file={tmp_path}/dev.tsv"]
    command += ["--max_seq_length=16", "--train_batch_size=8", "--max_steps=60"]
    command += ["--save_checkpoints_steps=10", "--search=seed=1,2", "--sampler=grid"]
    started = [sys.executable, "-m", "tf_finetune", "sweep", *command]
    with subprocess.Popen(started, cwd=REPOSITORY) as process:
        deadline = time.monotonic() + 300
        while not list(sweep.glob("trial-000/checkpoints/step-*.index")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)

    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "2 runs, 0 stopped early, 0 failed" in shown
    assert "going on from step " in (sweep / "trial-000" / "run.txt").read_text()
    table = json.loads((sweep / "compare.json").read_text())
    assert table["flags"] == ["seed"] and table["seeds"][0]["runs"] == 2
    assert {run["model_dir"] for run in table["runs"]} == {f"{sweep}/trial-00{i}" for i in (0, 1)}
    parsed = parse_flags(Config, ["x", f"--flagfile={sweep}/best.cfg"])
    assert parsed and parsed[0].run.model_dir is None
    assert f"trial-00{parsed[0].runtime.seed - 1}" in (sweep / "best.cfg").read_text()
    assert len(list((sweep / "tokens").glob("*.npz"))) == 1  # Of both files' texts and both runs.

    import tensorflow as tf

    (path,) = (sweep / "trial-001").glob("*.hparams")
    tags = [v.tag for e in tf.compat.v1.train.summary_iterator(str(path)) for v in e.summary.value]
    assert tags == ["_hparams_/session_start_info", "accuracy/best", "_hparams_/session_end_info"]
    # Nothing is left to do, and it says the same.
    assert main(command) == 0
    assert shown.endswith(capsys.readouterr().out)
