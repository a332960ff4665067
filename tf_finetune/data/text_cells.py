"""The texts of prompts and answers in the cells of rows."""

import json
from collections.abc import Mapping
from typing import Any

from tf_finetune.data.keys import column_names, listed
from tf_finetune.errors import UserError


def text_cell(value: Any, key: str, location: str) -> str:
    """Returns a cell as text; a number as it is written.

    Args:
        value: The cell.
        key: Its key or column, for messages.
        location: The place of its row.

    Raises:
        UserError: It is nothing, no text, not UTF-8, or holds a NUL character.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{location}: {key!r} is not UTF-8 at byte {error.start} of the text."
            ) from None
    if value is None or value != value:
        raise UserError(
            f"{location}: {key!r} is {'null' if value is None else 'NaN'}, which is not a text. "
            "Give the text, or remove the row."
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{location}: {key!r} holds {value!r:.80}, which is not a text.")
    if "\0" in value:
        raise UserError(f"{location}: a NUL character in {key!r}. Remove it.")
    return value


def filled_cell(value: Any, key: str, location: str) -> str:
    """Returns a cell as text; see `text_cell`.

    Raises:
        UserError: It has nothing but blanks, too.
    """
    text = text_cell(value, key, location)
    if not text.strip():
        raise UserError(f"{location}: {key!r} is empty. Give the text, or remove the row.")
    return text


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, or blanks."""
    if isinstance(value, str | bytes):
        return not value.strip()
    return value is None or value != value or value == []


def value_of(row: Mapping[str, Any], key: str, location: str) -> Any:
    """Returns the value of a key.

    Raises:
        UserError: There is none.
    """
    if key not in row:
        raise missing_key(row, key, location)
    return row[key]


def missing_key(row: Mapping[str, Any], key: str, location: str) -> UserError:
    """Returns the error of a key that a row lacks."""
    return UserError(
        f"{location}: there is no {key!r}; the keys are {listed(column_names(row))}. Correct the "
        "row, or remove it."
    )


def json_list(value: Any, key: str, location: str) -> list[Any]:
    """Returns a list, which may be written as a JSON text; nothing is an empty one.

    Raises:
        UserError: It is none.
    """
    if is_empty(value):
        return []
    found = value
    if isinstance(value, str | bytes):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{location}: {key!r} is not valid JSON ({error}).") from None
    if not isinstance(found, list):
        raise UserError(f"{location}: {key!r} is {value!r:.80}, not a list.")
    return found
