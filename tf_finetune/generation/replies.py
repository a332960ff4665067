"""What is asked of a row of `Slots`, and its answer while it grows."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tf_finetune.generation.answer_settings import AnswerSettings
from tf_finetune.generation.answer_text import AnswerText
from tf_finetune.generation.sampling import uniforms


@dataclass(frozen=True)
class Ask:
    """A prompt, and how to answer it.

    Attributes:
        prompt: The ids of its tokens, at least one.
        stop_ids: The tokens that end an answer.
        max_tokens: The most tokens of the answer.
        adapter: The name of the adapter that answers; None: the base.
        settings: How its tokens are chosen.
        number: Several answers to one prompt differ in it.
        tells: Whether log-probabilities are told.
        asker: Who asks: several answers of one asker take turns with those of others; None: nobody
            who asks for anything else.
    """

    prompt: Sequence[int]
    stop_ids: Sequence[int]
    max_tokens: int
    adapter: str | None = None
    settings: AnswerSettings = field(default_factory=AnswerSettings)
    number: int = 0
    tells: bool = False
    asker: Hashable = None


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        id: Its id.
        logprob: The logarithm of its probability by the model itself, before temperature, top_p,
            penalties and bias; None: it was not asked for.
        top: The most probable tokens in its place, with their log-probabilities.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Reply:
    """An answer, which grows.

    Attributes:
        ask: What was asked.
        answer: Its text so far, and why it has ended.
        tokens: Its tokens so far, the end token included.
    """

    def __init__(self, ask: Ask, answer: AnswerText) -> None:
        """Starts an answer.

        Args:
            ask: What is asked.
            answer: Its text, which is empty.
        """
        self.ask, self.answer = ask, answer
        self.tokens: list[Token] = []
        count = ask.max_tokens if ask.settings.temperature > 0 else 0
        # As long as the answer may be: drawn numbers depend on seed, number and place alone.
        self._uniform = uniforms(ask.settings.seed, np.array([ask.number]), count)[0]
        self.bias: np.ndarray | None = None
        self.start = 0

    @property
    def place(self) -> int:
        """Where its last token stands, counted from the start of its memory."""
        return self.start + len(self.ask.prompt) + len(self.tokens) - 1

    @property
    def uniform(self) -> float:
        """What decides on the next token."""
        return float(self._uniform[len(self.tokens)]) if len(self._uniform) else 0.0

    def push(self, token: Token) -> None:
        """Takes the next token."""
        ask = self.ask
        self.tokens.append(token)
        self.answer.push(token.id, token.id in ask.stop_ids)
        if len(self.tokens) == ask.max_tokens:
            self.answer.end()
        if self.bias is not None:
            is_new = all(token.id != other.id for other in self.tokens[:-1])
            settings = ask.settings
            self.bias[token.id] -= settings.frequency_penalty + is_new * settings.presence_penalty
