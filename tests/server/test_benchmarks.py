"""The parts of the server's benchmarks that run without the peer."""

import json
import sys

import pytest

from benchmarks.labels import read_rows
from benchmarks.labels import table as labels_table
from benchmarks.serve import read_questions, table
from benchmarks.served import ask_all, our_server, serving
from tests.server.conftest import MODELS


def test_a_server_is_started_asked_by_clients_side_by_side_and_ended(tmp_path):
    command = our_server(tmp_path / "data", f"tiny={MODELS / 'llama'}", "--precision=float32")
    messages = [{"role": "user", "content": "mon"}]
    body = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 8}
    with serving(command, {}, tmp_path / "log") as server:
        answers, seconds = ask_all(server, [[body] * 2] * 3)
        assert server.peak_memory_mib > 50
    assert server.process.returncode is not None
    assert len(answers) == 6 and len({answer.text for answer in answers}) == 1 and answers[0].text
    assert all(0 < answer.first <= answer.whole <= seconds for answer in answers)


def test_a_command_that_does_not_serve_is_told(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with (
        pytest.raises(SystemExit, match="no such thing"),
        serving(command, {}, tmp_path / "log"),
    ):
        pass


def test_questions_and_labels_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    turns = [("a?", {"intent": "GetWeather"}), ("b" * 500, {"intent": "PlayMusic"})]
    with path.open("w") as file:
        for text, answer in turns:
            messages = [
                {"role": "user", "content": text},
                {"role": "assistant", "content": json.dumps(answer)},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    assert read_questions(path) == ["a?"]
    assert list(read_rows(path)) == [("a?", "C"), ("b" * 500, "D")]


def test_tables_tell_medians_and_ratios():
    rounds = [
        {"1_tokens_per_second": 10.0 * n, "1_first_token_ms": 5.0, "peak_memory_mib": 100.0}
        for n in (1, 2, 9)
    ]
    assert "| ours | 20 tokens/s, 5 ms | 100 MiB |" in table({"ours": rounds}, [1])
    found = labels_table({"minilm": {"1_ms": 2.0}, "smollm2": {"1_ms": 9.0}})
    assert found.splitlines()[-1] == "| 1_ms | 2 | 9 | 4.5 |"
