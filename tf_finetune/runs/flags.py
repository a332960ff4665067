"""The command line: absl flags made from the settings of a configuration, and flagfiles from it."""

import csv
import difflib
import io
import itertools
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags

from tf_finetune.errors import UserError
from tf_finetune.runs.flagfile import expand_flagfiles
from tf_finetune.runs.other_names import other_name_hint
from tf_finetune.runs.settings import (
    ConfigT,
    Field,
    allowed_range,
    replaced,
    settings,
    value_type,
    values_of,
)

_NUMBERS: dict[type, Any] = {int: flags.IntegerParser, float: flags.FloatParser}
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_flags(
    config_class: type[ConfigT], argv: Sequence[str]
) -> tuple[ConfigT, frozenset[str]] | None:
    """Reads the command line.

    A `--flagfile` is expanded at its place in the command line; the later of two values wins.

    Args:
        config_class: The configuration whose settings are the flags.
        argv: The program's name and its arguments.

    Returns:
        The configuration and the names of the explicit flags, without those that are `auto`; None
        for `--help`.

    Raises:
        UserError: An unknown flag, a value that is not allowed, a stray argument.
    """
    values = _define(config_class)
    arguments = [argv[0], *expand_flagfiles(argv[1:])]
    try:
        rest = values(arguments)[1:]
    except flags.UnrecognizedFlagError as error:
        hint = _unknown_hint(error.flagname, values)
        raise UserError(f"--{error.flagname}: no such flag. {hint}See --help.") from None
    except flags.Error as error:
        raise UserError(str(error).replace("flag --", "--")) from None
    if values["help"].value:
        return None
    if rest:
        before = [a.lstrip("-") for a, b in itertools.pairwise(arguments) if b == rest[0]]
        raise UserError(f"Stray argument {rest[0]!r}: {_stray_hint(rest[0], before, values)}")
    chosen: dict[str, Any] = {}
    given = set()
    for _, section, field in settings(config_class):
        value = values[field.name].value
        if value == "":
            value = None
        if value is not None or value_type(section, field.name)[1]:
            chosen[field.name] = tuple(value) if isinstance(value, list) else value
        is_auto = field.metadata["auto"] and value is None
        if values[field.name].present and not is_auto:
            given.add(field.name)
    return replaced(config_class(), **chosen), frozenset(given)


def help_text(config_class: type, program: str) -> str:
    """Returns the text of `--help`: every flag with its meaning, default and allowed values."""
    lines = [f"Usage: python {program} [--flagfile=FILE] [--FLAG=VALUE ...]"]
    defaults = values_of(config_class())
    before = None
    for name, section, field in settings(config_class):
        if name != before:
            lines += ["", f"{section.title}:"]  # type: ignore[attr-defined]
            before = name
        lines.append(f"  --{field.name}")
        text = _help(section, field, defaults[field.name])
        lines.append(textwrap.indent(textwrap.fill(text, 90), " " * 6))
    lines += ["", "  --flagfile\n      read flags from this file; later flags win"]
    return "\n".join(lines)


def flagfile_text(config: Any, header: str = "") -> str:
    """Returns a flagfile that repeats a run: every flag that differs from its default.

    Args:
        config: The run's configuration. What `auto` became is written too: with other data,
            or another version, it might become something else.
        header: Comment lines for the top, without the leading `#`.
    """
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    defaults = values_of(type(config)())
    for section, _, field in settings(config):
        value = getattr(getattr(config, section), field.name)
        if value != defaults[field.name] or field.metadata["auto"]:
            lines.append(f"--{field.name}={_format(value)}")
    return "\n".join(lines) + "\n"


def _define(config_class: type) -> flags.FlagValues:
    """Defines all flags in a registry of their own: other libraries define flags too."""
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)
    defaults = values_of(config_class())
    for _, section, field in settings(config_class):
        python_type, may_be_none = value_type(section, field.name)
        default = defaults[field.name]
        text = _help(section, field, default)
        if python_type in _NUMBERS and (may_be_none or field.metadata["auto"]):
            word = "auto" if field.metadata["auto"] else ""
            parser = _NumberOrNone(_NUMBERS[python_type](), word)
            flags.DEFINE(parser, field.name, default, text, flag_values=values)
            continue
        define = {
            str: flags.DEFINE_string,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            bool: flags.DEFINE_bool,
            tuple: flags.DEFINE_list,
        }[python_type]
        if python_type is tuple:
            default = list(default)
        define(field.name, default, text, flag_values=values)
    return values


class _NumberOrNone(flags.ArgumentParser):
    """Reads a number; one word, or the empty argument, is None."""

    def __init__(self, parser: Any, word: str) -> None:
        self._parser, self._word = parser, word
        self.syntactic_help = parser.syntactic_help

    def parse(self, argument: Any) -> Any:
        if argument == self._word:
            return None
        try:
            return self._parser.parse(argument)
        except (TypeError, ValueError):
            raise ValueError(f"must be {self.syntactic_help} or {self._word or 'empty'}.") from None

    def flag_type(self) -> str:
        return str(self._parser.flag_type())


def _unknown_hint(name: str, values: flags.FlagValues) -> str:
    """Returns what to type in place of an unknown flag, with a blank at the end."""
    known = {*values, "flagfile"}
    first, blank, rest = name.partition(" ")
    if blank and first in known:  # A line of a flagfile.
        return f"Write --{first}={rest.strip()}. "
    if hint := other_name_hint(name, known):
        return f"{hint} "
    near = difflib.get_close_matches(name, list(values), n=3)
    return f"Did you mean {', '.join('--' + name for name in near)}? " if near else ""


def _stray_hint(argument: str, before: Sequence[str], values: flags.FlagValues) -> str:
    """Returns what is wrong with an argument that belongs to no flag, and what to type.

    Args:
        argument: The argument.
        before: What stands before it, without hyphens; several if it stands there more than once.
        values: The program's flags.
    """
    switch = next((name for name in before if name in values and values[name].boolean), None)
    if switch and argument.lower() in _TRUTHS:
        value = _TRUTHS[argument.lower()]
        return f"write --{switch}={_format(value)}, or --{'' if value else 'no'}{switch}."
    name = re.sub(r"^\W+|\W.*", "", argument)
    if name in values and name != argument:
        return f"a flag begins with two hyphens: --{argument[argument.index(name) :]}."
    return "every value belongs to a flag, as in --train_file=FILE; files are joined by commas."


def _help(section: type, field: Field, default: Any) -> str:
    python_type, _ = value_type(section, field.name)
    allowed = ", ".join(field.metadata["choices"]) or allowed_range(field)
    unit = {int: "an integer", float: "a number", bool: "true or false"}.get(python_type, "")
    unit = " ".join(part for part in (unit, allowed) if part)
    shown = "none" if default in (None, ()) else _format(default)
    shown = "auto" if field.metadata["auto"] else shown
    return f"{field.metadata['help']}. {f'Allowed: {unit}. ' if unit else ''}Default: {shown}."


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        row = io.StringIO()
        csv.writer(row, lineterminator="").writerow(value)
        return row.getvalue()
    return "" if value is None else str(value)
