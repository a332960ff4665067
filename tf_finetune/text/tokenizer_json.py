"""Reads what every tokenizer.json has: components, tokens and added tokens."""

from collections.abc import Iterable, Mapping
from typing import Any

from tf_finetune.errors import UserError

REMEDY = "Give the model as a SavedModel, and its preprocessor's SavedModel by --preprocessor"


def check(section: Any, name: str, allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """Checks the values in a section of a tokenizer.json.

    Args:
        section: The section, an object if the file is sound.
        name: Its name, for the error message.
        allowed: The values that each key may have; None: the key may be absent.

    Raises:
        UserError: A value is another.
    """
    for key, choices in allowed.items():
        value = section.get(key) if isinstance(section, dict) else None
        # 0 is no False here.
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            listed = " or ".join(repr(choice) for choice in choices if choice is not None)
            raise UserError(f"{name}.{key}={value!r}; only {listed} can be read. {REMEDY}")


def flat(component: Any, members: str) -> list[Mapping[str, Any]]:
    """Returns the parts of a component that may be a Sequence, or missing.

    Args:
        component: A section of a tokenizer.json.
        members: The key of a Sequence's parts.

    Returns:
        The parts, objects with a type; a Sequence within a Sequence is left as it is.

    Raises:
        UserError: A part is no object with a type.
    """
    if component is None:
        return []
    is_sequence = isinstance(component, dict) and component.get("type") == "Sequence"
    parts = component.get(members) if is_sequence else [component]
    for part in parts if isinstance(parts, list) else [parts]:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise UserError(f"{str(part)[:60]!r} as {members}; each is an object with a type")
    return parts


def added_tokens(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the section `added_tokens`.

    Raises:
        UserError: One of them has no content.
    """
    found = content.get("added_tokens")
    for token in found if isinstance(found, list) else []:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise UserError(f"an added token without content: {token!r}")
    return found if isinstance(found, list) else []


def tokens_by_id(vocabulary: Iterable[tuple[str, Any]], content: Mapping[str, Any]) -> list[str]:
    """Returns the tokens of a vocabulary and those that were added, by their ids.

    Args:
        vocabulary: Tokens and ids of the section `model`.
        content: The tokenizer.json, for its `added_tokens`.

    Raises:
        UserError: An id is missing, belongs to two tokens or is no id.
    """
    ids: dict[str, Any] = {}
    added = [(token["content"], token.get("id")) for token in added_tokens(content)]
    for token, index in (*vocabulary, *added):
        ids.setdefault(token, index)
    for token, index in ids.items():
        if type(index) is not int or index < 0:
            raise UserError(f"the id {index!r} for {token!r}; ids are integers from 0")
        if token != token.encode(errors="ignore").decode():
            raise UserError(f"the token {token!r}, which is no UTF-8")
    tokens = sorted(ids, key=ids.__getitem__)
    for index, token in enumerate(tokens):
        if ids[token] < index:
            raise UserError(
                f"id {ids[token]} for both {tokens[index - 1]!r} and {token!r}; each token "
                "must have its own. Take the original's file"
            )
        if ids[token] > index:
            raise UserError(
                f"no token of id {index}, but {token!r} of id {ids[token]}; ids must count from 0 "
                "without a hole. Take the original's file"
            )
    return tokens
