"""One device, two replicas of one process, and two processes: the same training."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import local_workers
from tests.kills import KILLS
from tf_finetune.formats.encoders import load_encoder
from tf_finetune.formats.hub_writer import save_hub_encoder
from tf_finetune.training.checkpoints import find

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]

TRAINING = """
import json, sys
import numpy as np
import tensorflow as tf

name, handle, mode, slices, output = sys.argv[1:]
if name == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [device] * 2)
import keras
from tf_finetune import *
from tf_finetune import train as _
from tf_finetune.classification.tokenize import table_rows
from tf_finetune.training.progress import Progress
from tf_finetune.runtime.hardware import make_strategy

module = sys.modules["tf_finetune.training.loop"]
losses = []

class Record(Progress):
    def steps(self, step, scalars, first=False):
        losses.append(scalars["loss"])
        super().steps(step, scalars, first)

module.Progress = Record
runtime = Runtime(make_strategy(RuntimeConfig(distribution_strategy=name))[0])
keras.utils.set_random_seed(1)
problem = Problem("single_label", ("text",), ("bad", "good"))
config = EncoderConfig(dropout=0.0, label_smoothing_factor=0.1)
with runtime.scope():
    # The SavedModel was written without dropout; a native encoder has its own.
    encoder = load_encoder(handle, mode=mode, dropout=0.0 if mode == "native" else None)
    model = build_classifier(encoder, problem, config, runtime=runtime).model
logits_fn = make_logits_fn(model, runtime)
texts = ["good " * (i % 7) + "film" for i in range(37)]
labels = np.arange(37, dtype="int32") % 2
rows = tokenize(Examples((texts,), labels), encoder.preprocessor, 32)
tables = table_rows(encoder, rows)
with runtime.scope():
    settings = OptimizerConfig(learning_rate=1e-3, max_grad_norm=0.5)
    optimizer = build_optimizer(30, settings, table_rows=tables)
few = tokenize(Examples((texts[:1],), labels[:1]), encoder.preprocessor, 32)


def metrics():  # 37 rows by 10; by more than there are; one row, fewer than replicas
    return [
        evaluate(logits_fn, make_eval_dataset(part, size), problem)
        for part, size in ((rows, 10), (rows, 64), (few, 8))
    ]


untrained = metrics()
loop = LoopConfig(max_steps=30, gradient_accumulation_steps=int(slices))
batches = plan_batches(rows, 12, loop)
state = train(model, batches, optimizer=optimizer, loop=loop, runtime=runtime)
result = {
    "replicas": runtime.num_replicas,
    "examples": state.examples,
    "tokens": state.tokens,
    "losses": losses,
    "norm": float(tf.convert_to_tensor(optimizer.gradient_norm.value)),
    "untrained": untrained,
    "metrics": metrics(),
}
weights = {v.path: tf.convert_to_tensor(v.value).numpy() for v in model.trainable_variables}
np.savez(output + ".npz", **{path.replace("/", "|"): value for path, value in weights.items()})
with open(output + ".json", "w") as file:
    json.dump(result, file)
"""


def start_workers(command: Sequence[str]) -> list["subprocess.Popen[str]"]:
    """Starts the same command as the two workers of one cluster."""
    return local_workers.start_workers(
        [[part.replace("{index}", index) for part in command] for index in "01"]
    )


def finish(processes: Sequence["subprocess.Popen[str]"], timeout: float = 300) -> list[str]:
    """Returns the standard errors of processes that end in time."""
    errors = []
    try:
        for process in processes:
            _, error = process.communicate(timeout=timeout)
            errors.append(error)
    finally:
        for process in processes:
            process.kill()
    return errors


@pytest.mark.parametrize(
    ("mode", "slices", "strategies"),
    [
        ("native", 1, ("mirrored", "multi_worker")),
        ("native", 3, ("multi_worker",)),
        ("saved_model", 1, ("mirrored",)),
    ],
)
def test_losses_weights_and_metrics_are_those_of_one_device(
    mode, slices, strategies, tiny_bert_dir, tmp_path
):
    """Clipping, label smoothing and a last batch of one example; dropout is off."""
    save_hub_encoder(load_encoder(str(tiny_bert_dir), dropout=0.0), tmp_path / "hub")
    results, weights = [], []
    for name in ("one_device", *strategies):
        output = str(tmp_path / f"{name}{{index}}")
        arguments = [name, str(tmp_path / "hub/encoder"), mode, str(slices), output]
        command = [sys.executable, "-c", TRAINING, *arguments]
        if name == "multi_worker":
            processes = start_workers(command)
        else:
            plain = [part.replace("{index}", "0") for part in command]
            processes = [
                subprocess.Popen(
                    plain, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
                )
            ]
        errors = finish(processes)
        assert [p.returncode for p in processes] == [0] * len(processes), errors[0][-3000:]
        for index in range(len(processes)):
            path = Path(output.replace("{index}", str(index)))
            results.append(json.loads(path.with_suffix(".json").read_text()))
            weights.append(dict(np.load(path.with_suffix(".npz"))))
    assert [result["replicas"] for result in results] == [1] + [2] * (len(results) - 1)
    one, *others = results
    assert len(one["losses"]) == 30 and one["losses"][-1] < one["losses"][0]
    for other, values in zip(others, weights[1:], strict=True):
        assert (other["examples"], other["tokens"]) == (one["examples"], one["tokens"])
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
        np.testing.assert_allclose(other["norm"], one["norm"], rtol=1e-4)
        # Of the same weights; after the training these differ a little.
        for part, tolerance in (("untrained", 1e-6), ("metrics", 1e-5)):
            for ours, theirs in zip(other[part], one[part], strict=True):
                for metric in ("loss", "accuracy", "macro_f1"):
                    assert ours[metric] == pytest.approx(theirs[metric], abs=tolerance)
        assert values.keys() == weights[0].keys()
        for path, value in values.items():
            # The gradient by a key's bias is zero but for rounding, which Adam blows up.
            if "key" not in path or "bias" not in path:
                error = np.linalg.norm(value - weights[0][path])
                assert error <= 1e-5 * np.linalg.norm(weights[0][path]), path


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
        sys.executable,
        str(REPOSITORY / "run_classifier.py"),
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
    subprocess.run([*command, *ALL, f"--model_dir={tmp_path}/one"], check=True, capture_output=True)
    processes = start_workers([*command, *ALL, f"--model_dir={tmp_path}/two{{index}}"])
    errors = finish(processes)
    assert [p.returncode for p in processes] == [0, 0], errors
    assert not (tmp_path / "two1").exists()
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("one", "two0")]
    assert names[0] == names[1] and "export" in names[0]
    one, two = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two0")
    )
    for part in ("eval", "test"):
        assert two[part]["loss"] == pytest.approx(one[part]["loss"], rel=1e-4)
        assert two[part]["accuracy"] == one[part]["accuracy"]


def wait_for_checkpoint(folder: Path, processes: Sequence["subprocess.Popen[str]"]) -> None:
    deadline = time.monotonic() + 200
    while not find(str(folder / "checkpoints"), "step"):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_worker_ends_the_others_and_the_restart_goes_on(command, tmp_path, victim):
    out = tmp_path / "out"
    command += [f"--model_dir={out}", "--max_steps=3000", "--save_checkpoints_steps=20"]
    processes = start_workers(command)
    wait_for_checkpoint(out, processes)
    processes[victim].kill()
    started = time.monotonic()
    errors = finish(processes, timeout=180)
    other = 1 - victim
    print(f"the other one ended after {time.monotonic() - started:.1f} s:", errors[other][-500:])
    assert processes[other].returncode == 1
    assert "a worker is gone" in errors[other] and "Traceback" not in errors[other]
    reached = int(find(str(out / "checkpoints"), "step")[-1].split("-")[-1])
    assert reached < 3000
    # SIGTERM to one of them stops both, with a checkpoint.
    processes = start_workers(command)
    while int(find(str(out / "checkpoints"), "step")[-1].split("-")[-1]) == reached:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[victim].send_signal(signal.SIGTERM)
    errors = finish(processes)
    assert [process.returncode for process in processes] == [143, 143], errors
    assert all("goes on from checkpoint" in error for error in errors)
    assert "on another worker" in errors[other]


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_workers_that_are_all_killed_go_on_bit_for_bit(
    command, tmp_path, streaming, assert_same_weights
):
    command += [f"--streaming={streaming}", "--label_names=no,yes", "--encoder_dropout=0.1"]
    command += ["--max_steps=200", "--save_checkpoints_steps=10", "--eval_steps=50"]
    processes = start_workers([*command, f"--model_dir={tmp_path}/whole"])
    errors = finish(processes)
    assert [process.returncode for process in processes] == [0, 0], errors
    command += [f"--model_dir={tmp_path}/killed"]
    random = np.random.default_rng(3)
    for _ in range(max(1, KILLS // 10)):
        before = find(str(tmp_path / "killed/checkpoints"), "step")
        processes = start_workers(command)
        while find(str(tmp_path / "killed/checkpoints"), "step") == before:
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.5))
        for process in processes:
            process.kill()
        finish(processes)
    assert not (tmp_path / "killed/checkpoints/step-200.index").exists()
    before = find(str(tmp_path / "killed/checkpoints"), "step")
    processes = start_workers(command)
    while find(str(tmp_path / "killed/checkpoints"), "step") == before:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    # A slow one is waited for.
    processes[1].send_signal(signal.SIGSTOP)
    time.sleep(5)
    assert all(process.poll() is None for process in processes)
    processes[1].send_signal(signal.SIGCONT)
    errors = finish(processes)
    assert [process.returncode for process in processes] == [0, 0], errors
    assert_same_weights(tmp_path / "killed", tmp_path / "whole")
