"""Jobs of many steps, and the processes that train them."""

from typing import Any

import psutil

from tests.server.conftest import Server, polls

ROWS, EPOCHS = 24, 12
STEPS = ROWS * EPOCHS


def create(server: Server, file: str, epochs: int = EPOCHS, **more: Any) -> str:
    """Creates a job of many steps; all that are created so have the same weights in the end."""
    numbers = {"n_epochs": epochs, "batch_size": 1}
    method = {"type": "supervised", "supervised": {"hyperparameters": numbers}}
    jobs = server.client.fine_tuning.jobs
    given = {"model": "tiny", "training_file": file, "seed": 3, "method": method, **more}
    return str(jobs.create(**given).id)


def steps(server: Server, job: str) -> list[int]:
    """Returns the steps that events tell of, oldest first, over several pages."""
    events = server.client.fine_tuning.jobs.list_events(job, limit=100)
    return [event.data["step"] for event in events if event.data][::-1]


def wait_for_steps(server: Server, job: str, count: int) -> None:
    """Waits until a training has done so many steps; it must not have ended."""
    log = server.model_dir(job) / "log.jsonl"
    for _ in polls():
        if log.exists() and len(log.read_text().splitlines()) >= count:
            break
    assert server.client.fine_tuning.jobs.retrieve(job).status == "running"


def trainers(server: Server) -> list[psutil.Process]:
    """Returns the processes that train jobs of a server, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(server.folder) in part for part in process.cmdline()[2:]):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return [process for process in found if process.pid != server.process.pid]


def wait_for_no_trainer(server: Server) -> None:
    for _ in polls():
        if not trainers(server):
            return
    raise AssertionError(trainers(server))
