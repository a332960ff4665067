"""One trial of a sweep: a run in a process of its own, followed by the points that it logs."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.experiments.run_facts import read_log
from tf_finetune.process import own_environment
from tf_finetune.runs.lock import take_lock
from tf_finetune.runs.model_dir import ModelDir

_POLL_SECONDS = 0.2
# A run that was asked to stop saves a checkpoint first.
_STOP_SECONDS = 120
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class Stopped(Exception):
    """A trial was stopped before its end."""


def run_trial(
    program: str,
    flags: Sequence[str],
    model_dir: ModelDir,
    follow: Callable[[Mapping[str, Any]], bool],
) -> None:
    """Runs a trial to its end. One that was killed goes on from its last checkpoint.

    Args:
        program: `run_classifier` or `run_generator`.
        flags: Its flags.
        model_dir: Its folder, which gets what it prints as `run.txt`.
        follow: Gets each point that is logged on the way; True stops the run.

    Raises:
        Stopped: `follow` has stopped it.
        UserError: The run has failed; the message is its own.
    """
    os.makedirs(model_dir.path, exist_ok=True)
    _wait_for_orphan(model_dir)
    printed = Path(model_dir.path, "run.txt")
    with printed.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "tf_finetune", program, *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=own_environment(),
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    try:
        _follow(process, model_dir, follow)
    finally:
        _stop(process)
    if process.returncode:
        lines = printed.read_bytes()[start:].decode(errors="replace").splitlines()
        said = next((line for line in reversed(lines) if line.startswith("error: ")), "")
        raise UserError(said.removeprefix("error: ") or f"exit status {process.returncode}")


def _follow(
    process: "subprocess.Popen[bytes]",
    model_dir: ModelDir,
    follow: Callable[[Mapping[str, Any]], bool],
) -> None:
    seen = 0
    while True:
        ended = process.poll() is not None
        points = read_log(model_dir)
        for point in points[seen:]:
            if follow(point) and not ended:
                raise Stopped
        seen = len(points)
        if ended:
            return
        time.sleep(_POLL_SECONDS)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_orphan(model_dir: ModelDir) -> None:
    """Waits for the run of a sweep that was killed, which saves a checkpoint as it ends."""
    deadline = time.monotonic() + _STOP_SECONDS
    with contextlib.suppress(OSError):  # Some network file systems have no locks.
        while time.monotonic() < deadline:
            lock = take_lock(Path(model_dir.path))
            if lock is not None:
                os.close(lock)
                return
            time.sleep(_POLL_SECONDS)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
