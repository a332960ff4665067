"""What a model is asked, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Messages = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Question:
    """A row to answer.

    Attributes:
        prompt: The messages before the answer, or the text before it.
        location: Where the row stands, as `file:line`.
        reference: The right answer; None if it is not known.
        id: The row's value of the id column; None without one.
    """

    prompt: Messages | str
    location: str
    reference: str | None = None
    id: Any = None

    @property
    def text(self) -> str:
        """The text of the prompt, or the content of its last message."""
        if isinstance(self.prompt, str):
            return self.prompt
        return str(self.prompt[-1].get("content") or "")


@dataclass(frozen=True)
class Answer:
    """A generated answer.

    Attributes:
        text: The answer without special tokens.
        tokens: The number of tokens generated, the end token included.
        finish_reason: `stop` if it ended by itself, `length` if it was cut at the limit.
        seconds: How long it took.
    """

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]
    seconds: float
