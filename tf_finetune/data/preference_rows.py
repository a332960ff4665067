"""Rows of two answers, one of which is better: OpenAI's and TRL's."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.data.conversations import Message, Preference
from tf_finetune.data.messages import Turns, check_learnable, read_messages
from tf_finetune.data.text_cells import filled_cell, is_empty, value_of
from tf_finetune.data.tool_calls import read_tools
from tf_finetune.errors import UserError

Row = Mapping[str, Any]


def read_openai_preference(row: Row, location: str, may_lack: bool) -> Preference:
    """Reads OpenAI's `input` (messages, tools), `preferred_output` and `non_preferred_output`."""
    del may_lack
    given = value_of(row, "input", location)
    if not isinstance(given, dict) or "messages" not in given:
        raise UserError(
            f"{location}: 'input' is {given!r:.80}, not an object with \"messages\", the turns "
            "before the answers."
        )
    prompt = read_messages(given["messages"], f"{location}: input.messages").messages
    chosen, rejected = (
        _answer(value_of(row, key, location), f"{location}: {key}", prompt)
        for key in ("preferred_output", "non_preferred_output")
    )
    _check_differ(chosen, rejected, location, ("preferred_output", "non_preferred_output"))
    return Preference(prompt, chosen, rejected, read_tools(given, location), location)


def read_preference(row: Row, location: str, may_lack: bool) -> Preference:
    """Reads TRL's `chosen` and `rejected`, with their `prompt` or with it at their beginning."""
    del may_lack
    answers = [value_of(row, key, location) for key in ("chosen", "rejected")]
    are_lists = [isinstance(answer, list) for answer in answers]
    if are_lists[0] != are_lists[1]:
        raise UserError(
            f"{location}: 'chosen' is {answers[0]!r:.60}, and 'rejected' is {answers[1]!r:.60}. "
            "Both must be texts, or both lists of messages."
        )
    if are_lists[0]:
        return _of_messages(row, location)
    chosen, rejected = (filled_cell(row[key], key, location) for key in ("chosen", "rejected"))
    if isinstance(row.get("prompt"), list):
        raise UserError(
            f"{location}: 'prompt' is a list of messages, and 'chosen' a text. Write the answer as "
            'a list too: [{"role": "assistant", "content": "..."}].'
        )
    _check_differ(chosen, rejected, location)
    if not is_empty(row.get("prompt")):
        prompt = filled_cell(row["prompt"], "prompt", location)
    else:
        prompt = _common_text(chosen, rejected)
        if not prompt:
            raise UserError(
                f"{location}: 'chosen' and 'rejected' do not begin alike, and there is no "
                "'prompt'. Give it, or name its column: --prompt_column."
            )
        chosen, rejected = (answer[len(prompt) :] for answer in (chosen, rejected))
        if not (chosen.strip() and rejected.strip()):
            raise UserError(
                f"{location}: of 'chosen' and 'rejected' one is the beginning of the other, so an "
                "answer is empty. Give the 'prompt'."
            )
    return Preference(prompt, chosen, rejected, (), location)


def _of_messages(row: Row, location: str) -> Preference:
    given = row.get("prompt")
    if isinstance(given, list) and given:
        prompt = read_messages(given, f"{location}: prompt").messages
        chosen, rejected = (
            _answer(row[key], f"{location}: {key}", prompt) for key in ("chosen", "rejected")
        )
    else:
        both = [
            read_messages(row[key], f"{location}: {key}").messages for key in ("chosen", "rejected")
        ]
        _check_differ(both[0], both[1], location)
        shared = _num_shared(both[0], both[1])
        prompt = both[0][:shared]
        if not shared:
            if is_empty(given):
                raise UserError(
                    f"{location}: 'chosen' and 'rejected' have no first turn in common, and there "
                    "is no 'prompt'. Give it, or name its column: --prompt_column."
                )
            prompt = ({"role": "user", "content": filled_cell(given, "prompt", location)},)
        chosen, rejected = (
            _check_answer(turns[shared:], f"{location}: {key}", shared)
            for key, turns in zip(("chosen", "rejected"), both, strict=True)
        )
    _check_differ(chosen, rejected, location)
    return Preference(prompt, chosen, rejected, read_tools(row, location), location)


def _answer(value: Any, place: str, before: Sequence[Message]) -> tuple[Message, ...]:
    return _check_answer(read_messages(value, place, before).messages, place)


def _check_answer(messages: tuple[Message, ...], place: str, first: int = 0) -> tuple[Message, ...]:
    """Checks the turns of an answer.

    Raises:
        UserError: They do not begin and end with the assistant's, or one of these is empty.
    """
    if messages[0]["role"] != "assistant":
        raise UserError(
            f"{place}[{first}]: the answer begins with a turn of the role "
            f"{messages[0]['role']!r}, not of the assistant. Two answers follow one prompt: give "
            "it in 'prompt' alone, or as equal first turns of both."
        )
    learnt = tuple(message["role"] == "assistant" for message in messages)
    check_learnable(Turns(messages, learnt), place, first)
    return messages


def _check_differ(
    chosen: Any, rejected: Any, location: str, keys: tuple[str, str] = ("chosen", "rejected")
) -> None:
    if chosen == rejected:
        raise UserError(
            f"{location}: {keys[0]!r} and {keys[1]!r} are equal, so nothing is preferred. Correct "
            "one, or remove the row."
        )


def _num_shared(one: Sequence[Message], other: Sequence[Message]) -> int:
    """Returns how many first turns are equal; the last of each is an answer."""
    most = min(len(one), len(other)) - 1
    return next((n for n in range(most) if one[n] != other[n]), most)


def _common_text(one: str, other: str) -> str:
    """Returns the words with which both texts begin, without the blank after them.

    What both answers share has no part in their difference, so its end may be anywhere; between
    words it leaves the tokens of the answers as they are.
    """
    pairs = enumerate(zip(one, other, strict=False))
    end = next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
    while end and not one[end - 1].isspace():
        end -= 1
    return one[:end].rstrip()
