"""Shows training rows with the tokens that are learnt."""

import sys
from collections.abc import Sequence
from itertools import chain

from tf_finetune.data.conversations import Example, Preference
from tf_finetune.data.marked import marked_example
from tf_finetune.generation.dialogue_format import DialogueFormat
from tf_finetune.text.answers import tokenize, truncate


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
    tokenizer, shown = form.chat.tokenizer, []
    alternatives = (
        example.alternatives if isinstance(example, Preference) else (example,)
        for example in examples[:count]
    )
    for example in chain.from_iterable(alternatives):
        rendered = form.example(example)
        (whole,) = tokenize(tokenizer, [rendered])
        row = truncate(whole, max_seq_length)
        if row is None:
            shown.append(f"{example.location}: no answer within --max_seq_length; left out")
            continue
        pieces, start = [], 0
        for first, end in row.answers:
            pieces += [(_text(form, row.ids[start:first]), False)]
            pieces += [(_text(form, row.ids[first:end]), True)]
            start = end
        pieces.append((_text(form, row.ids[start:]), False))
        title = f"{example.location}, {len(row.ids)} tokens, what is learnt is marked:"
        shown.append(f"{title}\n{marked_example(pieces, sys.stdout.isatty())}")
    return "\n".join(shown)


def _text(form: DialogueFormat, ids: Sequence[int]) -> str:
    return form.chat.tokenizer.decode(ids, skip_special_tokens=False)
