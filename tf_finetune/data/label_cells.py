"""The value of one label cell: as a name, as a list, as a number, or as nothing."""

import ast
import json
import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

# What people write where there is no label; some of it may be a label nevertheless.
PLACEHOLDERS = frozenset(
    [
        *("-", "--", ".", "?", "??", "-1", "n/a", "#n/a", "na", "<na>", "nan", "nil", "none"),
        *("null", "undefined", "missing", "unlabeled", "unlabelled", "tbd", "todo", "unsup"),
    ]
)
_WHOLE = re.compile(r"([+-]?)(0|[1-9]\d*)(?:\.0*)?")
_BOOLEANS = {"true": "1", "false": "0"}
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


def clean(value: Any) -> str:
    """Returns a label as text: the float 1.0 is the class 1, and blanks around do not count.

    Unicode is composed (NFC), so that one word is one label however its accents are written.
    """
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if isinstance(value, str):
        text = value.strip()
        return text if text.isascii() else unicodedata.normalize("NFC", text)
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def distinct(values: Iterable[Any]) -> set[Any]:
    """Returns the different values; lists, which are no single labels, are left out."""
    try:
        return set(values)
    except TypeError:
        return {value for value in values if isinstance(value, Hashable)}


def is_list(value: Any) -> bool:
    """Whether a value is a list of labels."""
    return isinstance(value, list | tuple)


def parse_list(text: str) -> list[Any] | None:
    """Reads a list that was written as text: Python's, JSON's, NumPy's, or names in brackets.

    Returns:
        The list; None if the text is not in brackets.
    """
    text = text.strip()
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        # literal_eval's errors of hostile text have no common class.
        except Exception:
            continue
        if isinstance(found, list | tuple | set):
            return sorted(found, key=str) if isinstance(found, set) else list(found)
        return None if isinstance(found, dict) and found else [found] if found else []
    inner = text[1:-1].strip()
    if not inner:
        return []
    parts = inner.split(",") if "," in inner else inner.split()
    numbers = [number(part) for part in parts]
    if None not in numbers:
        return numbers
    return [part.strip().strip("'\"") for part in inner.split(",")]


def number(value: Any) -> float | None:
    """Returns a value as a number; None if it is none. NaN and infinity are numbers."""
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def has_names_of_digits(names: Iterable[str]) -> bool:
    """Whether labels look like numbers but are written as codes or versions are.

    That is with leading zeros (007), or with zeros at the end and another number of decimals than
    others (3.9, 3.10).
    """
    decimals = set()
    trailing = False
    for name in names:
        if re.fullmatch(r"[+-]?0\d+(\.\d*)?", name):
            return True
        if found := re.fullmatch(r"[+-]?\d+\.(\d+)", name):
            decimals.add(len(found[1]))
            trailing |= found[1].endswith("0") and found[1].strip("0") != ""
    return trailing and len(decimals) > 1


def spelling_key(names: Iterable[str]) -> dict[str, str]:
    """Finds the names that spell one label: 1 and 1.0; True and true; 1 and True, 0 and false.

    Args:
        names: Labels as `clean` returns them.

    Returns:
        For each name what it has in common with the others of its label. Names are themselves
        unless all of them are whole numbers or truth values, placeholders left out.
    """
    names = list(names)
    real = {name for name in names if name and name.lower() not in PLACEHOLDERS - {"-1"}}
    whole = {name: found for name in real if (found := _WHOLE.fullmatch(name))}
    keys = {
        name: found[2] if found[2] == "0" or found[1] != "-" else f"-{found[2]}"
        for name, found in whole.items()
    }
    keys |= {name: _BOOLEANS[name.lower()] for name in real if name.lower() in _BOOLEANS}
    has_booleans = len(keys) > len(whole)
    if len(keys) < len(real) or (has_booleans and set(keys.values()) - {"0", "1"}):
        keys = {}
    return {name: keys.get(name, name) for name in names}


def rows_text(count: int) -> str:
    """Returns a number of rows in words, such as `1 row` or `1,200 rows`."""
    return f"{count:,} row{'s' * (count != 1)}"


def shown_values(values: Sequence[Any], most: int = 3) -> str:
    """Returns the first values for a message, such as `'a', 'b', ...`."""
    return ", ".join(f"{value!r:.40}" for value in values[:most]) + (
        ", ..." if len(values) > most else ""
    )
