"""A checkpoint's chat template: messages to the text that its model reads."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.text import template_process

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """The arguments of one rendering; see `ChatTemplate.render`."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] | None = None
    add_generation_prompt: bool = False


@dataclass(frozen=True)
class ChatTemplate:
    """A jinja2 template, rendered as Hugging Face transformers' `apply_chat_template` does.

    It runs in a process of its own, in jinja2's sandbox, with limits of time, memory and size.

    Attributes:
        source: The template.
        tokens: What else it reads by name: `bos_token`, `eos_token`, ... as they are written.
    """

    source: str = field(repr=False)
    tokens: Mapping[str, str] = field(default_factory=dict)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """Writes a conversation as text.

        Args:
            messages: Its turns, plain JSON values: `role`, `content`, `tool_calls`, ...
            tools: JSON schemas of the tools that the model may call.
            add_generation_prompt: Whether the text ends with the header of an answer to come.

        Returns:
            The text.

        Raises:
            UserError: The template refuses the conversation (with its own words), is damaged, does
                what a template must not do, or needs too much time or memory.
        """
        text = self.render_all([Call(messages, tools, add_generation_prompt)])[0]
        if isinstance(text, UserError):
            raise text
        return text

    def render_all(self, calls: Sequence[Call]) -> list[str | UserError]:
        """Renders several at once; in place of a text stands the error that `render` raises."""
        variables = [
            {
                "messages": call.messages,
                "tools": call.tools or None,
                "documents": None,
                "add_generation_prompt": call.add_generation_prompt,
            }
            for call in calls
        ]
        return _answers(self.source, dict(self.tokens), variables)

    def check(self) -> None:
        """Compiles the template.

        Raises:
            UserError: It is no jinja2.
        """
        (answer,) = _answers(self.source, {}, [None])
        if isinstance(answer, UserError):
            raise answer


def read_chat_template(path: str) -> str:
    """Reads a template from a file and checks that it is one.

    Args:
        path: A jinja2 file, or a JSON file that holds `chat_template` (a tokenizer_config.json).

    Returns:
        The template.

    Raises:
        UserError: The file cannot be read, holds no template, or a damaged one.
    """
    where = f"--chat_template={path}"
    try:
        source = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: cannot be read: {error}. Give a jinja2 file (chat_template.jinja), or a "
            "JSON file that holds `chat_template` (tokenizer_config.json)."
        ) from error
    if path.endswith(".json"):
        source = _from_json(where, source)
    if not source.strip():
        raise UserError(f"{where}: the template is empty. Give one that writes the messages.")
    try:
        ChatTemplate(source).check()
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return source


def _from_json(where: str, text: str) -> str:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: no JSON: {error}. Compare it with the original's.") from error
    template = content.get("chat_template") if isinstance(content, dict) else None
    if isinstance(template, list):  # Several, by name.
        named = {item.get("name"): item.get("template") for item in template}
        template = named.get("default")
    if not isinstance(template, str):
        raise UserError(
            f"{where}: it holds no `chat_template` (a string, or a list with one named "
            "'default'). Give a jinja2 file, or the tokenizer_config.json of a chat model."
        )
    return template


def _answers(
    source: str, variables: dict[str, Any], calls: Sequence[dict[str, Any] | None]
) -> list[str | UserError]:
    request = {"source": source, "variables": variables, "calls": calls}
    answers = _process.ask(json.dumps(request))
    return [
        answer["text"]
        if "text" in answer
        else UserError(
            f"the chat template fails: {answer['error']}. Change the conversation, or give "
            "another template with --chat_template=<file>."
        )
        for answer in answers
    ]


class _Process:
    """The process that renders, started when it is needed and again when it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: str) -> list[dict[str, str]]:
        """Sends a request and returns the answer.

        Raises:
            UserError: The process was killed at a limit.
        """
        with self._lock:
            process = self._started()
            assert process.stdin and process.stdout
            try:
                process.stdin.write(request.encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = b""
            except BaseException:  # Ctrl-C: a late answer must not be taken for the next one's.
                self.stop()
                raise
            if line.endswith(b"\n"):
                return json.loads(line)
            status = self.stop(kill=False)
        if status == -signal.SIGPROF:
            what = f"it takes more than {template_process.SECONDS:g} seconds"
        else:
            what = f"it crashes, or takes more than {template_process.MEMORY >> 20:,} MiB of memory"
        raise UserError(
            f"the chat template fails: {what} (status {status}). Look for loops in it, or give "
            "another template with --chat_template=<file>."
        )

    def _started(self) -> subprocess.Popen[bytes]:
        # A fork shares its parent's pipes: it starts a process of its own.
        if self._running is None or self._owner != os.getpid():
            # -P: the folder of the program, whose modules have common names, is not searched.
            self._running = subprocess.Popen(
                [sys.executable, "-P", template_process.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # what a crash writes
            )
            self._owner = os.getpid()
        return self._running

    def stop(self, kill: bool = True) -> int:
        """Ends the process, if there is one, and returns its exit status."""
        if self._running is None or self._owner != os.getpid():
            return 0
        process, self._running = self._running, None
        if kill:
            process.kill()
        with process:
            return process.wait()


_process = _Process()
atexit.register(_process.stop)
