"""Programs as processes of their own, forked from one that has TensorFlow imported already.

To import it takes half of the time of a toy's training. Nothing has computed in that process.
"""

import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import tensorflow as tf

from benchmarks.local_workers import free_ports
from tf_finetune.training import loop
from tf_finetune.training.progress import Progress

_context = multiprocessing.get_context("forkserver")


class Program:
    """A command that runs.

    Args:
        module: The command's; its `main` takes what `sys.argv` holds and returns the exit status.
        arguments: The command's.
        log: Gets what it prints and says, in place of what it held.
        environment: Its variables beside those of this process.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        _context.set_forkserver_preload(
            ["tf_finetune.generation.run", "tf_finetune.classification.run", __name__]
        )
        values = (module, [module, *arguments], str(log), {**os.environ, **(environment or {})})
        self._process = _context.Process(target=_main, args=values)
        self._process.start()

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal that ended it; None while it runs."""
        return self._process.exitcode

    def send(self, signal: int) -> None:
        """Sends it a signal."""
        assert self._process.pid
        os.kill(self._process.pid, signal)

    def kill(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.join()

    def finish(self, status: int = 0, limit: float = 300) -> str:
        """Waits until it ends with a status, and returns what it has said."""
        self._process.join(limit)
        said = self._log.read_text(encoding="utf-8")
        assert self.status == status, f"{self.status} in place of {status}: {said[-3000:]}"
        return said


def run(
    module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> str:
    """Runs a command to its good end, and returns what it has said."""
    return Program(module, arguments, log, environment).finish()


def start_workers(module: str, arguments: Sequence[str], folder: Path) -> list[Program]:
    """Starts a command as the two workers of one cluster.

    Args:
        module: As of `Program`.
        arguments: `{index}` in them is the worker's.
        folder: Gets the logs.
    """
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    programs = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        own = [argument.replace("{index}", str(index)) for argument in arguments]
        log = folder / f"worker{index}.log"
        programs.append(Program(module, own, log, {"TF_CONFIG": json.dumps(task)}))
    return programs


def two_devices() -> None:
    """Divides this process' processor in two."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    device = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [device] * 2)


def record_losses(stop_at: int = 0) -> list[float]:
    """Returns a list that gets the losses of the steps of this process' next training.

    Args:
        stop_at: The process ends like a killed one after so many steps, with status 9.
    """
    losses = []

    class Record(Progress):
        def steps(self, step: int, scalars: dict[str, float], first: bool = False) -> None:
            losses.append(scalars["loss"])
            super().steps(step, scalars, first)
            if step == stop_at:
                os._exit(9)

    loop.Progress = Record  # type: ignore[misc]
    return losses


def _main(module: str, argv: list[str], log: str, environment: dict[str, str]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(file, number)
    os.environ.update(environment)
    sys.argv = argv
    sys.exit(import_module(module).main(argv))
