"""Answers inquiries with the labels of a classifier; in the engine's thread."""

import math
from collections.abc import Mapping, Sequence

from tf_finetune.classification.predict import Predictions
from tf_finetune.errors import UserError
from tf_finetune.server.engine import Piece, Prompt, Stream, TokenText
from tf_finetune.server.loaded import LabelModel


def texts_of(prompts: Sequence[Prompt]) -> list[str]:
    """Returns what is labelled: of messages the user's last one.

    Raises:
        UserError: There is no such text.
    """
    return [_text(prompt) for prompt in prompts]


def label(model: LabelModel, asked: Sequence[tuple[Stream, Sequence[str]]]) -> None:
    """Reads the texts of several inquiries at once and answers them.

    Args:
        model: A classifier.
        asked: Who asks, and the texts of the prompts.
    """
    found, lengths = model.read([text for _, texts in asked for text in texts])
    first = 0
    for stream, texts in asked:
        stream.begun(int(lengths[first : first + len(texts)].sum()))
        for number in range(len(texts)):
            text, told = _answer(model.names, found, first + number, stream.inquiry.logprobs)
            for choice in range(stream.inquiry.n):
                stream.push(Piece(number * stream.inquiry.n + choice, text, told, "stop", 1))
        first += len(texts)


def _answer(
    names: Sequence[str], found: Predictions, row: int, logprobs: int | None
) -> tuple[str, tuple[TokenText, ...]]:
    """Returns the answer to a text, and its labels with their log-probabilities if asked for."""
    if not names:
        return f"{found.values[row]:g}", ()
    labels = found.labels[row]
    told: tuple[TokenText, ...] = ()
    if logprobs is not None:
        pairs = zip(names, found.probabilities[row].tolist(), strict=True)
        every = {name: math.log(max(value, 1e-30)) for name, value in pairs}
        first = sorted(every.items(), key=lambda pair: -pair[1])[: logprobs or len(names)]
        top = tuple((name.encode(), value) for name, value in first)
        told = tuple(TokenText(name.encode(), every[name], top) for name in labels if name in every)
    return ", ".join(labels), told


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    for message in reversed(prompt):
        if isinstance(message, Mapping) and message.get("role") == "user":
            return str(message["content"])
    raise UserError("The model is a classifier: it labels the last message of the user, or a text.")
