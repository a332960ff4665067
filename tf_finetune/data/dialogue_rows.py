"""Rows of prompts with answers: OpenAI's, TRL's, ShareGPT's, Alpaca's, and plain texts.

Each function takes a row, its location, and whether the answer may be missing, as it may in files
that are predicted; it raises `UserError` for a row that cannot be used.
"""

from collections.abc import Mapping
from typing import Any

from tf_finetune.data.conversations import Completion, Conversation, Message
from tf_finetune.data.messages import Turns, check_learnable, from_sharegpt, read_messages
from tf_finetune.data.text_cells import (
    filled_cell,
    is_empty,
    json_list,
    missing_key,
    text_cell,
    value_of,
)
from tf_finetune.data.tool_calls import read_tools
from tf_finetune.errors import UserError

Row = Mapping[str, Any]


def read_messages_row(row: Row, location: str, may_lack: bool) -> Conversation:
    """Reads OpenAI's `messages`."""
    place = f"{location}: messages"
    turns = read_messages(value_of(row, "messages", location), place)
    return _conversation(turns, row, location, "messages", may_lack)


def read_sharegpt_row(row: Row, location: str, may_lack: bool) -> Conversation:
    """Reads ShareGPT's `conversations`; `system` stands in front if no turn of it does."""
    place = f"{location}: conversations"
    turns = read_messages(from_sharegpt(value_of(row, "conversations", location), place), place)
    if turns.messages[0]["role"] != "system":
        turns = _joined(_system(row, location), turns)
    return _conversation(turns, row, location, "conversations", may_lack)


def read_alpaca_row(row: Row, location: str, may_lack: bool) -> Conversation:
    """Reads Alpaca's `instruction`, `input` and `output`, with `system` and `history`.

    The user's turn is the instruction and, on the next line, the input. Answers in the history are
    learnt too, as by LLaMA-Factory, which defined it.
    """
    turns = _system(row, location)
    for number, pair in enumerate(json_list(row.get("history"), "history", location)):
        if not isinstance(pair, list) or len(pair) != 2:
            raise UserError(
                f"{location}: history[{number}] is {pair!r:.80}, not a pair of an instruction and "
                "its answer."
            )
        texts = [filled_cell(text, f"history[{number}]", location) for text in pair]
        turns = _joined(turns, _exchange(*texts))
    user = filled_cell(value_of(row, "instruction", location), "instruction", location)
    if not is_empty(row.get("input")):
        user += "\n" + text_cell(row["input"], "input", location)
    turns = _joined(turns, _exchange(user, answer_cell(row, "output", location, may_lack)))
    return Conversation(turns.messages, turns.trained, read_tools(row, location), location)


def read_prompt_row(row: Row, location: str, may_lack: bool) -> Conversation | Completion:
    """Reads `prompt` and `completion`: two texts, or TRL's two lists of messages."""
    prompt = value_of(row, "prompt", location)
    if not isinstance(prompt, list):
        if isinstance(row.get("completion"), list):
            raise _unlike(row, "prompt", "completion", location)
        text = filled_cell(prompt, "prompt", location)
        return Completion(text, answer_cell(row, "completion", location, may_lack), location)
    before = read_messages(prompt, f"{location}: prompt").messages
    turns = Turns(before, (False,) * len(before))
    if not (may_lack and is_empty(row.get("completion"))):
        answer = value_of(row, "completion", location)
        if not isinstance(answer, list):
            raise _unlike(row, "prompt", "completion", location)
        place = f"{location}: completion"
        answered = read_messages(answer, place, before)
        check_learnable(answered, place)
        turns = _joined(turns, answered)
    return Conversation(turns.messages, turns.trained, read_tools(row, location), location)


def read_text_row(row: Row, location: str, may_lack: bool) -> Completion:
    """Reads a `text`, which is learnt from its beginning."""
    del may_lack
    return Completion("", filled_cell(value_of(row, "text", location), "text", location), location)


def answer_cell(row: Row, key: str, location: str, may_lack: bool) -> str | None:
    """Returns the answer's text; None where it may be missing and is.

    Raises:
        UserError: It is missing, empty, or no text.
    """
    if may_lack and is_empty(row.get(key)):
        return None
    if key not in row:
        raise missing_key(row, key, location)
    return filled_cell(row[key], key, location)


def _conversation(turns: Turns, row: Row, location: str, key: str, may_lack: bool) -> Conversation:
    if not may_lack:
        check_learnable(turns, f"{location}: {key}")
    return Conversation(turns.messages, turns.trained, read_tools(row, location), location)


def _system(row: Row, location: str) -> Turns:
    if is_empty(row.get("system")):
        return Turns((), ())
    return Turns(
        ({"role": "system", "content": text_cell(row["system"], "system", location)},), (False,)
    )


def _exchange(user: str, answer: str | None) -> Turns:
    asked: Message = {"role": "user", "content": user}
    if answer is None:
        return Turns((asked,), (False,))
    return Turns((asked, {"role": "assistant", "content": answer}), (False, True))


def _joined(turns: Turns, more: Turns) -> Turns:
    return Turns(turns.messages + more.messages, turns.trained + more.trained)


def _unlike(row: Row, key: str, other: str, location: str) -> UserError:
    kinds = [
        "a list of messages" if isinstance(row.get(name), list) else f"{row.get(name)!r:.60}"
        for name in (key, other)
    ]
    return UserError(
        f"{location}: {key!r} is {kinds[0]}, and {other!r} is {kinds[1]}. Both must be texts, or "
        "both lists of messages."
    )
