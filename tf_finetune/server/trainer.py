"""`Trainer`: the process of one job's training, which may outlive the server that started it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import tf_finetune
from tf_finetune.runs.lock import take_lock
from tf_finetune.server.job_flags import JobFolder

# A training gets what it computes with, and none of the server's secrets.
_KEPT_NAMES = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT", "TZ")
_KEPT_STARTS = ("LC_", "LD_", "CUDA_", "NVIDIA_", "TF_", "XLA_", "HF_HOME", "HF_HUB_", "OMP_")


class Trainer:
    """The process of one job's training.

    The lock of the job's folder is the process': the server takes it, hands it on, and lets it go.
    So it ends with the process, whoever was killed, and a job never has two.

    Args:
        folder: The job's.
        process: The process; None: an earlier server started it.
        pid: Its number; None: not known.
    """

    def __init__(
        self, folder: JobFolder, process: "subprocess.Popen[bytes] | None", pid: int | None
    ) -> None:
        self._folder, self._process, self.pid = folder, process, pid
        self.is_told = False

    @classmethod
    def start(cls, folder: JobFolder, command: Sequence[str]) -> "Trainer | None":
        """Starts a command.

        Args:
            folder: Of the job.
            command: The command.

        Returns:
            The process; None: an earlier one is at work still.
        """
        lock = take_lock(folder.lock)
        if lock is None:
            return None
        try:
            with folder.output.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=folder.path,
                    env=_environment(os.environ),
                    pass_fds=[lock],
                    # Ctrl-C is the server's, which stops its trainings itself.
                    start_new_session=True,
                )
        finally:
            os.close(lock)
        return cls(folder, process, process.pid)

    @classmethod
    def find(cls, folder: JobFolder, pid: int | None) -> "Trainer | None":
        """Returns the process that an earlier server started, if it is still at work.

        Args:
            folder: Of the job.
            pid: The number that was noted; None: none was, yet.
        """
        if not folder.lock.exists():
            return None
        lock = take_lock(folder.lock)
        if lock is None:
            return cls(folder, None, pid)
        os.close(lock)
        return None

    @property
    def is_running(self) -> bool:
        """Whether the process is at work."""
        if self._process:
            return self._process.poll() is None
        return Trainer.find(self._folder, None) is not None

    @property
    def exit_status(self) -> int | None:
        """Its exit status, as of Popen; None: not known."""
        return self._process.returncode if self._process else None

    def stop(self) -> None:
        """Tells it to save and to end, once."""
        if not self.is_told and self.pid and self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        self.is_told = True


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in own.items()
        if name in _KEPT_NAMES or name.startswith(_KEPT_STARTS)
    }
    # Where this package is, however the server was started.
    return {**kept, "PYTHONPATH": str(Path(tf_finetune.__file__).resolve().parents[1])}
