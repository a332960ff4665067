"""Whatever the OpenAPI page allows, and much that it does not, is answered without a failure."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.server.conftest import REPOSITORY
from tests.thorough import mostly

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("examples", "least"), mostly((8, 400), others=[(20, 1000)]))
def test_generated_requests_break_nothing(examples, least, server, tmp_path):
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        pytest.skip("schemathesis of the test extra is not beside this Python")
    # TensorFlow is loaded: a request would wait for it longer than schemathesis does.
    server.client.completions.create(model="tiny", prompt="mon", max_tokens=1)
    page = server.url.removesuffix("v1") + "openapi.json"
    checks = ("--checks=not_a_server_error", f"--max-examples={examples}", "--seed=1")
    environment = {
        "SCHEMATHESIS_HOOKS": "tests.server.schemathesis_hooks",
        "PYTHONPATH": str(REPOSITORY),
        "STATUSES": str(tmp_path / "statuses"),
    }
    done = subprocess.run(
        [str(program), "run", page, *checks],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    (count,) = re.findall(r"(\d+) generated", done.stdout)
    assert int(count) >= least
    statuses = Counter((tmp_path / "statuses").read_text().splitlines())
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert statuses[f"{path} 200"] >= least / 40 and statuses[f"{path} 400"] >= least / 40
    assert "Traceback" not in server.said
    assert server.client.models.list().data[0].id == "tiny"
