"""The value of one label cell: as a name, as a list, as a number, or as nothing."""

import ast
import json
import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

# The characters that some reader takes for the end of a line or a file, the control characters of
# terminals, and surrogates, which UTF-8 cannot encode.
CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
# What people write where there is no label; some of it may be a label nevertheless.
PLACEHOLDERS = frozenset(
    [
        *("-", "--", ".", "?", "??", "-1", "n/a", "#n/a", "na", "<na>", "nan", "nil", "none"),
        *(
            "null",
            "(null)",
            "\\n",
            "undefined",
            "missing",
            "unlabeled",
            "unlabelled",
            "tbd",
            "todo",
        ),
        *("unsup", "#value!", "#ref!", "#name?", "#div/0!", "#num!", "#null!"),
    ]
)
_WHOLE = re.compile(r"([+-]?)(0|[1-9]\d*)(?:\.0*)?")
_BOOLEANS = {"true": "1", "false": "0"}
_LEADING_ZERO = re.compile(r"\s*[+-]?0\d")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_NUMPY_TEXTS = re.compile(rf"(?:{_QUOTED.pattern})(?:\s+(?:{_QUOTED.pattern}))+")
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


def has_lists(values: Iterable[Any]) -> bool:
    """Whether one of the values is a list of labels."""
    return not {list, tuple}.isdisjoint(map(type, values))


def is_nested(value: Any) -> bool:
    """Whether a value is an object, or a list of objects or lists, and so no label."""
    parts = value if is_list(value) else [value]
    return any(isinstance(part, dict | list | tuple | set) for part in parts)


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
    inner = text[1:-1].strip()
    if _NUMPY_TEXTS.fullmatch(inner):  # Python would join them.
        return [ast.literal_eval(part[0]) for part in _QUOTED.finditer(inner)]
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        # literal_eval's errors of hostile text have no common class.
        except Exception:
            continue
        if isinstance(found, set):
            return sorted(found, key=str)
        if isinstance(found, list | tuple):
            return list(found)
        return [found] if found or not isinstance(found, dict) else []
    if not {*"[](){}"}.isdisjoint(inner):
        return None  # Several names in brackets, such as (a),(b).
    parts = inner.split(",") if "," in inner else inner.split()
    numbers = [number(part) for part in parts]
    if parts and None not in numbers and not any(_LEADING_ZERO.match(part) for part in parts):
        return numbers
    return [part.strip().strip("'\"") for part in inner.split(",")] if inner else []


def number(value: Any) -> float | None:
    """Returns a value as a number; None if it is none. NaN and infinity are numbers."""
    try:
        # Python's underscores between digits are no number to anyone else.
        is_number = not (isinstance(value, bool) or (isinstance(value, str) and "_" in value))
        return float(value) if is_number else None
    except (TypeError, ValueError, OverflowError):
        return None


def has_names_of_digits(counts: Mapping[str, int]) -> bool:
    """Whether labels look like numbers but are written as codes or versions are.

    That is with leading zeros (007), or with zeros at the end and another number of decimals than
    others (3.9, 3.10), unless most are on one row only, as amounts are.

    Args:
        counts: The labels with their rows.
    """
    decimals = set()
    trailing = False
    for name in counts:
        if re.fullmatch(r"[+-]?0\d+(\.\d*)?", name):
            return True
        if found := re.fullmatch(r"[+-]?\d+\.(\d+)", name):
            decimals.add(len(found[1]))
            trailing |= found[1].endswith("0") and found[1].strip("0") != ""
    return trailing and len(decimals) > 1 and sum(counts.values()) >= 2 * len(counts)


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


def shown_values(values: Sequence[Any], most: int = 3) -> str:
    """Returns the first values for a message, such as `'a', 'b', ...`."""
    return ", ".join(f"{value!r:.40}" for value in values[:most]) + (
        ", ..." if len(values) > most else ""
    )
