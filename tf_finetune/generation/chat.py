"""A chat in the terminal: answers are shown as their tokens come."""

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.files import write_text_atomic
from tf_finetune.generation.generator import Generator
from tf_finetune.generation.sampling_config import SamplingConfig
from tf_finetune.runs.paths import expand_path

HELP = """\
/reset           forget the conversation
/system <text>   begin anew with this system message; without a text: without one
/save <file>     append the conversation to a .jsonl file, a row as for --train_file
/base            answer as the base model, as it was before training; again: as trained
/help            this
/quit            end; Ctrl-D too. Ctrl-C stops an answer"""


@dataclass
class Chat:
    """A conversation with a generator.

    Attributes:
        generator: Answers.
        sampling: How its tokens are chosen.
        system: The system message; empty: none of ours.
        messages: The turns so far.
        as_base: Whether the base model answers.
    """

    generator: Generator
    sampling: SamplingConfig
    system: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    as_base: bool = False

    def answer(self, text: str, write: Callable[[str], None]) -> None:
        """Answers a message.

        Ctrl-C ends the answer; what there is of it stays in the conversation.

        Args:
            text: What the user says.
            write: Gets the answer piece by piece.

        Raises:
            UserError: The conversation is too long, or the template refuses it; the message is
                taken back.
        """
        self.messages.append({"role": "user", "content": text})
        parts: list[str] = []
        base = self.generator.as_base() if self.as_base else contextlib.nullcontext()
        try:
            with base:
                for part in self.generator.stream(self.prompt, self.sampling):
                    parts.append(part)
                    write(part)
        except UserError:
            del self.messages[-1]
            raise
        except KeyboardInterrupt:
            write(" [stopped]")
        self.messages.append({"role": "assistant", "content": "".join(parts)})

    @property
    def prompt(self) -> tuple[dict[str, Any], ...]:
        """The conversation so far, with the system message."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return (*system, *self.messages)

    def command(self, line: str) -> str:
        """Does what a line that begins with a slash says, and returns what to show.

        Raises:
            EOFError: The chat is to end.
            UserError: There is no such command, or it cannot be done.
        """
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name == "/quit":
            raise EOFError
        if name == "/reset":
            self.messages.clear()
            return "the conversation is forgotten"
        if name == "/system":
            self.system = rest
            self.messages.clear()
            return f"begun anew, {'with this' if rest else 'without a'} system message"
        if name == "/save":
            return self._save(rest)
        if name == "/base":
            self.as_base = not self.as_base
            return f"now answers: {'the base model' if self.as_base else 'the trained model'}"
        if name == "/help":
            return HELP
        raise UserError(f"{name}: no such command. /help lists them.")

    def _save(self, path: str) -> str:
        if not path or not self.messages:
            raise UserError("/save <file>: names a file, after a first answer.")
        path = expand_path(path, "/save")
        if not path.endswith(".jsonl"):
            raise UserError(f"/save {path}: the file's name must end in .jsonl.")
        line = json.dumps({"messages": self.prompt}, ensure_ascii=False) + "\n"
        try:
            with open(path, encoding="utf-8") as file:
                line = file.read() + line
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"/save {path}: {error}.") from None
        try:
            write_text_atomic(path, line)
        except OSError as error:
            raise UserError(f"/save {path}: {error}.") from None
        return f"saved to {path}"


def chat(generator: Generator, sampling: SamplingConfig, system: str | None) -> int:
    """Talks until the user ends it.

    Args:
        generator: Answers.
        sampling: How its tokens are chosen.
        system: The system message; None: none of ours.

    Returns:
        The exit status.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # input() then has a history and can be edited
    talk = Chat(generator, sampling, system or "")
    print("Say something; /help lists the commands.")

    def write(part: str) -> None:
        print(part, end="", flush=True)

    while True:
        try:
            line = input("> ").strip()
            if line.startswith("/"):
                print(talk.command(line))
            elif line:
                talk.answer(line, write)
                print()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return 0
