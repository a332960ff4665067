"""Jobs that are cancelled, paused and resumed, and servers that are killed."""

import signal
from pathlib import Path

import psutil
import pytest

from tests.generation.conftest import day_rows, write_lines
from tests.server.conftest import Server, polls
from tests.server.trainings import (
    ROWS,
    STEPS,
    create,
    steps,
    trainers,
    wait_for_no_trainer,
    wait_for_steps,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(server, tmp_path_factory) -> str:
    path = write_lines(tmp_path_factory.mktemp("rows") / "days.jsonl", day_rows(ROWS))
    return server.upload(path)


@pytest.fixture(scope="module")
def whole(server, data) -> Path:
    """The model directory of a job that nothing has interrupted."""
    job = create(server, data)
    assert server.wait(job).status == "succeeded", server.output(job)
    assert steps(server, job) == list(range(1, STEPS + 1))
    return server.model_dir(job)


def test_a_job_that_is_paused_and_resumed_has_the_same_weights(
    server, data, whole, assert_same_weights
):
    jobs = server.client.fine_tuning.jobs
    job = create(server, data)
    wait_for_steps(server, job, 30)
    assert jobs.pause(job).status == "queued"
    wait_for_no_trainer(server)
    done = len((server.model_dir(job) / "log.jsonl").read_text().splitlines())
    assert 30 <= done < STEPS
    assert jobs.retrieve(job).status == "queued"
    assert jobs.resume(job).status == "queued"
    assert server.wait(job).status == "succeeded"
    assert_same_weights(server.model_dir(job), whole)
    assert steps(server, job) == list(range(1, STEPS + 1))
    assert f"going on from step {done} of {STEPS}" in server.output(job)
    checkpoints = jobs.checkpoints.list(job, limit=100)
    assert [c.step_number for c in checkpoints] == list(range(STEPS, 0, -ROWS))


def test_a_cancelled_job_ends_and_makes_room(server, data):
    jobs = server.client.fine_tuning.jobs
    first, second = create(server, data), create(server, data, suffix="second")
    wait_for_steps(server, first, 5)
    assert jobs.retrieve(second).status == "queued"
    cancelled = jobs.cancel(first)
    assert cancelled.status == "cancelled" and cancelled.finished_at
    assert cancelled.fine_tuned_model is None
    server.wait(second, "running")
    assert len(trainers(server)) <= 1
    assert jobs.cancel(second).status == "cancelled"
    wait_for_no_trainer(server)
    assert [jobs.retrieve(job).status for job in (first, second)] == ["cancelled"] * 2


def test_the_server_is_killed_and_its_jobs_go_on(server, data, whole, assert_same_weights):
    """Once with a training that lives on, once with one that dies too; others stay queued."""
    jobs = [create(server, data), create(server, data)]
    wait_for_steps(server, jobs[0], 5)
    server.kill()
    (orphan,) = trainers(server)
    server.start()
    wait_for_steps(server, jobs[0], 60)
    assert [process.pid for process in trainers(server)] == [orphan.pid]
    server.kill()
    orphan.kill()
    server.start()
    for job in jobs:
        assert server.wait(job).status == "succeeded", server.output(job)
        assert_same_weights(server.model_dir(job), whole)
        assert steps(server, job) == list(range(1, STEPS + 1))


@pytest.mark.thorough
def test_a_server_that_is_stopped_has_its_trainings_saved(server, data, whole, assert_same_weights):
    job = create(server, data)
    wait_for_steps(server, job, 5)
    assert server.stop() in (0, -signal.SIGTERM)
    assert not trainers(server)
    done = len((server.model_dir(job) / "log.jsonl").read_text().splitlines())
    assert f"SIGTERM: stopped after step {done} of {STEPS}" in server.output(job)
    server.start()
    assert server.wait(job).status == "succeeded"
    assert_same_weights(server.model_dir(job), whole)


def test_an_orphan_is_cancelled_by_the_next_server(server, data):
    job = create(server, data)
    wait_for_steps(server, job, 5)
    server.kill()
    server.start()
    assert server.client.fine_tuning.jobs.cancel(job).status == "cancelled"
    wait_for_no_trainer(server)
    assert server.client.fine_tuning.jobs.retrieve(job).status == "cancelled"


def test_a_second_server_is_refused_in_the_folder(server):
    with pytest.raises(AssertionError, match="another server is at work in this folder"):
        Server(server.folder)


def test_a_training_gets_its_own_flags_no_secret_and_an_end(server, data):
    job = create(server, data)
    wait_for_steps(server, job, 1)
    (process,) = trainers(server)
    assert "A_SECRET" in psutil.Process(server.process.pid).environ()
    assert "A_SECRET" not in process.environ()
    flags = (server.folder / "jobs" / job / "job.cfg").read_text()
    assert "--seed=3" in flags and "--model=" in flags
    for _ in polls():
        found = server.client.fine_tuning.jobs.retrieve(job)
        if found.estimated_finish or found.status != "running":
            break
    assert found.status == "running" and found.estimated_finish >= found.created_at
    server.client.fine_tuning.jobs.cancel(job)
    wait_for_no_trainer(server)
