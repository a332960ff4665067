"""A server that is killed again and again loses no file and no job."""

import random
import threading
import time
from typing import Any

import httpx
import openai
import pytest

from tests.generation.conftest import day_rows, write_lines
from tests.kills import KILLS
from tests.server.conftest import Server
from tests.server.trainings import ROWS, create, steps, trainers

pytestmark = pytest.mark.slow
JOBS, ANSWERS = 3, 2


def test_nothing_is_lost_at_random_moments(server, tmp_path, assert_same_weights):
    """Uploads, new jobs and trainings are under way; some of the kills hit the training too."""
    rows = write_lines(tmp_path / "days.jsonl", day_rows(ROWS))
    whole = create(server, server.upload(rows), epochs=4)
    assert server.wait(whole).status == "succeeded"
    chance, kills = random.Random(11), 0
    while_answering = chance.sample(range(KILLS), ANSWERS)
    files, jobs = [], []
    large = b'{"prompt": "a", "completion": "b"}\n' * 20_000

    def kill_again_and_again() -> None:
        nonlocal kills
        for number in range(KILLS):
            # The first moments after a start are full of events, a training is slow.
            answer = _some_of_an_answer(server, chance) if number in while_answering else None
            time.sleep(chance.random() * chance.choice((0.3, 4)) if answer is None else 0)
            server.kill()
            if answer:  # The client knows that it is not whole.
                with pytest.raises((httpx.TransportError, openai.APIError)):
                    list(answer)
            for process in trainers(server) if chance.random() < 0.25 else ():
                process.kill()
            server.start()
            kills += 1

    killer = threading.Thread(target=kill_again_and_again)
    killer.start()
    while killer.is_alive():
        try:
            client = server.client
            files.append(client.files.create(file=("a.jsonl", large), purpose="fine-tune").id)
            if len(jobs) < JOBS and kills >= len(jobs) * KILLS // (JOBS + 1):
                jobs.append(create(server, server.upload(rows), epochs=4))
        except openai.APIConnectionError:
            continue  # Killed in the middle: the client knows that it has no answer.
        time.sleep(0.1)  # A training needs the machine, too.
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


def _some_of_an_answer(server: Server, chance: random.Random) -> Any:
    """Asks for a stream that does not end soon, and reads some of it."""
    options: Any = {"n": 4, "max_tokens": 100, "logit_bias": {"70": 100}, "stream": True}
    messages: Any = [{"role": "user", "content": "mon"}]
    client = server.client
    answer = client.chat.completions.create(model="tiny", messages=messages, **options)
    for _ in range(4 + chance.randrange(200)):
        next(answer)
    return answer
