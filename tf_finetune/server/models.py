"""`Models`: base models, tuned ones and checkpoints by their names, and the endpoints of models."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from tf_finetune.files import remove
from tf_finetune.server.failures import ApiError, not_found
from tf_finetune.server.job_flags import JobFolder, Kind, kind_of
from tf_finetune.server.store import Job, Store

_CHECKPOINT = re.compile(r"(ft:.+):ckpt-step-(\d+)")


@dataclass(frozen=True)
class ServedModel:
    """A model by its name.

    Attributes:
        name: The name.
        handle: That of the base model.
        model_dir: The model directory of its training; None: the base as it is.
        step: Of the checkpoint there; None: the last one.
        created: Seconds since 1970.
        owner: Who made it.
        job: The id of the job that made it; None: the base.
    """

    name: str
    handle: str
    model_dir: Path | None
    step: int | None
    created: int
    owner: str
    job: str | None = None

    @property
    def kind(self) -> Kind:
        """`generator` or `classifier`.

        Raises:
            UserError: The handle is of neither.
        """
        return kind_of(self.handle)


class Models:
    """What can be fine-tuned and asked.

    Args:
        bases: The handles of the base models by their names.
        jobs: The folder of the jobs' folders.
        store: The jobs.
        started: When the server was started, in seconds since 1970.
    """

    def __init__(self, bases: Mapping[str, str], jobs: Path, store: Store, started: int) -> None:
        self._bases, self._jobs, self._store, self._started = bases, jobs, store, started

    def all(self) -> list[ServedModel]:
        """Returns the base models, then the tuned ones, oldest first."""
        jobs = self._store.jobs("status = 'succeeded' AND NOT deleted")
        return [*map(self._base, self._bases), *map(self._tuned, jobs)]

    def resolve(self, name: str, param: str = "model") -> ServedModel:
        """Returns a base model, a tuned one, or a checkpoint (`<tuned>:ckpt-step-<N>`).

        Args:
            name: Its name.
            param: The request's field that names it.

        Raises:
            ApiError: There is no such model.
        """
        if name in self._bases:
            return self._base(name)
        checkpoint = _CHECKPOINT.fullmatch(name)
        found = self._store.jobs("fine_tuned_model = ?", checkpoint[1] if checkpoint else name)
        job = found[0] if found and not found[0].deleted else None
        if job and checkpoint:
            step = int(checkpoint[2])
            if step < 2**63 and self._store.find("checkpoints", job_id=job.id, step=step):
                return self._tuned(job, step)
        elif job and job.status == "succeeded":
            return self._tuned(job)
        raise not_found("model", name, param)

    def delete(self, name: str) -> None:
        """Removes a tuned model, its checkpoints too.

        Raises:
            ApiError: There is no such model, it is a base or a checkpoint, or a job needs it.
        """
        model = self.resolve(name)
        if model.job is None or model.step is not None:
            raise ApiError(400, f"{name} is not a tuned model: only these can be deleted.", "model")
        with self._store.transaction():
            where = "init_from = ? AND status NOT IN ('succeeded', 'failed', 'cancelled')"
            if waiting := self._store.jobs(where, model.job):
                raise ApiError(400, f"{waiting[0].id} trains this model further.", "model")
            self._store.change(model.job, ["succeeded"], deleted=True)
            self._store.remove("checkpoints", job_id=model.job)
        remove(str(model.model_dir))

    def _base(self, name: str) -> ServedModel:
        return ServedModel(name, self._bases[name], None, None, self._started, "base")

    def _tuned(self, job: Job, step: int | None = None) -> ServedModel:
        name = str(job.fine_tuned_model) + ("" if step is None else f":ckpt-step-{step}")
        folder = JobFolder(self._jobs / job.id).model_dir
        # ft:base:organization:suffix:id
        owner = str(job.fine_tuned_model).split(":")[2]
        created = job.finished_at or job.created_at
        return ServedModel(name, job.handle, folder, step, created, owner, job.id)


def make_router(models: Models) -> APIRouter:
    """Makes the endpoints of models.

    Args:
        models: The models.
    """
    router = APIRouter(prefix="/models", tags=["models"])

    @router.get("")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": list(map(_shown, models.all()))}

    @router.get("/{model:path}")
    def retrieve(model: str) -> dict[str, Any]:
        return _shown(models.resolve(model))

    @router.delete("/{model:path}")
    def delete(model: str) -> dict[str, Any]:
        models.delete(model)
        return {"id": model, "object": "model", "deleted": True}

    return router


def _shown(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owner,
    }
