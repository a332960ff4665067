"""Choices of hardware, on what this machine has."""

import json
import os
import socket
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from tests.thorough import mostly
from tf_finetune.errors import UserError
from tf_finetune.runs.config import RuntimeConfig
from tf_finetune.runtime.hardware import (
    Runtime,
    choose_jit_compile,
    choose_precision,
    choose_steps_per_loop,
    make_runtime,
    make_strategy,
)

WORKER = """
import tensorflow as tf
from tf_finetune.classification.run import run  # what the command line imports before it
from tf_finetune.runs.config import RuntimeConfig
from tf_finetune.runtime.hardware import make_strategy

strategy, reason = make_strategy(RuntimeConfig())

@tf.function
def total():
    def one():
        replica = tf.distribute.get_replica_context()
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0))

    return strategy.run(one)


print(type(strategy).__name__, reason, float(total()), sep="; ")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_workers_meet():
    workers = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error[-3000:]
        assert out.splitlines()[-1] == (
            "CollectiveAllReduceStrategy; TF_CONFIG names 2 workers; 2.0"
        )


def test_strategies_that_are_not_there(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UserError, match="nor Slurm names workers"):
        make_strategy(RuntimeConfig(distribution_strategy="multi_worker"))
    with pytest.raises(UserError, match="--tpu=no_such_tpu: cannot connect"):
        make_strategy(RuntimeConfig(tpu="no_such_tpu"))
    one_device = RuntimeConfig(distribution_strategy="one_device")
    assert make_strategy(one_device)[0].num_replicas_in_sync == 1


def test_precision_is_as_asked():
    assert choose_precision("mixed_float16") == ("mixed_float16", "as asked")
    assert choose_precision("auto")[0] in ("float32", "mixed_bfloat16")


def test_what_is_asked_for_counts_before_the_hardware():
    assert choose_jit_compile("true") and not choose_jit_compile("false")
    assert choose_steps_per_loop(7) == 7
    found = tf.config.list_physical_devices("GPU") or tf.config.list_logical_devices("TPU")
    assert choose_jit_compile("auto") == bool(found)
    assert choose_steps_per_loop(None) == (20 if found else 1)


def test_a_runtime_is_set_up_as_asked(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    config = RuntimeConfig(
        seed=7,
        precision="mixed_float16",
        jit_compile="true",
        steps_per_loop=3,
        distribution_strategy="one_device",
    )
    drawn = []
    for _ in range(2):
        runtime = make_runtime(config)
        drawn.append(keras.random.uniform([4], seed=keras.random.SeedGenerator()).numpy().tolist())
    assert drawn[0] == drawn[1]
    assert keras.config.dtype_policy().name == "mixed_float16"
    assert runtime.jit_compile and runtime.steps_per_loop == 3
    assert runtime.num_replicas == 1 and runtime.workers.is_chief
    assert runtime.description.splitlines() == [
        "strategy   _DefaultDistributionStrategy (1): as asked",
        "precision  mixed_float16: as asked; XLA on",
    ]


def test_the_plain_runtime_is_the_current_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        assert Runtime().strategy is strategy
    runtime = Runtime(strategy)
    assert not runtime.jit_compile and runtime.steps_per_loop == 1
    assert runtime.workers is runtime.workers and not runtime.workers.is_multi_worker
    with runtime.scope():
        assert tf.distribute.get_strategy() is strategy


THREADS = """
import os, sys
import tensorflow as tf
from tf_finetune.runtime.hardware import make_runtime, spread_over_operations

os.cpu_count = lambda: int(sys.argv[1])
spread_over_operations()
make_runtime()
print(tf.reduce_sum(tf.ones(3)).numpy(), tf.config.threading.get_intra_op_parallelism_threads())
print(tf.config.threading.get_inter_op_parallelism_threads())
os.cpu_count = lambda: 3
spread_over_operations()  # too late, and no error
"""


@pytest.mark.parametrize(("cores", "threads"), mostly((2, ["1", "2"]), others=[(64, ["0", "0"])]))
def test_few_cores_compute_an_operation_each(cores, threads):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU computes")
    command = [sys.executable, "-c", THREADS, str(cores)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3.0", *threads]
