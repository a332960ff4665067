"""`Conversation`, `Completion`, `Preference`: the examples of a language model."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]
"""A turn as chat templates take it: `role`, `content`, and what else the data give."""


@dataclass(frozen=True)
class Conversation:
    """Turns, of which those of the assistant are learnt.

    Attributes:
        messages: The turns.
        trained: Whether each turn is learnt; only turns of the assistant are.
        tools: The tools that the assistant may call, as chat templates take them.
        location: Where the row stands, as `file:line`.
        id: The value of the user's own id column.
    """

    messages: tuple[Message, ...]
    trained: tuple[bool, ...]
    tools: tuple[dict[str, Any], ...] = ()
    location: str = ""
    id: Any = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What comes before the answer; everything, if there is none."""
        return self.messages[:-1] if self.has_answer else self.messages

    @property
    def answer(self) -> Message | None:
        """The last turn, if it is the assistant's."""
        return self.messages[-1] if self.has_answer else None

    @property
    def has_answer(self) -> bool:
        """Whether the last turn is the assistant's."""
        return self.messages[-1]["role"] == "assistant"


@dataclass(frozen=True)
class Completion:
    """A text that follows another, both as they stand in the data.

    Attributes:
        prompt: The text before; empty: the row is one `text`, learnt from its beginning.
        completion: The text to learn; None: it is to be predicted.
        location: Where the row stands, as `file:line`.
        id: The value of the user's own id column.
        system_prompt: The system message that it has as a conversation; empty: none.
    """

    prompt: str
    completion: str | None
    location: str = ""
    id: Any = None
    system_prompt: str = ""

    @property
    def has_answer(self) -> bool:
        """Whether there is a text to learn."""
        return self.completion is not None

    def as_conversation(self) -> "Conversation | Completion":
        """Returns one turn of the user and one of the assistant; a row of `text` as it is."""
        if not self.prompt:
            return self
        messages = _user_turn(self.system_prompt, self.prompt)
        trained = (False,) * len(messages)
        if self.completion is not None:
            messages += ({"role": "assistant", "content": self.completion},)
            trained += (True,)
        return Conversation(messages, trained, (), self.location, self.id)


@dataclass(frozen=True)
class Preference:
    """Two answers to a prompt, of which one is better: all texts, or all lists of messages.

    Attributes:
        prompt: The turns before the answers, or the text.
        chosen: The better answer.
        rejected: The other.
        tools: The tools that the assistant may call.
        location: Where the row stands, as `file:line`.
        id: The value of the user's own id column.
        system_prompt: Of texts, the system message that they have as messages; empty: none.
    """

    prompt: tuple[Message, ...] | str
    chosen: tuple[Message, ...] | str
    rejected: tuple[Message, ...] | str
    tools: tuple[dict[str, Any], ...] = ()
    location: str = ""
    id: Any = None
    system_prompt: str = ""

    @property
    def has_answer(self) -> bool:
        """Always."""
        return True

    @property
    def alternatives(self) -> "tuple[Conversation | Completion, Conversation | Completion]":
        """The prompt with the better answer, and with the other."""
        return self._answered(self.chosen), self._answered(self.rejected)

    def as_conversation(self) -> "Preference":
        """Returns texts as messages; without a prompt as they are."""
        if not isinstance(self.prompt, str) or not self.prompt:
            return self
        chosen, rejected = (
            ({"role": "assistant", "content": answer},) if isinstance(answer, str) else answer
            for answer in (self.chosen, self.rejected)
        )
        return dataclasses.replace(
            self,
            prompt=_user_turn(self.system_prompt, self.prompt),
            chosen=chosen,
            rejected=rejected,
            system_prompt="",
        )

    def _answered(self, answer: tuple[Message, ...] | str) -> "Conversation | Completion":
        if isinstance(self.prompt, str):
            return Completion(self.prompt, str(answer), self.location, self.id, self.system_prompt)
        assert not isinstance(answer, str)
        trained = (False,) * len(self.prompt) + tuple(t["role"] == "assistant" for t in answer)
        messages = (*self.prompt, *answer)
        return Conversation(messages, trained, self.tools, self.location, self.id)


Example: TypeAlias = Conversation | Completion | Preference


def with_system_prompt(example: Example, text: str) -> Example:
    """Puts a system message in front where there is none."""
    if isinstance(example, Conversation):
        if example.messages[0]["role"] == "system":
            return example
        return dataclasses.replace(
            example,
            messages=(_system_turn(text), *example.messages),
            trained=(False, *example.trained),
        )
    if isinstance(example, Completion) or isinstance(example.prompt, str):
        return dataclasses.replace(example, system_prompt=text)
    if example.prompt and example.prompt[0]["role"] == "system":
        return example
    return dataclasses.replace(example, prompt=(_system_turn(text), *example.prompt))


def prompt_text(example: Example) -> str:
    """Returns what comes before the answer, as one text that equal prompts share."""
    if isinstance(example, Completion):
        return example.prompt or example.completion or ""
    return _text(example.prompt)


def answer_text(example: Example) -> str:
    """Returns what is learnt or compared, as one text; empty if there is none."""
    if isinstance(example, Completion):
        return (example.prompt and example.completion) or ""
    if isinstance(example, Conversation):
        return _text(example.messages[-1:]) if example.has_answer else ""
    return f"{_text(example.chosen)}\0{_text(example.rejected)}"


def turns(example: Example) -> Sequence[Message]:
    """Returns all messages of an example; a row of texts has none."""
    if isinstance(example, Conversation):
        return example.messages
    if isinstance(example, Completion):
        return ()
    parts = (example.prompt, example.chosen, example.rejected)
    return [turn for part in parts if not isinstance(part, str) for turn in part]


def num_characters(example: Example) -> int:
    """Returns the length of an example; of a preference that of its prompt and longer answer."""
    if isinstance(example, Completion):
        return len(example.prompt) + len(example.completion or "")
    if isinstance(example, Conversation):
        return _size(example.messages)
    return _size(example.prompt) + max(_size(example.chosen), _size(example.rejected))


def _user_turn(system_prompt: str, prompt: str) -> tuple[Message, ...]:
    system = (_system_turn(system_prompt),) if system_prompt else ()
    return (*system, {"role": "user", "content": prompt})


def _system_turn(text: str) -> Message:
    return {"role": "system", "content": text}


def _text(turns: Sequence[Message] | str) -> str:
    if isinstance(turns, str):
        return turns
    return "\n".join(map(_turn_text, turns))


def _turn_text(turn: Message) -> str:
    calls = turn.get("tool_calls")
    called = json.dumps(calls, ensure_ascii=False, sort_keys=True, default=str) if calls else ""
    return f"{turn['role']}: {turn['content']}{called}"


def _size(turns: Sequence[Message] | str) -> int:
    if isinstance(turns, str):
        return len(turns)
    return sum(len(turn["content"]) + len(str(turn.get("tool_calls", ""))) for turn in turns)
