"""Text while its tokens come."""

import re

from tf_finetune.text.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class StreamDecoder:
    """Turns one id after another into text; all parts together equal `decode` of all ids.

    A part never ends within a character: bytes wait for those that complete it.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True) -> None:
        """Starts a text.

        Args:
            tokenizer: The tokenizer.
            skip_special_tokens: Whether special tokens are left out.
        """
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._window: list[int] = []  # the last token shown, and those that wait
        self._shown = 0  # characters of the window's text that were returned

    def push(self, id: int) -> str:
        """Takes the next id and returns the text that is certain now, often one token's."""
        if id in self._skipped:
            return ""
        self._window.append(id)
        # A decoder takes a run of byte tokens as a whole: one byte more may change all before.
        if _BYTE.fullmatch(self._tokenizer.token(id)):
            return ""
        text = self._text()
        if text.endswith("\ufffd"):
            return ""
        new = text[self._shown :]
        # One token stays, since decoders drop a space before the first.
        self._window = [id]
        self._shown = len(self._text())
        return new

    def finish(self) -> str:
        """Returns the text of the tokens that still wait."""
        return self._text()[self._shown :]

    def _text(self) -> str:
        return self._tokenizer.decode(self._window, skip_special_tokens=False)
