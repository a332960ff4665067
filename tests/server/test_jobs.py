"""Fine-tuning jobs from their files to their models, by OpenAI's own client."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.generation.conftest import day_rows, write_lines

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def train_file(tmp_path_factory) -> Path:
    return write_lines(tmp_path_factory.mktemp("rows") / "days.jsonl", day_rows(24))


@pytest.fixture(scope="module")
def validation_file(tmp_path_factory) -> Path:
    return write_lines(tmp_path_factory.mktemp("rows") / "held_out.jsonl", day_rows(7, seed=1))


@pytest.fixture(scope="module")
def finished(server, train_file, validation_file):
    """A job that has succeeded."""
    job = server.client.fine_tuning.jobs.create(
        model="tiny",
        training_file=server.upload(train_file),
        validation_file=server.upload(validation_file),
        suffix="days",
        seed=7,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 8}},
        },
        metadata={"why": "test"},
    )
    assert job.status in ("validating_files", "queued", "running")
    assert job.fine_tuned_model is None and job.trained_tokens is None and not job.result_files
    return server.wait(job.id)


def test_a_job_succeeds_with_its_model(finished, client):
    assert finished.status == "succeeded" and finished.error is None
    assert finished.fine_tuned_model.startswith("ft:tiny:local:days:")
    assert finished.finished_at >= finished.created_at and finished.estimated_finish is None
    assert finished.trained_tokens > 24 * 2 * 10
    assert finished.seed == 7 and finished.metadata == {"why": "test"}
    numbers = finished.method.supervised.hyperparameters
    assert (numbers.n_epochs, numbers.batch_size) == (2, 8)
    assert numbers.learning_rate_multiplier == 1.0
    names = [model.id for model in client.models.list()]
    assert names[0] == "tiny" and finished.fine_tuned_model in names
    assert client.models.retrieve(finished.fine_tuned_model).owned_by == "local"


def test_events_tell_of_each_step_once(finished, client):
    events = list(client.fine_tuning.jobs.list_events(finished.id, limit=3))
    assert len({event.id for event in events}) == len(events)
    messages = [event.message for event in reversed(events)]
    assert messages[0] == f"Created fine-tuning job: {finished.id}"
    assert messages[-1] == "The job has successfully completed"
    metrics = [event.data for event in reversed(events) if event.type == "metrics"]
    trained = [point for point in metrics if "train_loss" in point]
    assert [point["step"] for point in trained] == [1, 2, 3, 4, 5, 6]
    assert all(point["total_steps"] == 6 and point["train_loss"] > 0 for point in trained)
    assert [p["step"] for p in metrics if "full_valid_loss" in p] == [3, 6]


def test_events_have_answers_to_some_prompts(finished, server, client):
    messages = [event.message for event in client.fine_tuning.jobs.list_events(finished.id)]
    samples = [text for text in reversed(messages) if text.startswith("Samples at ")]
    assert [text.split(",")[0] for text in samples] == ["Samples at step 3", "Samples at step 6"]
    for text in samples:
        assert text.count("validation_file.jsonl:") == text.count("  prompt ") == 3
        assert text.count("  answer (") == 3 and str(server.folder) not in text


def test_each_epoch_has_a_checkpoint_that_is_a_model(finished, client):
    found = list(client.fine_tuning.jobs.checkpoints.list(finished.id))
    assert [checkpoint.step_number for checkpoint in found] == [6, 3]
    for checkpoint in found:
        name = f"{finished.fine_tuned_model}:ckpt-step-{checkpoint.step_number}"
        assert checkpoint.fine_tuned_model_checkpoint == name
        assert client.models.retrieve(name).id == name
        metrics = checkpoint.metrics
        assert metrics.step == checkpoint.step_number
        assert metrics.train_loss > 0 and metrics.full_valid_loss == metrics.valid_loss > 0


def test_the_result_file_has_the_columns_of_openai(finished, client):
    (name,) = finished.result_files
    file = client.files.retrieve(name)
    assert file.purpose == "fine-tune-results" and file.filename.endswith(".csv")
    text = client.files.content(name).text
    assert text.startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["step"] for row in rows] == list("123456")
    assert all(float(row["train_loss"]) > 0 for row in rows)
    assert [row["step"] for row in rows if row["valid_loss"]] == ["3", "6"]


def test_bad_rows_fail_the_job_with_their_lines(server, tmp_path):
    rows = day_rows(12)
    rows[2]["messages"][0]["role"] = "robot"
    rows[6]["messages"].pop()
    job = server.client.fine_tuning.jobs.create(
        model="tiny", training_file=server.upload(write_lines(tmp_path / "bad.jsonl", rows))
    )
    job = server.wait(job.id)
    assert job.status == "failed"
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert "Line 3: messages[0].role is 'robot'" in job.error.message
    assert "Line 7: messages: no turn of the assistant" in job.error.message
    assert str(server.folder) not in json.dumps(job.to_dict())
