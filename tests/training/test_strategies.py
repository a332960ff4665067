"""One device, two replicas of one process, and two processes: the same training."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.kills import KILLS
from tests.programs import Program, run, start_workers
from tests.thorough import mostly
from tests.training import one_training
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.hub_writer import save_hub_encoder
from tf_finetune.training.checkpoints import find

pytestmark = pytest.mark.slow
# The encoder's mode and the slices of a batch, of two workers.
WORKERS = ("native:1", "native:3")


def assert_close(other: Path, one: Path) -> None:
    """Compares a training of two replicas with that of one device."""
    theirs, ours = (json.loads(path.with_suffix(".json").read_text()) for path in (other, one))
    assert (theirs["replicas"], ours["replicas"]) == (2, 1)
    assert len(ours["losses"]) == 30 and ours["losses"][-1] < ours["losses"][0]
    assert (theirs["examples"], theirs["tokens"]) == (ours["examples"], ours["tokens"])
    np.testing.assert_allclose(theirs["losses"], ours["losses"], rtol=1e-5)
    np.testing.assert_allclose(theirs["norm"], ours["norm"], rtol=1e-4)
    # Of the same weights; after the training these differ a little.
    for part, tolerance in (("untrained", 1e-6), ("metrics", 1e-5)):
        for found, expected in zip(theirs[part], ours[part], strict=True):
            for metric in ("loss", "accuracy", "macro_f1"):
                assert found[metric] == pytest.approx(expected[metric], abs=tolerance)
    found, expected = (dict(np.load(path.with_suffix(".npz"))) for path in (other, one))
    assert found.keys() == expected.keys()
    for path, value in found.items():
        # The gradient by a key's bias is zero but for rounding, which Adam blows up.
        if "key" not in path or "bias" not in path:
            error = np.linalg.norm(value - expected[path])
            assert error <= 1e-5 * np.linalg.norm(expected[path]), path


@pytest.mark.parametrize("mirrored", mostly("native:1", others=["saved_model:1"]))
def test_losses_weights_and_metrics_are_those_of_one_device(tiny_bert_dir, tmp_path, mirrored):
    """Clipping, label smoothing and a last batch of one example; dropout is off."""
    save_hub_encoder(load_encoder(str(tiny_bert_dir), dropout=0.0), tmp_path / "hub")
    handle, module = str(tmp_path / "hub/encoder"), one_training.__name__
    cases = tuple(dict.fromkeys((mirrored, *WORKERS)))
    run(module, ["one_device", handle, f"{tmp_path}/one", *cases], tmp_path / "log")
    arguments = ["mirrored", handle, f"{tmp_path}/mirrored-", mirrored]
    run(module, arguments, tmp_path / "log")
    arguments = ["multi_worker", handle, f"{tmp_path}/{{index}}-", *WORKERS]
    for worker in start_workers(module, arguments, tmp_path):
        worker.finish()
    for name, trained in (("mirrored", (mirrored,)), ("0", WORKERS), ("1", WORKERS)):
        for number, case in enumerate(trained):
            one = tmp_path / f"one{cases.index(case)}"
            assert_close(tmp_path / f"{name}-{number}", one)


def write_rows(path: Path, rows: int) -> None:
    lines = [
        f"{('good', 'bad')[i % 2]} film {'very ' * (i % 5)}{i}\t{('yes', 'no')[i % 2]}"
        for i in range(rows)
    ]
    path.write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")


@pytest.fixture
def command(tiny_bert_dir, tmp_path) -> list[str]:
    for name, rows in (("train", 64), ("dev", 23), ("test", 17)):
        write_rows(tmp_path / f"{name}.tsv", rows)
    return [
        f"--encoder={tiny_bert_dir}",
        f"--train_file={tmp_path}/train.tsv",
        f"--validation_file={tmp_path}/dev.tsv",
        f"--test_file={tmp_path}/test.tsv",
        "--do_train",
        "--precision=float32",
        "--train_batch_size=8",
        "--learning_rate=3e-3",
        "--max_seq_length=32",
        "--encoder_dropout=0",
        "--dropout=0",
        "--nodo_report",
    ]


ALL = ("--do_eval", "--do_predict", "--do_export", "--max_steps=40", "--eval_steps=20")


def test_workers_without_a_common_file_system_leave_one_model(command, tmp_path):
    """Every worker has a folder of its own: the second one's stays empty."""
    run("run_classifier", [*command, *ALL, f"--model_dir={tmp_path}/one"], tmp_path / "log")
    two = [*command, *ALL, f"--model_dir={tmp_path}/two{{index}}"]
    for worker in start_workers("run_classifier", two, tmp_path):
        worker.finish()
    assert not (tmp_path / "two1").exists()
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("one", "two0")]
    assert names[0] == names[1] and "export" in names[0]
    one, two = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two0")
    )
    for part in ("eval", "test"):
        assert two[part]["loss"] == pytest.approx(one[part]["loss"], rel=1e-4)
        assert two[part]["accuracy"] == one[part]["accuracy"]


@pytest.mark.thorough
def test_workers_teach_a_student_as_one_device_does(command, tmp_path):
    """Only one of the two has the teacher's answers on its disk: both ask again."""
    cache = f"--tokenized_cache_dir={tmp_path}/cache{{index}}"
    log = tmp_path / "log"
    run("run_classifier", [*command, "--max_steps=40", f"--model_dir={tmp_path}/teacher"], log)
    command += [f"--teacher={tmp_path}/teacher", "--num_layers=1", "--do_eval", "--max_steps=20"]
    for name, more in (("one", []), ("slices", ["--gradient_accumulation_steps=2"])):
        folder = f"--model_dir={tmp_path}/{name}"
        run("run_classifier", [*command, *more, folder, cache.format(index=1)], log)
    for worker in start_workers(
        "run_classifier", [*command, cache, f"--model_dir={tmp_path}/two{{index}}"], tmp_path
    ):
        worker.finish()
    one, two, slices = (
        json.loads((tmp_path / name / "metrics.json").read_text())
        for name in ("one", "two0", "slices")
    )
    for part in ("eval", "test"):
        assert two[part]["loss"] == pytest.approx(one[part]["loss"], rel=1e-4)
        assert slices[part]["loss"] == pytest.approx(one[part]["loss"], rel=1e-4)
    assert "prices" in one and "prices" not in two
    assert len(list((tmp_path / "cache0").glob("teacher-*.npz"))) == 1


def newest(folder: Path) -> int:
    """Returns the step of the newest checkpoint, 0 without one."""
    paths = find(str(folder / "checkpoints"), "step")
    return int(paths[-1].split("-")[-1]) if paths else 0


def wait_for_checkpoint(folder: Path, before: int, workers: list[Program]) -> None:
    """Waits until a run has saved one more."""
    deadline = time.monotonic() + 200
    while newest(folder) == before:
        assert time.monotonic() < deadline
        assert [worker.status for worker in workers] == [None, None]
        time.sleep(0.01)


@pytest.mark.parametrize("victim", mostly(0, others=[1]))
def test_a_lost_worker_ends_the_others_and_the_restart_goes_on(command, tmp_path, victim):
    out = tmp_path / "out"
    command += [f"--model_dir={out}", "--max_steps=3000", "--save_checkpoints_steps=20"]
    workers = start_workers("run_classifier", command, tmp_path)
    wait_for_checkpoint(out, 0, workers)
    workers[victim].kill()
    said = workers[1 - victim].finish(1, limit=180)
    assert "a worker is gone" in said and "Traceback" not in said
    reached = newest(out)
    assert reached < 3000
    # SIGTERM to one of them stops both, with a checkpoint.
    workers = start_workers("run_classifier", command, tmp_path)
    wait_for_checkpoint(out, reached, workers)
    workers[victim].send(signal.SIGTERM)
    told = [worker.finish(143) for worker in workers]
    assert all("goes on from checkpoint" in said for said in told)
    assert "on another worker" in told[1 - victim]


@pytest.mark.parametrize("streaming", ["true", pytest.param("false", marks=pytest.mark.thorough)])
def test_workers_that_are_all_killed_go_on_bit_for_bit(
    command, tmp_path, streaming, assert_same_weights
):
    command += [f"--streaming={streaming}", "--label_names=no,yes", "--encoder_dropout=0.1"]
    command += ["--max_steps=80", "--save_checkpoints_steps=5", "--eval_steps=20"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for worker in start_workers("run_classifier", [*command, f"--model_dir={whole}"], tmp_path):
        worker.finish()
    command += [f"--model_dir={killed}"]
    random = np.random.default_rng(3)
    for _ in range(max(1, KILLS // 10)):
        before = newest(killed)
        workers = start_workers("run_classifier", command, tmp_path)
        wait_for_checkpoint(killed, before, workers)
        time.sleep(random.uniform(0, 0.5))
        for worker in workers:
            worker.kill()
    before = newest(killed)
    assert before < 80
    workers = start_workers("run_classifier", command, tmp_path)
    wait_for_checkpoint(killed, before, workers)
    # A slow one is waited for.
    workers[1].send(signal.SIGSTOP)
    time.sleep(5)
    assert [worker.status for worker in workers] == [None, None]
    workers[1].send(signal.SIGCONT)
    for worker in workers:
        worker.finish()
    assert_same_weights(killed, whole)
