"""The text of an answer while its tokens come."""

from collections.abc import Sequence
from dataclasses import dataclass

from tf_finetune.text.stream_decoder import StreamDecoder


@dataclass
class AnswerText:
    """An answer while its tokens come.

    Attributes:
        decoder: Turns its tokens into text.
        stop: Texts at which it ends; they are left out.
        text: What there is of it.
        shown: The number of its characters that `part` has returned.
        tokens: The number of its tokens, the end token included.
        reason: Why it has ended; empty: it has not.
    """

    decoder: StreamDecoder
    stop: Sequence[str]
    text: str = ""
    shown: int = 0
    tokens: int = 0
    reason: str = ""

    def push(self, id: int, is_end: bool) -> None:
        """Takes the next token."""
        self.tokens += 1
        self.text += self.decoder.finish() if is_end else self.decoder.push(id)
        if is_end:
            self.reason = "stop"
        places = [place for stop in self.stop if (place := self.text.find(stop)) >= 0]
        if places:
            self.text, self.reason = self.text[: min(places)], "stop"

    def end(self) -> None:
        """Ends the answer at its greatest length."""
        if not self.reason:
            self.text += self.decoder.finish()
            self.reason = "length"

    def part(self) -> str:
        """Returns what is new and cannot be a part of a stop text."""
        held = 0
        if not self.reason:
            held = max(
                (
                    size
                    for stop in self.stop
                    for size in range(1, len(stop))
                    if self.text.endswith(stop[:size])
                ),
                default=0,
            )
        end = max(self.shown, len(self.text) - held)
        part, self.shown = self.text[self.shown : end], end
        return part
