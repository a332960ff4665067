"""Requests that are refused arrive as the client's exception classes, in OpenAI's form."""

import hashlib
import subprocess
import sys
from typing import Any

import httpx
import openai
import pytest

from tests.generation.conftest import day_rows, write_lines
from tests.server.conftest import REPOSITORY


@pytest.fixture(scope="module")
def file(server, tmp_path_factory) -> str:
    return server.upload(write_lines(tmp_path_factory.mktemp("rows") / "a.jsonl", day_rows(12)))


def create(server, file: str, **more: Any):
    given = {"model": "tiny", "training_file": file, **more}
    return server.client.fine_tuning.jobs.create(**given)


def supervised(**numbers: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": numbers}}


@pytest.mark.parametrize(
    ("more", "param", "said"),
    [
        ({"method": supervised(n_epochs=0)}, "n_epochs", "greater than or equal to 1"),
        ({"method": supervised(n_epochs="many")}, "n_epochs", "'auto'"),
        ({"method": supervised(batch_size=257)}, "batch_size", "less than or equal to 256"),
        ({"method": supervised(learning_rate_multiplier=-1)}, "learning_rate", "greater than 0"),
        ({"method": supervised(beta=1)}, "beta", "not permitted"),
        ({"method": {"type": "reinforcement"}}, "method.type", "'supervised' or 'dpo'"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method", "must be left out"),
        ({"suffix": "a:b"}, "suffix", "match pattern"),
        ({"suffix": "a" * 65}, "suffix", "match pattern"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "at most 16"),
        ({"extra_body": {"n_epoch": 3}}, "n_epoch", "not permitted"),
    ],
)
def test_a_wrong_field_is_named(more, param, said, server, file):
    with pytest.raises(openai.BadRequestError) as refused:
        create(server, file, **more)
    error = refused.value
    assert error.type == "invalid_request_error"
    assert param in (error.param or "") and said in error.message


def test_what_is_not_there_is_named(server, file):
    jobs, client = server.client.fine_tuning.jobs, server.client
    for name, call in (
        ("none", lambda: create(server, file, model="none")),
        ("file-none", lambda: create(server, "file-none")),
        ("file-none", lambda: create(server, file, validation_file="file-none")),
        ("ftjob-none", lambda: jobs.retrieve("ftjob-none")),
        ("ftjob-none", lambda: jobs.cancel("ftjob-none")),
        ("ftjob-none", lambda: jobs.list_events("ftjob-none")),
        ("ftjob-none", lambda: jobs.checkpoints.list("ftjob-none")),
        (
            "ft:tiny:local::x:ckpt-step-3",
            lambda: client.models.retrieve("ft:tiny:local::x:ckpt-step-3"),
        ),
        ("/v1/images", lambda: client.get("/images", cast_to=httpx.Response)),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert name in refused.value.message
    with pytest.raises(openai.BadRequestError, match="only these can be deleted"):
        client.models.delete("tiny")
    assert not list((server.folder / "jobs").iterdir())


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("PUT", "/files", b"", 405),
        ("POST", "/fine_tuning/jobs", b"{", 400),
        ("POST", "/fine_tuning/jobs", b"[]", 400),
        ("POST", "/fine_tuning/jobs", b'{"model": "\\ud800", "training_file": "x"}', 400),
        ("GET", "/fine_tuning/jobs?limit=0", b"", 400),
        ("GET", "/fine_tuning/jobs?limit=x", b"", 400),
        ("GET", "/fine_tuning/jobs?metadata[%22]=%00", b"", 200),
        ("GET", "/models/", b"", 404),
        ("GET", "/nothing", b"", 404),
    ],
)
def test_every_failure_has_the_form_of_openai(method, path, content, status, server):
    with httpx.Client(trust_env=False) as http:
        headers = {"Content-Type": "application/json"}
        response = http.request(method, server.url + path, content=content, headers=headers)
    assert response.status_code == status and response.headers["x-request-id"].startswith("req_")
    if status != 200:
        error = response.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["message"] and error["type"] == "invalid_request_error"


def test_pages_of_other_sites_are_not_answered(server):
    with httpx.Client(trust_env=False) as http:
        evil = "http://evil.example"
        for headers in ({"Origin": evil}, {"Origin": "http://["}, {"Host": "evil.example"}):
            response = http.get(f"{server.url}/models", headers=headers)
            assert response.status_code == 403
        own = server.url.removesuffix("/v1")
        assert http.get(f"{server.url}/models", headers={"Origin": own}).status_code == 200


def test_keys_open_and_others_do_not(start_server, tmp_path):
    digest = hashlib.sha256(b"second").hexdigest()
    (tmp_path / "keys").write_text(f"first-key\nsha256:{digest}\n")
    server = start_server(f"--api_keys_file={tmp_path / 'keys'}", "--host=0.0.0.0")
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    for key in ("first-key", "second"):
        models = openai.OpenAI(base_url=url, api_key=key).models
        assert [model.id for model in models.list()] == ["tiny"]
    for key in ("third", "first-ke", digest, f"sha256:{digest}"):
        models = openai.OpenAI(base_url=url, api_key=key).models
        with pytest.raises(openai.AuthenticationError) as refused:
            models.list()
        assert refused.value.code == "invalid_api_key" and key not in refused.value.message
    with httpx.Client(trust_env=False) as http:
        for path in ("/models", "/nothing", "/files/file-x/content"):
            assert http.get(url + path).status_code == 401


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host=0.0.0.0"], "--api_keys_file"),
        (["--data_dir="], "--data_dir is missing"),
        (["--models=tiny"], "name=handle"),
        (["--models=tiny=/nowhere"], "no such directory"),
        (["--models=a=package:x,a=package:y"], "stands there twice"),
        (["--api_keys_file=/nowhere"], "cannot be read"),
        (["--port=70000"], "--port"),
    ],
)
def test_wrong_flags_are_refused_before_it_listens(flags, said, tmp_path):
    command = [sys.executable, str(REPOSITORY / "run_server.py"), f"--data_dir={tmp_path / 'd'}"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and not done.stdout
    assert said in done.stderr and "Traceback" not in done.stderr
