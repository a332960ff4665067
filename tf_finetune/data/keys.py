"""The names of the columns that rows have, those within JSON objects too."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# A key that is in none of so many rows is not looked for further.
FIRST_ROWS = 1000


def first_keys(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the columns of rows with a value of each, in the order of their appearance."""
    keys: dict[str, Any] = {}
    for row in rows:
        if row.keys() != keys.keys() or None in keys.values():
            keys |= {name: value for name, value in row.items() if keys.get(name) is None}
    return keys


def column_names(row: Mapping[str, Any]) -> list[str]:
    """Returns the names of a row's columns; those of an object in it as `column.key`."""
    names = []
    for name, value in row.items():
        inner = column_names(value) if isinstance(value, dict) else []
        names += [f"{name}.{key}" for key in inner] or [name]
    return names


def find_column(
    name: str, row: Mapping[str, Any], aliases: Mapping[str, Sequence[str]]
) -> list[str] | None:
    """Finds a column: by its name, an alias, without blanks around, or within objects.

    Returns:
        The keys that lead to its value; None: there is no such column.
    """
    for known in (name, *aliases.get(name, ())):
        if known in row:
            return [known]
    for key in row:
        if key.strip() == name:
            return [key]
    path = name.split(".")
    for length in range(len(path) - 1, 0, -1):
        key = ".".join(path[:length])
        if isinstance(row.get(key), dict):
            inner = find_column(".".join(path[length:]), row[key], {})
            return [key, *inner] if inner else None
    return None


def listed(names: Sequence[str], most: int = 20) -> str:
    """Returns names for a message, the first of many."""
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")
