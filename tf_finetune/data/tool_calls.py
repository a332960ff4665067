"""Tools and calls of tools, as chat templates take them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.data.text_cells import json_list
from tf_finetune.errors import UserError


def read_tools(row: Mapping[str, Any], location: str) -> tuple[dict[str, Any], ...]:
    """Returns the tools of a row: OpenAI's `tools`, or its older `functions`.

    Args:
        row: The row. Both may be written as a JSON text; a function without `{"type": "function",
            "function": ...}` around it gets that.
        location: Its place.

    Raises:
        UserError: Something else is written there, or both are.
    """
    if "tools" not in row and "functions" not in row:
        return ()
    tools, functions = (json_list(row.get(key), key, location) for key in ("tools", "functions"))
    if tools and functions:
        raise UserError(f"{location}: both 'tools' and 'functions'. Keep 'tools'.")
    key = "functions" if functions else "tools"
    return tuple(
        _tool(tool, f"{location}: {key}[{number}]")
        for number, tool in enumerate(tools or functions)
    )


def read_calls(message: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    """Returns the calls of tools of an assistant's turn: `tool_calls`, or `function_call`.

    The arguments of a call, which OpenAI writes as a JSON text, become an object, since templates
    write objects as JSON themselves.

    Args:
        message: The turn.
        place: Its place, as `file:line: messages[2]`.

    Raises:
        UserError: A call has no name, or its arguments are no object.
    """
    calls, older = message.get("tool_calls"), message.get("function_call")
    if calls and older:
        raise UserError(f"{place}: both 'tool_calls' and 'function_call'. Keep 'tool_calls'.")
    if older:
        return [{"type": "function", "function": _function(older, f"{place}.function_call")}]
    if calls is not None and not isinstance(calls, list):
        raise UserError(f"{place}.tool_calls is {calls!r:.80}, not a list of calls.")
    return [_call(call, f"{place}.tool_calls[{n}]") for n, call in enumerate(calls or ())]


def check_ids(
    messages: Sequence[Mapping[str, Any]], place: str, before: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Checks that each tool's result which names a call names one that was made before it.

    Args:
        messages: The checked turns.
        place: Their place, as `file:line: messages`.
        before: The turns before these.

    Raises:
        UserError: There is no such call, or it has no id.
    """
    calls = [call for message in before for call in message.get("tool_calls", ())]
    known = [call["id"] for call in calls if "id" in call]
    without = ""
    for number, message in enumerate(messages):
        for count, call in enumerate(message.get("tool_calls", ())):
            if "id" in call:
                known.append(call["id"])
            else:
                without = without or f"{place}[{number}].tool_calls[{count}]"
        wanted = message.get("tool_call_id")
        if wanted is None or wanted in known:
            continue
        if without:
            raise UserError(
                f"{without} has no 'id', to which the tool's turn {place.rpartition(' ')[2]}"
                f"[{number}] could refer by tool_call_id={wanted!r}. Give the call this id."
            )
        ids = ", ".join(map(repr, known)) or "none"
        raise UserError(
            f"{place}[{number}].tool_call_id is {wanted!r}, but no earlier tool call has this id; "
            f"the ids are {ids}. Correct it."
        )


def _tool(tool: Any, place: str) -> dict[str, Any]:
    if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
        return tool
    if isinstance(tool, dict) and isinstance(tool.get("name"), str):
        return {"type": "function", "function": tool}
    raise UserError(
        f'{place} is {tool!r:.80}, not {{"type": "function", "function": {{"name": ...}}}}.'
    )


def _call(call: Any, place: str) -> dict[str, Any]:
    if not isinstance(call, dict) or "function" not in call:
        raise UserError(
            f'{place} is {call!r:.80}, not {{"id": ..., "type": "function", "function": '
            '{"name": ..., "arguments": ...}}.'
        )
    kept = {key: value for key, value in call.items() if value is not None}
    return {**kept, "function": _function(call["function"], f"{place}.function")}


def _function(function: Any, place: str) -> dict[str, Any]:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UserError(f"{place} is {function!r:.80}; it must be an object with a 'name'.")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}.arguments is not valid JSON ({error}).") from None
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise UserError(
            f"{place}.arguments is {arguments!r:.80}, not a JSON object of the call's arguments."
        )
    return {**function, "arguments": arguments}
