"""Where the assistant's turns are in a rendered conversation.

The primary way is the difference of two renderings: the prompt before a turn, and the text with it.
Some templates write a turn in another way once others follow (Qwen3's drops its reasoning). There
the turn, or the one after it, is rendered with a random marker as its content, and the first
character that differs tells where the content begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.text.chat_template import Call, ChatTemplate, Message
from tf_finetune.text.stand_ins import Span, StandIns, random_private

_CHANGED = (
    "The chat template writes earlier answers in another way than the last one (it drops their "
    "reasoning, for instance); they are trained as they stand before later turns."
)
_ENDLESS = "The chat template writes no end token after an answer, so that none is learnt."


@dataclass(frozen=True)
class Turns:
    """A conversation to render, special tokens in its strings hidden."""

    template: ChatTemplate
    stand_ins: StandIns
    messages: list[Message]
    tools: list[Any] | None
    marker: str = field(default_factory=lambda: random_private(8))

    def until(self, count: int, *, prompt: bool = False) -> Call:
        """The first messages only, with or without the header of the next answer."""
        return Call(self.messages[:count], self.tools, prompt)

    def marked(self, at: int, *, prompt: bool = False) -> Call:
        """The whole, a marker in place of one message's content."""
        changed = {**self.messages[at], "content": self.marker}
        return Call([*self.messages[:at], changed, *self.messages[at + 1 :]], self.tools, prompt)


@dataclass(frozen=True)
class FoundTurns:
    """The text of `Turns` with stand-ins, and spans of it; see `chat.Rendered`."""

    text: str
    answers: tuple[Span, ...]
    head: int
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Habits:
    """What a template writes around each answer.

    Attributes:
        ends: What ends an answer: special tokens, or text where it writes none.
        header: What the prompt of an answer ends with.
        unwritten: The header where the template leaves it out of prompts: it has to be added.
    """

    ends: tuple[str, ...]
    header: str
    unwritten: str


def learn_habits(template: ChatTemplate, stand_ins: StandIns) -> Habits:
    """Lets a template write two questions and answers, and reads what stands around them.

    Raises:
        UserError: It cannot, or leaves out the answers.
    """
    words = [random_private(8) for _ in range(4)]
    messages = [
        {"role": role, "content": word}
        for role, word in zip(("user", "assistant") * 2, words, strict=True)
    ]
    calls = [Call(messages), Call(messages[:1], None, True), Call(messages[:1])]
    texts = template.render_all(calls)
    whole, prompt, without = map(_text, texts)
    if any(whole.count(word) != 1 for word in words) or words[0] not in prompt:
        raise UserError(
            "the chat template does not write each turn of a user and an assistant once. Give "
            "another one with --chat_template=<file>."
        )
    last, inner = whole.split(words[3])[1], whole.split(words[1])[1].split(words[2])[0]
    if stand_ins.find(last) and stand_ins.find(inner):
        ends = [text[slice(*stand_ins.find(text)[0])] for text in (last, inner)]
    else:  # The end is text: what both have in common.
        ends = [last[: _shared(last, inner, stand_ins)].strip()]
        rest = stand_ins.cut(last[_shared(last, inner, stand_ins) :])
        if rest.strip():
            raise UserError(
                f"the chat template ends the last answer with {last!r}, others with {inner!r}, and "
                "the tokenizer has no such special tokens. Use the template of this checkpoint."
            )
    header, unwritten = prompt[_shared(prompt, without, stand_ins) :], ""
    if not header:
        unwritten = whole.removeprefix(prompt).split(words[1])[0].lstrip()
    return Habits(tuple(dict.fromkeys(end for end in ends if end)), header or unwritten, unwritten)


def find_turns(turns: Turns, trained: Sequence[int] | None, habits: Habits) -> FoundTurns:
    """Renders a conversation and finds turns of it.

    Args:
        turns: The conversation.
        trained: The numbers of the messages to find; None: the prompt of the next answer is
            written, and nothing is to be found.
        habits: The template's.

    Returns:
        The text and the spans.

    Raises:
        UserError: The template refuses the conversation or leaves out a turn.
    """
    prompt, count = trained is None, len(turns.messages)
    asked = [at for at, message in enumerate(turns.messages) if message.get("role") != "system"]
    calls = [turns.until(count, prompt=prompt)]
    calls += [turns.marked(at, prompt=prompt) for at in asked[:1]]
    for at in trained or ():
        calls += [turns.until(at, prompt=True)]
        calls += [turns.until(at + 1)] if at + 1 < count else []
    whole, *rendered = turns.template.render_all(calls)
    others = iter(rendered)
    text = _text(whole) + (habits.unwritten if prompt else "")
    finder = _Finder(turns, text, habits)
    head = finder.shared(next(others)) if asked else len(text)
    answers = [
        finder.answer(at, next(others), next(others) if at + 1 < count else text)
        for at in trained or ()
    ]
    if answers:
        head = min(head, answers[0][0])
    return FoundTurns(text, tuple(answers), head, tuple(dict.fromkeys(finder.notices)))


class _Finder:
    """Finds turns in one text."""

    def __init__(self, turns: Turns, text: str, habits: Habits) -> None:
        self.turns, self.text, self.habits = turns, text, habits
        self.special = turns.stand_ins.find(text)
        self.notices: list[str] = [] if habits.ends else [_ENDLESS]

    def shared(self, other: str | UserError) -> int:
        """The characters that the text shares with the start of another."""
        if isinstance(other, UserError):
            return 0
        return _shared(self.text, other, self.turns.stand_ins)

    def answer(self, at: int, prompt: str | UserError, with_turn: str | UserError) -> Span:
        """Finds the turn `at` by the text before it and the text that ends with it."""
        if isinstance(prompt, str) and self.text.startswith(prompt + self.habits.unwritten):
            start = len(prompt + self.habits.unwritten)
        else:
            start = self._start(at)
        border = self.shared(with_turn)
        if isinstance(with_turn, str):
            end = self._end(start, border)
            rest = with_turn[border if end is None else end :]
            if border == len(with_turn) or (end and not self.turns.stand_ins.cut(rest).strip()):
                if end is None:  # All that the template wrote, but for spaces and line breaks.
                    end = start + len(self.text[start:border].rstrip())
                return start, end
        self.notices.append(_CHANGED)
        border = self._content(at + 1) if at + 1 < len(self.turns.messages) else len(self.text)
        end = self._end(start, border)
        if end is None:
            raise UserError(
                f"the chat template does not show where turn {at + 1}, the assistant's, ends: "
                f"{self.text[start:border][-60:]!r}. Give another one with --chat_template=<file>."
            )
        return start, end

    def _start(self, at: int) -> int:
        """Where a turn begins that no prompt leads to: after the last header before its content."""
        content = self._content(at)
        found = self.text.rfind(self.habits.header, 0, content) if self.habits.header else -1
        self.notices.append(_CHANGED)
        return content if found < 0 else found + len(self.habits.header)

    def _content(self, at: int) -> int:
        (marked,) = self.turns.template.render_all([self.turns.marked(at)])
        if self.turns.marker not in _text(marked):
            raise UserError(
                f"the chat template leaves out turn {at + 1}, or writes it in another way. Give "
                "another one with --chat_template=<file>."
            )
        return self.shared(marked)

    def _end(self, start: int, border: int) -> int | None:
        """The end of the last end token within a part of the text; None: there is none."""
        inside = [(a, b) for a, b in self.special if start <= a and b <= border]
        for a, b in reversed(inside):
            if self.text[a:b] in self.habits.ends:
                return b
        part = self.text[start:border].rstrip()
        texts = [end for end in self.habits.ends if self.turns.stand_ins[end] == end]
        at, end = max(((part.rfind(end), end) for end in texts), default=(-1, ""))
        if at >= 0:
            return start + at + len(end)
        if inside and inside[-1][1] == start + len(part):
            return inside[-1][1]  # A rarer end token: after a call of a tool, for instance.
        return None


def _text(rendered: str | UserError) -> str:
    if isinstance(rendered, UserError):
        raise rendered
    return rendered


def _shared(one: str, other: str, stand_ins: StandIns) -> int:
    """Counts the characters that two texts start with, no special token counted in part."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    if low < min(len(one), len(other)):
        for start, end in [*stand_ins.find(one), *stand_ins.find(other)]:
            if start < low < end:
                low = start
    return low
