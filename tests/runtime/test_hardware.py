"""Choices of hardware, on what this machine has."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tf_finetune.errors import UserError
from tf_finetune.runtime.hardware import choose_precision, make_strategy

WORKER = """
import tensorflow as tf
from tf_finetune.classification.run import run  # what the command line imports before it
from tf_finetune.runtime.hardware import make_strategy

strategy, reason = make_strategy()

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
        make_strategy("multi_worker")
    with pytest.raises(UserError, match="--tpu=no_such_tpu: cannot connect"):
        make_strategy("auto", tpu="no_such_tpu")
    assert make_strategy("one_device")[0].num_replicas_in_sync == 1


def test_precision_is_as_asked():
    assert choose_precision("mixed_float16") == ("mixed_float16", "as asked")
    assert choose_precision("auto")[0] in ("float32", "mixed_bfloat16")
