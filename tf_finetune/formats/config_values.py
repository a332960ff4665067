"""Values of a `config.json`, checked; a missing one, or null, has a default."""

from collections.abc import Mapping
from typing import Any

from tf_finetune.errors import UserError


def check_only(config: Mapping[str, Any], key: str, *allowed: Any) -> None:
    """Refuses a value that cannot be computed.

    Args:
        config: The content of the file.
        key: The key.
        *allowed: The values that can be; the first is the default.
    """
    value = config.get(key)
    if value is not None and value not in allowed:
        choices = " or ".join(repr(value) for value in allowed)
        raise UserError(f"{key}={value!r}; only {choices} can be computed.")


def read_size(
    config: Mapping[str, Any], key: str, default: int | None = None, least: int = 1
) -> int:
    """Returns an integer from `least` up."""
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or value < least:
        raise UserError(f"{key}={value!r}; it must be an integer from {least}.")
    return value


def read_number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """Returns a number above 0."""
    value: Any = config.get(key)
    value = default if value is None else value
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise UserError(f"{key}={value!r}; it must be a number above 0.")
    return float(value)


def read_rate(config: Mapping[str, Any], key: str, default: float) -> float:
    """Returns a share, from 0 to below 1."""
    value: Any = config.get(key)
    value = default if value is None else value
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise UserError(f"{key}={value!r}; it must be a number from 0 to below 1.")
    return float(value)


def read_flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """Returns true or false."""
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not bool:
        raise UserError(f"{key}={value!r}; it must be true or false.")
    return value


def check_heads(hidden: int, heads: int) -> None:
    """Refuses a width that the heads cannot share."""
    if hidden % heads:
        raise UserError(
            f"hidden_size={hidden}, which cannot be split into num_attention_heads={heads} heads. "
            "Compare it with the original's."
        )
