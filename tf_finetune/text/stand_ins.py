"""Strings of equal length that stand in for special tokens, so that a text can hold both kinds."""

import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

Span = tuple[int, int]

# The private-use planes: 131,068 code points without a meaning.
_PRIVATE = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))


class StandIns:
    """Gives each special token a random string of its length, new in each process.

    Nobody can type such a string by intent. Lengths are equal, so that spans of the text hold
    before and after.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        """Draws a stand-in for each token.

        Args:
            tokens: Contents of the special tokens.
        """
        self._hidden: dict[str, str] = {}
        for token in tokens:
            drawn = random_private(len(token))
            while drawn in self._hidden.values():
                drawn = random_private(len(token))
            self._hidden[token] = drawn
        self._tokens = _any_of(self._hidden)
        self._stand_ins = _any_of(self._hidden.values())
        self._shown = {drawn: token for token, drawn in self._hidden.items()}

    def __getitem__(self, token: str) -> str:
        """Returns the stand-in of a special token, any other token itself."""
        return self._hidden.get(token, token)

    def find(self, text: str) -> list[Span]:
        """Returns the spans of all special tokens in a text; of two at one place the longer."""
        return [match.span() for match in self._tokens.finditer(text)]

    def cut(self, text: str) -> str:
        """Returns a text without its special tokens."""
        return self._tokens.sub("", text)

    def hide(self, value: Any) -> Any:
        """Puts stand-ins for the special tokens in a string, or in all strings of a JSON value."""
        if isinstance(value, str):
            return self._tokens.sub(lambda match: self._hidden[match[0]], value)
        if isinstance(value, dict):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.hide(item) for item in value]
        return value

    def hide_spans(self, text: str, spans: Sequence[Span]) -> str:
        """Puts stand-ins for the special tokens at some places only.

        Args:
            text: Any text.
            spans: Places of special tokens, ascending.

        Returns:
            A text of the same length.

        Raises:
            ValueError: There is no special token at a span.
        """
        parts, done = [], 0
        for start, end in spans:
            token = text[start:end]
            if token not in self._hidden or start < done:
                raise ValueError(f"no special token at {start}:{end}, but {token!r}")
            parts += [text[done:start], self._hidden[token]]
            done = end
        return "".join([*parts, text[done:]])

    def reveal(self, text: str) -> str:
        """Puts the special tokens back for their stand-ins."""
        return self._stand_ins.sub(lambda match: self._shown[match[0]], text)


def random_private(length: int) -> str:
    """Returns random characters without a meaning."""
    return "".join(chr(secrets.choice(_PRIVATE)) for _ in range(length))


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    # The first alternative that fits wins: longer ones stand before those they start with.
    ordered = sorted((string for string in strings if string), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
