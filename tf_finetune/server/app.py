"""The application: its parts, put together."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import run_in_threadpool

from tf_finetune.errors import UserError
from tf_finetune.files import make_dirs
from tf_finetune.runs.lock import take_lock
from tf_finetune.server import completions, page, report
from tf_finetune.server import files as file_endpoints
from tf_finetune.server import jobs as job_endpoints
from tf_finetune.server import models as model_endpoints
from tf_finetune.server.config import ServerConfig
from tf_finetune.server.engine import Call, Engine
from tf_finetune.server.failures import add_handlers
from tf_finetune.server.files import Files
from tf_finetune.server.gate import Gate, read_keys
from tf_finetune.server.jobs import Jobs
from tf_finetune.server.limits import Limits
from tf_finetune.server.models import Models
from tf_finetune.server.queue import Queue
from tf_finetune.server.store import Store


def create_app(config: ServerConfig) -> FastAPI:
    """Makes the application, which works while it is run: trainings start with it.

    Args:
        config: The server's settings.

    Raises:
        UserError: The folder is another server's, or the keys cannot be read.
    """
    folder = config.folder
    keys = read_keys(config.api_keys_file) if config.api_keys_file else None
    make_dirs(str(folder))
    lock = take_lock(folder / "server.lock")  # It ends with the process.
    if lock is None:
        raise UserError(
            f"--data_dir={config.data_dir}: another server is at work in this folder. Stop it, or "
            "choose another folder."
        )
    store = Store(folder / "server.sqlite")
    files = Files(folder / "files", store)
    queue = Queue(folder / "jobs", store, files, config.max_running_jobs)
    models = Models(config.bases, folder / "jobs", store, int(time.time()))
    engine = Engine(lambda call: _answering(config, call), config.max_waiting)
    jobs = Jobs(store, files, models, queue, config.organization)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        queue.start()
        yield
        # A model that is being loaded is waited for; trainings are told to save meanwhile.
        await asyncio.gather(run_in_threadpool(engine.stop), run_in_threadpool(queue.stop))
        store.close()
        os.close(lock)

    # The pages of its own would load scripts from elsewhere.
    app = FastAPI(
        title="tf_finetune",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    add_handlers(app)
    limits = Limits(config.max_requests_per_minute, config.max_concurrent_requests)
    app.add_middleware(Gate, keys=keys, limits=limits)
    api = APIRouter(prefix="/v1")
    api.include_router(file_endpoints.make_router(files, store, config.max_file_mb << 20))
    api.include_router(job_endpoints.make_router(jobs))
    api.include_router(model_endpoints.make_router(models))
    api.include_router(report.make_router(files, models))
    api.include_router(completions.make_router(engine, models.resolve))
    app.include_router(api)
    app.include_router(page.make_router())
    return app


def _answering(config: ServerConfig, call: Call) -> Any:
    """Makes what answers, with TensorFlow, which a server that only trains never loads."""
    from tf_finetune.server.answering import Answering
    from tf_finetune.server.loaded import Loaded

    loaded = Loaded(config.memory_limit, config.max_rows, config.max_length)
    return Answering(loaded, call, config.precision)
