"""The endpoints of fine-tuning jobs."""

import os
import random
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from tf_finetune.files import make_dirs, remove
from tf_finetune.server.failures import ApiError, not_found
from tf_finetune.server.files import Files, sync_folder
from tf_finetune.server.job_flags import JobFolder
from tf_finetune.server.job_request import CreateJob
from tf_finetune.server.models import Models
from tf_finetune.server.pages import listed
from tf_finetune.server.queue import Queue
from tf_finetune.server.store import Event, Job, Store, job_of, new_id

_ACTIVE = ("validating_files", "queued", "running")
Limit = Annotated[int, Query(ge=1, le=100)]


class Jobs:
    """What clients do with jobs.

    Args:
        store: The jobs.
        files: Their data.
        models: What they train.
        queue: Is woken.
        organization: A part of the tuned models' names.
    """

    def __init__(
        self, store: Store, files: Files, models: Models, queue: Queue, organization: str
    ) -> None:
        self.store, self._files, self._models = store, files, models
        self._queue, self.organization = queue, organization

    def create(self, request: CreateJob) -> Job:
        """Adds a job, and keeps its data for it.

        Raises:
            ApiError: There is no such model or file, or it cannot be trained.
        """
        model = self._models.resolve(request.model)
        if model.step is not None:
            raise ApiError(
                400,
                f"{model.name} is a checkpoint. Train its last step: the name before :ckpt.",
                "model",
            )
        name = new_id("ftjob-")
        self._keep_data(request, self._queue.folder(name))
        base = request.model.split(":")[1] if model.job else model.name
        suffix = request.suffix or ""
        tuned = f"ft:{base}:{self.organization}:{suffix}:{name.removeprefix('ftjob-')[:8]}"
        with self.store.transaction():
            self._models.resolve(request.model)  # It may have been deleted meanwhile.
            self.store.add(
                "jobs",
                id=name,
                model=request.model,
                handle=model.handle,
                init_from=model.job,
                status="validating_files",
                training_file=request.training_file,
                validation_file=request.validation_file,
                suffix=request.suffix,
                seed=random.getrandbits(31) if request.seed is None else request.seed,
                method=request.method_type,
                hyperparameters=request.numbers,
                metadata=request.metadata,
                fine_tuned_model=tuned,
            )
            self.store.tell(name, *_first_events(name, request))
        self._queue.wake()
        return self.find(name)

    def _keep_data(self, request: CreateJob, folder: JobFolder) -> None:
        """Links a job's files into its folder; there is none if one of them cannot be used."""
        make_dirs(str(folder.path))
        try:
            for param in ("training_file", "validation_file"):
                if (file := getattr(request, param)) is not None:
                    self._link(file, param, folder)
            sync_folder(folder.path)
        except BaseException:
            remove(str(folder.path))
            raise

    def _link(self, file: str, param: str, folder: JobFolder) -> None:
        purpose = self._files.find(file, param)["purpose"]
        if purpose != "fine-tune":
            raise ApiError(400, f"{file} is of the purpose {purpose}, not fine-tune.", param)
        try:
            # A name of its own: the file may be deleted while the job waits.
            os.link(self._files.path(file), folder.data(param))
        except FileNotFoundError:  # Deleted just now.
            raise not_found("File object", file, param) from None

    def find(self, name: str) -> Job:
        """Returns a job.

        Raises:
            ApiError: There is none.
        """
        job = self.store.job(name)
        if job is None:
            raise not_found("fine-tuning job", name, "fine_tuning_job_id")
        return job

    def cancel(self, name: str) -> Job:
        """Ends a job."""
        values = {"status": "cancelled", "finished_at": int(time.time()), "paused": False}
        return self._change(name, Event("Fine-tuning job cancelled"), values)

    def pause(self, name: str) -> Job:
        """Stops a job until it is resumed; its training saves where it is."""
        job = self.find(name)
        if job.status == "validating_files":
            raise ApiError(400, f"{name} is validated still; pause it when it is queued.")
        return self._change(
            name, Event("Fine-tuning job paused"), {"status": "queued", "paused": 1}
        )

    def resume(self, name: str) -> Job:
        """Has a paused job go on."""
        if not self.find(name).paused:
            raise ApiError(400, f"{name} is not paused.")
        return self._change(name, Event("Fine-tuning job resumed"), {"paused": False})

    def _change(self, name: str, event: Event, values: Mapping[str, Any]) -> Job:
        with self.store.transaction():
            job = self.find(name)
            if not self.store.change(name, _ACTIVE, estimated_finish=None, **values):
                raise ApiError(400, f"{name} has ended: it is {job.status}.")
            self.store.tell(name, event)
        self._queue.wake()
        return self.find(name)

    def shown(self, job: Job) -> dict[str, Any]:
        """Returns a job as clients see it."""
        names = ("n_epochs", "batch_size", "learning_rate_multiplier", "beta")
        numbers = {name: job.hyperparameters[name] for name in names if name in job.hyperparameters}
        succeeded = job.status == "succeeded"
        return {
            "object": "fine_tuning.job",
            "id": job.id,
            "created_at": job.created_at,
            "finished_at": job.finished_at,
            "model": job.model,
            "fine_tuned_model": job.fine_tuned_model if succeeded else None,
            "organization_id": self.organization,
            "status": job.status,
            "hyperparameters": {name: numbers[name] for name in names[:3]},
            "method": {"type": job.method, job.method: {"hyperparameters": numbers}},
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "result_files": [job.result_file] if job.result_file else [],
            "trained_tokens": job.trained_tokens,
            "error": job.error,
            "user_provided_suffix": job.suffix,
            "seed": job.seed,
            "estimated_finish": job.estimated_finish if job.status == "running" else None,
            "integrations": [],
            "metadata": job.metadata,
        }


def make_router(jobs: Jobs) -> APIRouter:
    """Makes the endpoints of fine-tuning jobs.

    Args:
        jobs: The jobs.
    """
    router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine_tuning.jobs"])
    store = jobs.store

    @router.post("")
    def create(request: CreateJob) -> dict[str, Any]:
        return jobs.shown(jobs.create(request))

    @router.get("")
    def list_jobs(request: Request, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
        page = store.page("jobs", after, limit, {"metadata": _metadata(request)})
        return listed(page, lambda row: jobs.shown(job_of(row)), after)

    @router.get("/{name}")
    def retrieve(name: str) -> dict[str, Any]:
        return jobs.shown(jobs.find(name))

    @router.post("/{name}/cancel")
    def cancel(name: str) -> dict[str, Any]:
        return jobs.shown(jobs.cancel(name))

    @router.post("/{name}/pause")
    def pause(name: str) -> dict[str, Any]:
        return jobs.shown(jobs.pause(name))

    @router.post("/{name}/resume")
    def resume(name: str) -> dict[str, Any]:
        return jobs.shown(jobs.resume(name))

    @router.get("/{name}/events")
    def events(name: str, after: str | None = None, limit: Limit = 20) -> dict[str, Any]:
        page = store.page("events", after, limit, {"job_id": jobs.find(name).id})
        return listed(page, _event, after)

    @router.get("/{name}/checkpoints")
    def checkpoints(name: str, after: str | None = None, limit: Limit = 10) -> dict[str, Any]:
        job = jobs.find(name)
        page = store.page("checkpoints", after, limit, {"job_id": job.id})
        return listed(page, lambda row: _checkpoint(job, row), after)

    return router


def _first_events(name: str, request: CreateJob) -> list[Event]:
    events = [
        Event(f"Created fine-tuning job: {name}"),
        Event(f"Validating training file: {request.training_file}"),
    ]
    if request.integrations:
        kinds = ", ".join(item.type for item in request.integrations)
        message = f"Ignored: the integrations {kinds}, which do not leave this machine"
        events.append(Event(message, "warn"))
    return events


def _metadata(request: Request) -> dict[str, str]:
    """Returns the pairs of the query's `metadata[key]=value`."""
    starts = "metadata["
    return {
        name[len(starts) : -1]: value
        for name, value in request.query_params.items()
        if name.startswith(starts) and name.endswith("]")
    }


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "created_at", "level", "message", "type", "data")
    return {"object": "fine_tuning.job.event"} | {name: row[name] for name in names}


def _checkpoint(job: Job, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": row["id"],
        "created_at": row["created_at"],
        "fine_tuning_job_id": job.id,
        "fine_tuned_model_checkpoint": f"{job.fine_tuned_model}:ckpt-step-{row['step']}",
        "step_number": row["step"],
        "metrics": row["metrics"],
    }
