"""Checks lists of messages, and brings them into the form that chat templates take."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_finetune.data.conversations import Message
from tf_finetune.data.keys import listed
from tf_finetune.data.tool_calls import check_ids, read_calls
from tf_finetune.errors import UserError

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# The names of OpenAI's newer and older interfaces, by those that chat templates know.
_SAME_ROLE = {"developer": "system", "function": "tool"}
# ShareGPT's names, and those that LLaMA-Factory added for tools.
_SHAREGPT_ROLES = {
    **{"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"},
    **{"system": "system", "tool": "tool", "observation": "tool", "function_call": "assistant"},
}
_PLAIN_ROLES = ("system", "user", "assistant", "tool")
_NOT_FOR_TEMPLATES = ("weight", "function_call")


@dataclass(frozen=True)
class Turns:
    """Checked messages.

    Attributes:
        messages: The turns; none has a key whose value is None.
        trained: Whether each is learnt: the assistant's, unless its weight is 0.
    """

    messages: tuple[Message, ...]
    trained: tuple[bool, ...]


def read_messages(value: Any, place: str, before: Sequence[Message] = ()) -> Turns:
    """Checks a list of messages as OpenAI and Hugging Face write them.

    Contents that are lists of text parts are joined; the assistant's content may be null beside
    calls of tools. `developer` becomes `system`, and the deprecated `function_call` and `function`
    become `tool_calls` and `tool`. Further keys are handed on to the template.

    Args:
        value: The list.
        place: Its place, as `file:line: messages`.
        before: The turns before these, whose calls of tools may be answered here.

    Raises:
        UserError: No list, an empty one, or a turn that cannot be used; the message says which.
    """
    if not isinstance(value, list):
        raise UserError(
            f"{place} is {value!r:.80}, not a list of messages such as "
            '[{"role": "user", "content": "..."}].'
        )
    if not value:
        raise UserError(f"{place} is empty. Give the turns of the conversation, or remove the row.")
    messages, trained = [], []
    for number, message in enumerate(value):
        turn, is_trained = _read_message(message, f"{place}[{number}]")
        messages.append(turn)
        trained.append(is_trained)
    if any("tool_call_id" in message for message in messages):
        check_ids(messages, place, before)
    return Turns(tuple(messages), tuple(trained))


def from_sharegpt(value: Any, place: str) -> Any:
    """Turns a list of ShareGPT's turns into one of messages; another value stays what it is.

    Args:
        value: Turns of `from` and `value`; the value of a `function_call` is the call as JSON.
            Turns of `role` and `content`, which some write here, stay what they are.
        place: Its place.

    Raises:
        UserError: A turn has no such keys, or an unknown name.
    """
    if not isinstance(value, list) or (value and isinstance(value[0], dict) and "role" in value[0]):
        return value
    return [_from_sharegpt(turn, f"{place}[{number}]") for number, turn in enumerate(value)]


def check_learnable(turns: Turns, place: str, first: int = 0) -> None:
    """Checks that a conversation can be trained on.

    Args:
        turns: The conversation, or a part of it.
        place: Its place.
        first: The number of its first turn there.

    Raises:
        UserError: No assistant's turn is learnt, one is empty, or the last turn is another's.
    """
    roles = [message["role"] for message in turns.messages]
    if "assistant" not in roles:
        raise UserError(
            f"{place}: no turn of the assistant, so there is nothing to learn; the roles are "
            f"{listed(list(dict.fromkeys(roles)))}. Add the answer, or remove the row."
        )
    if roles[-1] != "assistant":
        whose = "user" if roles[-1] == "user" else f"role {roles[-1]!r}"
        raise UserError(
            f"{place}[{first + len(roles) - 1}]: the last turn is of the {whose}, and "
            "nothing answers it. Add the answer, or remove this turn. (A --test_file may end so: "
            "it is predicted.)"
        )
    if not any(turns.trained):
        raise UserError(
            f"{place}: every turn of the assistant has weight 0, so there is nothing to learn. "
            "Give one weight 1, or remove the row."
        )
    for number, (message, is_trained) in enumerate(
        zip(turns.messages, turns.trained, strict=True), first
    ):
        if is_trained and not message["content"].strip() and not message.get("tool_calls"):
            raise UserError(
                f"{place}[{number}].content is empty, an answer of nothing. Give the text, or "
                'leave the turn out of the training with "weight": 0.'
            )


def _read_message(message: Any, place: str) -> tuple[Message, bool]:
    if not isinstance(message, dict):
        raise UserError(
            f'{place} is {message!r:.80}, not a message such as {{"role": "user", "content": '
            '"..."}.'
        )
    role, content = message.get("role"), message.get("content")
    if len(message) == 2 and type(content) is str and role in _PLAIN_ROLES and "\0" not in content:
        return message, role == "assistant"  # As nearly all turns are.
    kept = {key: value for key, value in message.items() if value is not None}
    if "role" not in kept:
        raise UserError(f"{place} has no 'role'; its keys are {listed(list(message))}.")
    if role not in ROLES:
        raise UserError(f"{place}.role is {role!r:.80}; the roles are {', '.join(ROLES)}.")
    weight = kept.get("weight", 1)
    if role != "assistant" and "weight" in kept:
        raise UserError(
            f"{place}.weight: this turn is of the role {role!r}, and only the assistant's are "
            "learnt. Remove the weight."
        )
    if isinstance(weight, bool) or weight not in (0, 1):
        raise UserError(f"{place}.weight is {weight!r:.80}; it is 0 (not learnt) or 1.")
    calls = read_calls(kept, place)
    if calls and role != "assistant":
        raise UserError(
            f"{place}: a turn of the role {role!r} calls tools; only the assistant can."
        )
    turn = {key: value for key, value in kept.items() if key not in _NOT_FOR_TEMPLATES}
    turn["role"] = _SAME_ROLE.get(role, role)
    turn["content"] = _content(message, kept, bool(calls), place)
    if calls:
        turn["tool_calls"] = calls
    elif "tool_calls" in turn:
        del turn["tool_calls"]
    return turn, role == "assistant" and weight == 1


def _content(message: Message, kept: Message, has_calls: bool, place: str) -> str:
    content = kept.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{place}.content[{n}]") for n, part in enumerate(content))
    if content is None and has_calls:
        return ""
    if content is None:
        what = "is null" if "content" in message else "is missing"
        raise UserError(f"{place}.content {what}. Only a turn that calls tools may lack it.")
    if not isinstance(content, str):
        raise UserError(
            f"{place}.content is {content!r:.80}; it must be a text, or a list of text parts such "
            'as {"type": "text", "text": "..."}.'
        )
    if "\0" in content:
        raise UserError(f"{place}.content holds a NUL character. Remove it.")
    return content


def _part(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text" or not isinstance(part.get("text"), str):
        shown = f"of the type {kind!r}" if kind not in (None, "text") else f"{part!r:.80}"
        raise UserError(
            f'{place} is {shown}; only texts are learnt: {{"type": "text", "text": "..."}}.'
        )
    return part["text"]


def _from_sharegpt(turn: Any, place: str) -> Any:
    if not isinstance(turn, dict) or not {"from", "value"} <= turn.keys():
        raise UserError(
            f'{place} is {turn!r:.80}, not a turn such as {{"from": "human", "value": "..."}}.'
        )
    name = turn["from"]
    if not isinstance(name, str) or name not in _SHAREGPT_ROLES:
        raise UserError(
            f"{place}.from is {name!r:.80}; the names are {', '.join(_SHAREGPT_ROLES)}."
        )
    others: Mapping[str, Any] = {k: v for k, v in turn.items() if k not in ("from", "value")}
    message = {"role": _SHAREGPT_ROLES[name], "content": turn["value"], **others}
    if name == "function_call":
        message |= {"content": None, "tool_calls": _calls_of_text(turn["value"], place)}
    return message


def _calls_of_text(value: Any, place: str) -> list[Any]:
    """Returns the calls that a text holds as JSON: one, or a list of them."""
    try:
        found = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        raise UserError(
            f"{place}.value is {value!r:.80}, not a call as JSON, such as "
            '{"name": ..., "arguments": {...}}.'
        ) from None
    calls = found if isinstance(found, list) else [found]
    return [{"type": "function", "function": call} for call in calls]
