"""Whatever the OpenAPI page allows, and much that it does not, is answered without a failure."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_thousand_generated_requests_break_nothing(server, tmp_path):
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        pytest.skip("schemathesis of the test extra is not beside this Python")
    page = server.url.removesuffix("v1") + "openapi.json"
    checks = ("--checks=not_a_server_error", "--max-examples=40", "--seed=1")
    done = subprocess.run(
        [str(program), "run", page, *checks], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    (count,) = re.findall(r"(\d+) generated", done.stdout)
    assert int(count) >= 1000
    assert "Traceback" not in server.said
    assert server.client.models.list().data[0].id == "tiny"
