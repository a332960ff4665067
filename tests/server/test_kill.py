"""A server that is killed again and again loses no file and no job."""

import random
import threading
import time

import openai
import pytest

from tests.generation.conftest import day_rows, write_lines
from tests.server.trainings import ROWS, create, steps, trainers

pytestmark = pytest.mark.slow
KILLS, JOBS = 20, 3


def test_nothing_is_lost_at_random_moments(server, tmp_path, assert_same_weights):
    """Uploads, new jobs and trainings are under way; half of the kills hit the training too."""
    rows = write_lines(tmp_path / "days.jsonl", day_rows(ROWS))
    whole = create(server, server.upload(rows), epochs=4)
    assert server.wait(whole).status == "succeeded"
    chance, kills = random.Random(11), 0
    files, jobs = [], []
    large = b'{"prompt": "a", "completion": "b"}\n' * 2_000

    def kill_again_and_again() -> None:
        nonlocal kills
        for _ in range(KILLS):
            time.sleep(chance.random() * 5)
            server.kill()
            for process in trainers(server) if chance.random() < 0.5 else ():
                process.kill()
            server.start()
            kills += 1

    killer = threading.Thread(target=kill_again_and_again)
    killer.start()
    while killer.is_alive():
        try:
            client = server.client
            files.append(client.files.create(file=("a.jsonl", large), purpose="fine-tune").id)
            if len(jobs) < JOBS and kills >= len(jobs) * KILLS // JOBS:
                jobs.append(create(server, server.upload(rows), epochs=4))
        except openai.APIConnectionError:
            continue  # Killed in the middle: the client knows that it has no answer.
    killer.join()
    assert kills == KILLS and len(jobs) == JOBS and files
    found = {file.id: file for file in server.client.files.list()}
    assert set(files) <= set(found)
    for name in files:
        assert found[name].bytes == len(large)
        assert server.client.files.content(name).read() == large
    everything = [job.id for job in server.client.fine_tuning.jobs.list(limit=100)]
    assert {whole, *jobs} <= set(everything)
    for job in everything:  # Those whose answer the kill has swallowed, too.
        assert server.wait(job).status == "succeeded", server.output(job)
        assert steps(server, job) == list(range(1, ROWS * 4 + 1))
        assert_same_weights(server.model_dir(job), server.model_dir(whole))
    kept = {path.name for path in (server.folder / "files").iterdir()}
    assert kept == {file.id for file in server.client.files.list()}
