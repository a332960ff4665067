"""Shows training rows with the tokens that are learnt."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tf_finetune.data.conversations import Example, Preference
from tf_finetune.data.marked import marked_example
from tf_finetune.generation.dialogue_format import DialogueFormat
from tf_finetune.text.answers import Row, tokenize, truncate


@dataclass(frozen=True)
class ShownRow:
    """A row as the model reads it.

    Attributes:
        tokens: Their number.
        pieces: Its text in stretches, each with whether it is learnt.
    """

    tokens: int
    pieces: tuple[tuple[str, bool], ...]


def shown_rows(
    example: Example, form: DialogueFormat, max_seq_length: int
) -> Iterator[ShownRow | None]:
    """Yields the rows of an example: of a preference the chosen answer's, then the other's.

    Args:
        example: A training example.
        form: How it becomes text.
        max_seq_length: The most tokens of a row.

    Yields:
        The row; None: no answer is left within so many tokens.
    """
    for alternative in alternatives(example):
        (whole,) = tokenize(form.chat.tokenizer, [form.example(alternative)])
        row = truncate(whole, max_seq_length)
        yield ShownRow(len(row.ids), tuple(_pieces(row, form))) if row else None


def alternatives(example: Example) -> tuple[Example, ...]:
    """Returns the examples of one answer each that an example consists of."""
    return example.alternatives if isinstance(example, Preference) else (example,)


def show_examples(
    examples: Sequence[Example], form: DialogueFormat, max_seq_length: int, count: int
) -> str:
    """Lays out the first examples as the model reads them, with what it learns marked.

    Args:
        examples: The training examples.
        form: How they become texts.
        max_seq_length: The most tokens of a row.
        count: How many.
    """
    shown = []
    for example in examples[:count]:
        for row in shown_rows(example, form, max_seq_length):
            if row is None:
                shown.append(f"{example.location}: no answer within --max_seq_length; left out")
                continue
            title = f"{example.location}, {row.tokens} tokens, what is learnt is marked:"
            shown.append(f"{title}\n{marked_example(row.pieces, sys.stdout.isatty())}")
    return "\n".join(shown)


def _pieces(row: Row, form: DialogueFormat) -> Iterator[tuple[str, bool]]:
    start = 0
    for first, end in row.answers:
        yield _text(form, row.ids[start:first]), False
        yield _text(form, row.ids[first:end]), True
        start = end
    yield _text(form, row.ids[start:]), False


def _text(form: DialogueFormat, ids: Sequence[int]) -> str:
    return form.chat.tokenizer.decode(ids, skip_special_tokens=False)
