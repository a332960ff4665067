"""`Queue`: checks the files of jobs, starts their trainings, follows them, and ends them."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tf_finetune.errors import UserError
from tf_finetune.files import make_dirs, remove, write_text_atomic
from tf_finetune.server.files import Files
from tf_finetune.server.hyperparameters import resolved
from tf_finetune.server.job_flags import JobFolder, command_of, flags_of, kind_of
from tf_finetune.server.progress import read_points, report, results_csv, trained_tokens
from tf_finetune.server.store import FINISHED, Event, Job, Store
from tf_finetune.server.trainer import Trainer
from tf_finetune.server.validation import InvalidFile, check_dialogues, check_labelled

_STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGINT)
# Seconds between two looks at the trainings, and at a queue that nobody has woken.
_LOOK, _REST = 0.2, 5.0
_TAIL = 65536


class Queue:
    """The jobs that wait and those that run, as the store has them.

    One thread checks files and another follows trainings. What clients want, they write into the
    store; `wake` has it looked at. A server that was killed left jobs whose status is `running`:
    their trainings are found by the locks of their folders and followed, or started again.

    Args:
        folder: Gets a folder for each job.
        store: The jobs.
        files: Get the results.
        max_running: Trainings at a time.
    """

    def __init__(self, folder: Path, store: Store, files: Files, max_running: int) -> None:
        self._folder, self._store, self._files = folder, store, files
        self._max_running = max_running
        self._trainers: dict[str, Trainer] = {}
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._to_check = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(turn, woken), daemon=True)
            for turn, woken in ((self._check, self._to_check), (self._follow, self._woken))
        ]
        make_dirs(str(folder))
        for path in folder.iterdir():
            if not store.job(path.name):  # Its server was killed before it was added.
                remove(str(path))

    def folder(self, job: str) -> JobFolder:
        """Returns the folder of a job by its id."""
        return JobFolder(self._folder / job)

    def start(self) -> None:
        """Finds the trainings of an earlier server, and begins to work."""
        for job in self._store.jobs("pid IS NOT NULL OR status = 'running'"):
            if trainer := Trainer.find(self.folder(job.id), job.pid):
                self._trainers[job.id] = trainer
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Has the store looked at now: a job was added or changed."""
        self._to_check.set()
        self._woken.set()

    def stop(self) -> None:
        """Has the trainings saved and ended; their jobs go on when the server is started again."""
        self._stopping.set()
        self.wake()
        for thread in self._threads:
            thread.join()
        for trainer in self._trainers.values():
            trainer.stop()
        while any(trainer.is_running for trainer in self._trainers.values()):
            time.sleep(_LOOK)

    def _repeat(self, turn: Callable[[], None], woken: threading.Event) -> None:
        while not self._stopping.is_set():
            try:
                turn()
            except Exception:  # A full disk: the next turn may find it mended.
                traceback.print_exc()
            woken.wait(_LOOK if self._trainers else _REST)
            woken.clear()

    def _check(self) -> None:
        """Checks the files of the jobs that are new."""
        for job in self._store.jobs("status = 'validating_files'"):
            folder = self.folder(job.id)
            params = ("training_file", "validation_file")
            paths = {param: folder.data(param) for param in params if folder.data(param).exists()}
            try:
                kind = kind_of(job.handle)
                count = self._count(job, kind, paths)
            except InvalidFile as error:
                self._fail(job, "validating_files", **error.error)
                continue
            except UserError as error:
                self._fail(job, "validating_files", "invalid_model", str(error), "model")
                continue
            except Exception:  # It must not keep those behind it waiting.
                self._fail_of_server(job, "validating_files")
                continue
            numbers = {**resolved(job.hyperparameters, count), "num_examples": count}
            with self._store.transaction():
                values = {"status": "queued", "kind": kind, "hyperparameters": numbers}
                if self._store.change(job.id, ["validating_files"], **values):
                    message = "Files validated, moving job to queued state"
                    self._store.tell(job.id, Event(message))
            self._woken.set()

    def _count(self, job: Job, kind: str, paths: dict[str, Path]) -> int:
        if kind == "generator":
            return check_dialogues(paths, job.method)
        if job.method != "supervised":
            raise UserError(
                f"{job.model} is an encoder, which learns labels: the method is {job.method}, and "
                "must be supervised."
            )
        return check_labelled(paths)

    def _follow(self) -> None:
        """Looks at each training, and starts those that there is room for."""
        for name, trainer in [*self._trainers.items()]:
            job = self._store.job(name)
            assert job
            if job.status != "running" or job.paused:
                trainer.stop()
            is_running = trainer.is_running
            report(self._store, job, self.folder(name))
            if not is_running:
                try:
                    self._ended(job, trainer)
                except OSError:  # The results could not be written; the next turn tries again.
                    raise
                except Exception:
                    self._fail_of_server(job, "running")
                del self._trainers[name]
        where = "status IN ('running', 'queued') AND NOT paused"
        waiting = [job for job in self._store.jobs(where) if job.id not in self._trainers]
        # Those that an earlier server left running come first.
        for job in sorted(waiting, key=lambda job: job.status != "running"):
            if len(self._trainers) < self._max_running and not self._stopping.is_set():
                self._start(job)

    def _start(self, job: Job) -> None:
        folder = self.folder(job.id)
        init_from = self.folder(job.init_from) if job.init_from else None
        try:
            write_text_atomic(folder.flagfile, flags_of(job, folder, init_from))
        except UserError as error:
            self._fail(job, job.status, "invalid_request", str(error), None)
            return
        except OSError:
            raise
        except Exception:
            self._fail_of_server(job, job.status)
            return
        with self._store.transaction():
            now = self._store.job(job.id)
            if not now or now.paused or now.status != job.status:
                return  # The client has just changed it.
            message = (
                "Fine-tuning job goes on" if folder.log.exists() else "Fine-tuning job started"
            )
            self._store.change(job.id, [job.status], status="running", pid=None)
            self._store.tell(job.id, Event(message))
        if trainer := Trainer.start(folder, command_of(job, folder)):
            self._store.change(job.id, ["running", "queued", "cancelled"], pid=trainer.pid)
        else:
            trainer = Trainer(folder, None, None)
        self._trainers[job.id] = trainer

    def _ended(self, job: Job, trainer: Trainer) -> None:
        """Does what follows the end of a training's process."""
        folder, status = self.folder(job.id), trainer.exit_status
        self._store.change(job.id, ["running", "queued", *FINISHED], pid=None)
        if trainer.is_told or status is None or job.status != "running":
            return  # Of a process that another server started: the command says how it ended.
        if status == 0:
            self._succeed(job, folder)
        elif status in _STOPPED:
            with self._store.transaction():
                message = "Fine-tuning job paused: a signal stopped its training; resume it"
                if self._store.change(job.id, ["running"], status="queued", paused=True):
                    self._store.tell(job.id, Event(message, "warn"))
        else:
            self._fail(job, "running", "training_failed", _last_words(folder, status), None)

    def _succeed(self, job: Job, folder: JobFolder) -> None:
        tokens, text = trained_tokens(folder), results_csv(read_points(folder))
        with self._store.transaction():
            now = self._store.job(job.id)
            if not now or now.status != "running":
                return  # The client has just paused or cancelled it.
            name = f"step_metrics_{job.id}.csv"
            results = self._files.write(name, text, "fine-tune-results")
            self._store.change(
                job.id,
                ["running"],
                status="succeeded",
                finished_at=int(time.time()),
                trained_tokens=tokens,
                result_file=results["id"],
                estimated_finish=None,
            )
            self._store.tell(
                job.id,
                Event(f"New fine-tuned model created: {job.fine_tuned_model}"),
                Event("The job has successfully completed"),
            )

    def _fail_of_server(self, job: Job, status: str) -> None:
        """Ends a job at which the server itself failed."""
        traceback.print_exc()
        message = "The server failed at this job; its log says why."
        self._fail(job, status, "server_error", message, None)

    def _fail(self, job: Job, status: str, code: str, message: str, param: str | None) -> None:
        error = {"code": code, "message": message, "param": param}
        values = {"status": "failed", "error": error, "finished_at": int(time.time())}
        with self._store.transaction():
            if self._store.change(job.id, [status], estimated_finish=None, **values):
                self._store.tell(job.id, Event(message, "error"))


def _last_words(folder: JobFolder, status: int) -> str:
    """Returns the error message that a training ended with."""
    with folder.output.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), "")
    if status < 0:
        said += f" Its process was killed by signal {-status}; memory may be short."
    elif not said:
        said = f"It ended with status {status}; the server's {folder.output.name} says more."
    # A client knows no folder of the server.
    said = said.removeprefix("error: ").replace(f"{folder.path}/", "")
    return f"The training failed. {said.strip()}"
