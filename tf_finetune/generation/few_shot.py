"""Prompts that give a base model a fair chance: told the format, or shown some examples."""

import random
from collections.abc import Sequence
from typing import TypeVar, cast

from tf_finetune.errors import UserError
from tf_finetune.generation.answers import Messages

Row = TypeVar("Row")


def with_instruction(prompt: Messages | str, instruction: str) -> Messages | str:
    """Returns a prompt that says how to answer.

    Args:
        prompt: Messages: the instruction ends their system turn, which is added if there is none.
            Text: the instruction and an empty line stand before it.
        instruction: The text of `--base_prompt`.
    """
    if isinstance(prompt, str):
        return f"{instruction}\n\n{prompt}"
    system, rest = _parted(prompt)
    before = f"{system[0]['content']}\n\n" if system else ""
    return ({"role": "system", "content": before + instruction}, *rest)


def choose_examples(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Chooses the rows of training that every prompt shows, at random by `seed`.

    Raises:
        UserError: There are fewer rows.
    """
    if count > len(rows):
        raise UserError(
            f"The base model was to be shown {count} examples, but there are only {len(rows)} "
            "training rows with an answer. Ask for fewer."
        )
    return random.Random(seed).sample(list(rows), count)


def with_examples(prompt: Messages | str, examples: Sequence[Messages | str]) -> Messages | str:
    """Returns a prompt that shows examples first.

    Args:
        prompt: Messages: the examples are earlier turns, after the system turn; their own system
            turns are left out. Text: the examples stand before it, an empty line after each.
        examples: Rows of training with their answers, messages or text as the prompt is.
    """
    if isinstance(prompt, str):
        return "".join(f"{example}\n\n" for example in examples) + prompt
    system, rest = _parted(prompt)
    turns = [turn for example in examples for turn in _parted(cast(Messages, example))[1]]
    return (*system, *turns, *rest)


def _parted(messages: Messages) -> tuple[Messages, Messages]:
    """Returns the system turn, if the messages open with one, and the others."""
    size = 1 if messages and messages[0]["role"] in ("system", "developer") else 0
    return messages[:size], messages[size:]
