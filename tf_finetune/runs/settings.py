"""Settings: fields of frozen dataclasses that carry their help, bounds and choices.

A *section* is a dataclass of settings; a *configuration* is a dataclass of sections. Flags, checks,
`--help`, the saved configuration and the flagfile are all made from the fields. Names of settings
are unique within a configuration, so a saved one is read by name, however it was grouped. Two
configurations that share a section may have other defaults in it: a configuration's defaults are
the values of the configuration that is made without arguments.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from tf_finetune.errors import UserError
from tf_finetune.runs.paths import check_utf8, expand_path, expand_paths

ConfigT = TypeVar("ConfigT")
Field: typing.TypeAlias = "dataclasses.Field[Any]"

_SIGNS = {"minimum": ">=", "above": ">", "maximum": "<=", "below": "<"}


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    may_change: bool = False,
    names_data: bool = False,
    path: str | None = None,
    before: Any = None,
    **bounds: float,
) -> Any:
    """Declares a setting as a dataclass field.

    Args:
        default: Its default, unless the configuration has another one.
        help: Its meaning, for `--help`.
        choices: The values that are allowed; empty: any.
        may_change: Whether it may differ between two calls of one training.
        names_data: Whether it selects the rows that a call without training reads. If any such flag
            is given, all are taken from the command line, none from the model directory.
        path: `one` if it is a path, `list` if it may be several, joined by commas.
        before: The value that a record of before the setting stands for; None: the default.
        **bounds: `minimum`, `above`, `maximum` and `below`.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "may_change": may_change,
        "names_data": names_data,
        "path": path,
        "before": before,
        "auto": False,
        "bounds": {_SIGNS[name]: bound for name, bound in bounds.items()},
    }
    return dataclasses.field(default=default, metadata=metadata)


def auto_setting(default: float, help: str, **bounds: Any) -> Any:
    """Declares a number that the program chooses where its flag is left out, or is `auto`.

    Args:
        default: That of a configuration made in Python.
        help: Its meaning, for `--help`.
        **bounds: See `setting`.
    """
    field = setting(default, help, **bounds)
    return dataclasses.field(default=default, metadata={**field.metadata, "auto": True})


def sections(config: Any) -> dict[str, type]:
    """Returns the sections of a configuration or its class: name to dataclass, in order."""
    hints = typing.get_type_hints(config if isinstance(config, type) else type(config))
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def settings(config: Any) -> Iterator[tuple[str, type, Field]]:
    """Yields the section's name, the section and the field of each setting."""
    for name, section in sections(config).items():
        for field in dataclasses.fields(section):
            yield name, section, field


def auto_names(config: Any) -> frozenset[str]:
    """Returns the names of the settings that the program chooses where no flag gives them."""
    return frozenset(field.name for _, _, field in settings(config) if field.metadata["auto"])


def value_type(section: type, name: str) -> tuple[type, bool]:
    """Returns a setting's type and whether None is allowed.

    Args:
        section: The dataclass that has the setting.
        name: The setting.

    Returns:
        `str`, `int`, `float`, `bool` or `tuple`, and True where the setting may be None.
    """
    annotation = typing.get_type_hints(section)[name]
    if isinstance(annotation, types.UnionType):
        inner = next(a for a in typing.get_args(annotation) if a is not types.NoneType)
        return inner, True
    return typing.get_origin(annotation) or annotation, False


def allowed_range(field: Field) -> str:
    """Returns a setting's bounds as text such as `>= 0 and < 1`, or an empty string."""
    return " and ".join(f"{sign} {bound:g}" for sign, bound in field.metadata["bounds"].items())


def check_values(section: Any) -> None:
    """Checks every value of a section against its field's choices and bounds; expands its paths.

    Call it in the section's `__post_init__`: then a section holds no `~`, wherever it comes from.

    Raises:
        UserError: A value is not allowed.
    """
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        _check_value(field, value)
        if value is not None and field.metadata["path"]:
            expand = expand_paths if field.metadata["path"] == "list" else expand_path
            object.__setattr__(section, field.name, expand(value, f"--{field.name}"))


def to_record(config: Any) -> dict[str, Any]:
    """Returns a configuration as a JSON object of one object per section."""
    return dataclasses.asdict(config)


def from_record(config_class: type[ConfigT], record: Mapping[str, Any]) -> ConfigT:
    """Returns the configuration that `to_record` wrote, in this version or an earlier one.

    Args:
        config_class: The configuration's class. The record's other settings are left out.
        record: The sections, under whatever names they had.

    Raises:
        TypeError, AttributeError, UserError: The record is damaged.
    """
    saved: dict[str, Any] = {}
    for part in record.values():
        saved |= {k: tuple(v) if isinstance(v, list) else v for k, v in part.items()}
    values = {}
    for _, section, field in settings(config_class):
        if field.name not in saved:
            if field.metadata["before"] is not None:
                values[field.name] = field.metadata["before"]
            continue
        value = saved[field.name]
        python_type, may_be_none = value_type(section, field.name)
        allowed = (int, float) if python_type is float else python_type
        if not (isinstance(value, allowed) or (value is None and may_be_none)):
            raise TypeError(f"{field.name} is {value!r}")
        values[field.name] = value
    return replaced(config_class(), **values)


def differences(earlier: Any, now: Any, names: Collection[str] | None = None) -> list[str]:
    """Lists the settings of one training that may not change between calls but did.

    Args:
        earlier: The configuration of the earlier call.
        now: That of this call.
        names: The settings to compare; None: all.
    """
    lines = []
    for section, _, field in settings(now):
        was, value = (getattr(getattr(c, section), field.name) for c in (earlier, now))
        looked_at = names is None or field.name in names
        if looked_at and was != value and not field.metadata["may_change"]:
            lines.append(f"  --{field.name}: {was!r} there, {value!r} now")
    return lines


def replaced(config: ConfigT, **values: Any) -> ConfigT:
    """Returns a configuration with other values of some settings, given by name."""
    changed: dict[str, dict[str, Any]] = {}
    for section, _, field in settings(config):
        if field.name in values:
            changed.setdefault(section, {})[field.name] = values.pop(field.name)
    if values:
        raise TypeError(f"no such settings: {', '.join(values)}")
    parts = {
        name: dataclasses.replace(getattr(config, name), **new) for name, new in changed.items()
    }
    return dataclasses.replace(config, **parts)  # type: ignore[type-var]


def values_of(config: Any, names: Collection[str] | None = None) -> dict[str, Any]:
    """Returns the values of those of the named settings that the configuration has; None: all."""
    return {
        field.name: getattr(getattr(config, section), field.name)
        for section, _, field in settings(config)
        if names is None or field.name in names
    }


def told_settings(config: Any, usual: Any, always: Collection[str]) -> dict[str, Any]:
    """Returns what made a model and is not as usual, by the settings' names.

    Args:
        config: The run's configuration.
        usual: That of the defaults.
        always: Settings that are told even where they have their defaults.
    """
    found = {}
    for section, _, field in settings(config):
        value = getattr(getattr(config, section), field.name)
        is_usual = value == getattr(getattr(usual, section), field.name)
        if field.name in always or not (is_usual or field.metadata["may_change"]):
            found[field.name] = value
    return found


def _check_value(field: Field, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{field.name}={value}: must be a finite number.")
    for text in value if isinstance(value, tuple) else [value]:
        if not isinstance(text, str):
            continue
        # A flagfile cannot contain such a value.
        if not text or text != text.strip() or set(text) & {*"\r\n\0"}:
            raise UserError(
                f"--{field.name}={value!r}: no part of it may be empty, begin or end with a blank, "
                "or hold a line end or NUL. Write it without."
            )
        check_utf8(text, f"--{field.name}")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise UserError(f"--{field.name}={value}: allowed are {', '.join(choices)}.")
    for sign, bound in field.metadata["bounds"].items():
        good = {
            ">=": value >= bound,
            ">": value > bound,
            "<=": value <= bound,
            "<": value < bound,
        }[sign]
        if not good:
            raise UserError(f"--{field.name}={value}: must be {allowed_range(field)}.")
