"""The chat in the terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tf_finetune.errors import UserError
from tf_finetune.formats.decoders import load_decoder
from tf_finetune.generation.chat import Chat
from tf_finetune.generation.generator import build_generator
from tf_finetune.generation.sampling_config import SamplingConfig

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def chat_model(tiny_llama):
    return build_generator(load_decoder(str(tiny_llama)))


@pytest.fixture
def talk(chat_model) -> Chat:
    return Chat(chat_model, SamplingConfig(max_new_tokens=6))


def test_an_answer_comes_in_parts_and_stays_in_the_conversation(talk):
    parts: list[str] = []
    talk.answer("mon?", parts.append)
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]
    assert "".join(parts) == talk.messages[1]["content"]
    talk.answer("tue?", parts.append)
    assert len(talk.messages) == 4


def test_ctrl_c_keeps_what_there_is_of_an_answer(talk):
    parts: list[str] = []

    def interrupt(part: str) -> None:
        parts.append(part)
        if len(parts) == 1:
            raise KeyboardInterrupt

    talk.answer("mon?", interrupt)
    assert parts[-1] == " [stopped]" and talk.messages[1]["content"] == parts[0]


def test_a_message_that_is_too_long_is_taken_back(talk):
    with pytest.raises(UserError, match=r"A prompt of \d+ tokens"):
        talk.answer("x" * 500, print)
    assert talk.messages == []


def test_commands(talk, tmp_path):
    with pytest.raises(UserError, match="after a first answer"):
        talk.command(f"/save {tmp_path}/a.jsonl")
    talk.command("/system Be short.")
    talk.answer("mon?", lambda part: None)
    path = tmp_path / "a.jsonl"
    for _ in range(2):
        assert talk.command(f"/save {path}") == f"saved to {path}"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 2 and [m["role"] for m in rows[0]["messages"]] == [
        "system",
        "user",
        "assistant",
    ]
    assert "base" in talk.command("/base") and talk.as_base
    assert "trained" in talk.command("/base") and not talk.as_base
    talk.command("/reset")
    assert talk.messages == [] and talk.system == "Be short."
    with pytest.raises(UserError, match="/rest: no such command"):
        talk.command("/rest")
    with pytest.raises(UserError, match=r"must end in \.jsonl"):
        talk.answer("mon?", lambda part: None)
        talk.command(f"/save {tmp_path}/a.txt")
    with pytest.raises(EOFError):
        talk.command("/quit")


# Makes standard input the terminal that Ctrl-C is typed at, as a shell does. What a shell starts in
# the background ignores Ctrl-C, and so do its children.
IN_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def type_and_read(descriptor: int, typed: bytes, text: str, again: float = 240) -> str:
    """Types, and reads what a terminal shows until it has shown a text.

    Args:
        descriptor: The terminal.
        typed: What is typed.
        text: What is to be shown.
        again: Seconds after which it is typed again.
    """
    end = time.monotonic() + 240
    os.write(descriptor, typed)
    shown, last = "", time.monotonic()
    while text not in shown:
        assert time.monotonic() < end, shown[-2000:]
        if time.monotonic() > last + again:
            os.write(descriptor, typed)
            last = time.monotonic()
        if select.select([descriptor], [], [], 1)[0]:
            shown += os.read(descriptor, 4096).decode(errors="replace")
    return shown


@pytest.mark.slow
def test_a_terminal(tiny_llama):
    """In a real terminal: an answer, an error, Ctrl-C at the prompt, Ctrl-D."""
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-c",
        IN_TERMINAL,
        str(REPOSITORY / "run_generator.py"),
        f"--model={tiny_llama}",
        "--interactive",
        "--max_new_tokens=5",
    ]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    try:
        type_and_read(ours, b"", "> ")
        type_and_read(ours, b"mon?\n", "\n> ")
        shown = type_and_read(ours, b"/nothing\n", "> ")
        assert "error: /nothing: no such command" in shown
        # input() misses a signal that comes between its prompt and its wait.
        type_and_read(ours, b"\x03", "> ", again=5)
        os.write(ours, b"\x04")
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        os.close(ours)
        os.close(theirs)
