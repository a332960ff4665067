"""What the README.md of every exported model is made of."""

import os.path
import re
from collections.abc import Mapping
from typing import Any

import yaml

HUB = "hf://"
_HEADER = re.compile(r"\s*---[ \t]*\n(.*?)\n---", re.DOTALL)
# Keys of a model card that say what may be done with the model.
_LICENSE = ("license", "license_name", "license_link")


def hub_name(handle: str) -> str | None:
    """Returns `org/name` of a handle of the Hugging Face Hub, without a revision; None: of none."""
    name = handle.removeprefix(HUB)
    return None if name == handle else name.partition("@")[0]


def read_license(card: str) -> dict[str, Any]:
    """Reads what a model card says of its licence; nothing if it has no readable header."""
    match = _HEADER.match(card.replace("\r\n", "\n"))
    try:
        header = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return {key: header[key] for key in _LICENSE if key in header} if type(header) is dict else {}


def table(names: tuple[str, str], rows: Mapping[str, Any]) -> str:
    """Writes a table of two columns, with their names."""
    lines = [f"| {names[0]} | {names[1]} |", "| --- | --- |"]
    lines += [f"| {_field(name)} | {_field(value)} |" for name, value in rows.items()]
    return "\n".join(lines)


def _field(value: Any) -> str:
    """Writes a value into one field of a table; a path without its folders, which are private."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_field, value))
    text = str(value)
    if os.path.isabs(text) or ("://" in text and not text.startswith(HUB)):
        text = last_part(text)
    return text.replace("|", "\\|").replace("\n", "<br>")


def last_part(path: str) -> str:
    """Returns the last part of a path."""
    return os.path.basename(path.rstrip("/"))
