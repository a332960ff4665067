"""Answers in the form of OpenAI's chat.completions and completions."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tf_finetune.server.engine import Piece, TokenText


@dataclass
class Choice:
    """An answer as it has come so far.

    Attributes:
        text: Its text.
        tokens: Its tokens, where log-probabilities were asked for.
        reason: Why it has ended.
        count: The number of its tokens.
    """

    text: str = ""
    tokens: list[TokenText] = field(default_factory=list)
    reason: str = ""
    count: int = 0

    def push(self, piece: Piece) -> None:
        """Takes what it goes on with."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.reason, self.count = piece.reason, piece.count


@dataclass(frozen=True)
class Form:
    """The form of one response.

    Attributes:
        is_chat: Whether it is chat.completions'.
        model: The model's name.
        tells: Whether log-probabilities are told.
        id: The response's id.
        created: When it was begun, in seconds since 1970.
    """

    is_chat: bool
    model: str
    tells: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        start = "chatcmpl" if self.is_chat else "cmpl"
        object.__setattr__(self, "id", f"{start}-{uuid.uuid4().hex}")

    def whole(self, choices: Sequence[Choice], prompt_tokens: int) -> dict[str, Any]:
        """Returns the response that is not streamed."""
        name = "chat.completion" if self.is_chat else "text_completion"
        shown = [self._choice(number, choice) for number, choice in enumerate(choices)]
        return {**self._head(name), "choices": shown, "usage": usage(choices, prompt_tokens)}

    def first(self, index: int) -> dict[str, Any]:
        """Returns the chunk of a conversation's answer that names the role."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": "", "refusal": None}})

    def chunk(self, piece: Piece, before: Choice) -> list[dict[str, Any]]:
        """Returns the chunks for a piece.

        Args:
            piece: The piece.
            before: What came before it of that answer.
        """
        logprobs = self._logprobs(piece.tokens, before)
        if not self.is_chat:
            part = {"text": piece.text, "logprobs": logprobs}
            return [self._chunk(piece.index, part, piece.reason)]
        chunks = []
        if piece.text or piece.tokens:
            part = {"delta": {"content": piece.text}, "logprobs": logprobs}
            chunks.append(self._chunk(piece.index, part))
        if piece.reason:
            chunks.append(self._chunk(piece.index, {"delta": {}}, piece.reason))
        return chunks

    def last(self, choices: Sequence[Choice], prompt_tokens: int) -> dict[str, Any]:
        """Returns the chunk that tells the usage."""
        return {**self._stream_head(), "choices": [], "usage": usage(choices, prompt_tokens)}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        shown: dict[str, Any] = {"index": index, "finish_reason": choice.reason}
        shown["logprobs"] = self._logprobs(choice.tokens, Choice())
        if self.is_chat:
            content = {"role": "assistant", "content": choice.text, "refusal": None}
            return {**shown, "message": content}
        return {**shown, "text": choice.text}

    def _chunk(self, index: int, part: dict[str, Any], reason: str = "") -> dict[str, Any]:
        choice = {"index": index, "logprobs": None, **part, "finish_reason": reason or None}
        return {**self._stream_head(), "choices": [choice]}

    def _stream_head(self) -> dict[str, Any]:
        return self._head("chat.completion.chunk" if self.is_chat else "text_completion")

    def _head(self, name: str) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    def _logprobs(self, tokens: Sequence[TokenText], before: Choice) -> dict[str, Any] | None:
        if not self.tells:
            return None
        if self.is_chat:
            return {"content": [_chat_token(token) for token in tokens], "refusal": None}
        offsets, offset = [], sum(_characters(token.content) for token in before.tokens)
        for token in tokens:
            offsets.append(offset)
            offset += _characters(token.content)
        return {
            "tokens": [_shown(token.content) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{_shown(top): p for top, p in token.top} for token in tokens],
            "text_offset": offsets,
        }


def usage(choices: Sequence[Choice], prompt_tokens: int) -> dict[str, int]:
    """Returns how many tokens were read and made; a prompt counts once for all its answers."""
    made = sum(choice.count for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": made,
        "total_tokens": prompt_tokens + made,
    }


def _chat_token(token: TokenText) -> dict[str, Any]:
    top = [_token(content, logprob) for content, logprob in token.top]
    return {**_token(token.content, token.logprob), "top_logprobs": top}


def _token(content: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _shown(content), "logprob": logprob, "bytes": list(content)}


def _shown(content: bytes) -> str:
    r"""Returns a token as text; a part of a character as OpenAI writes it, `bytes:\xe2\x82`."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def _characters(content: bytes) -> int:
    """Returns how many characters begin in some UTF-8."""
    return sum(byte & 0xC0 != 0x80 for byte in content)
