"""What a sweep searches: `learning_rate=1e-5..5e-4:log,pooling=mean,pooled,seed=1,2,3`."""

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tf_finetune.errors import UserError
from tf_finetune.runs.settings import settings, value_type

_FORM = "--search=learning_rate=1e-5..5e-4:log,pooling=mean,pooled"
_RANGE = re.compile(r"(?P<low>[^:]+?)\.\.(?P<high>[^:]+?)(:(?P<kind>log|[0-9.e+-]+))?")


@dataclass(frozen=True)
class Range:
    """All numbers between two, both included.

    Attributes:
        low: The least.
        high: The greatest.
        log: Whether as many are tried between 1 and 10 as between 10 and 100.
        step: The distance of two; None: any number (of whole ones, each).
        whole: Whether they are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


Space = Mapping[str, Range | tuple[str, ...]]


def parse_space(texts: Sequence[str], config_class: type) -> Space:
    """Reads what is searched.

    Args:
        texts: The values of `--search`. Parts are joined by commas; a part without `=` is one more
            value of the flag before it. `low..high` is a range, `:log` one of logarithms and
            `:0.1` one of steps.
        config_class: The configuration whose settings are the flags.

    Returns:
        By flag its range, or its values as they are written on a command line.

    Raises:
        UserError: There is no such flag, or a range cannot be read.
    """
    found: dict[str, list[str]] = {}
    name = ""
    for part in (part.strip() for text in texts for part in text.split(",")):
        before, equals, value = part.partition("=")
        if equals:
            name = before.lstrip("-")
            if name in found:
                raise UserError(f"--search={name}: stands there twice. Write its values together.")
            found[name] = [value]
        elif not name:
            raise UserError(f"--search={part}: no flag is named. Write {_FORM}.")
        else:
            found[name].append(part)
    if not found:
        raise UserError(f"--search: nothing to search. Write {_FORM}.")
    return {name: _values(name, values, config_class) for name, values in found.items()}


def points(space: Space) -> list[dict[str, str]]:
    """Returns every combination of a space of values alone.

    Raises:
        UserError: It has a range.
    """
    lists: list[tuple[str, ...]] = []
    for name, values in space.items():
        if isinstance(values, Range):
            raise UserError(
                f"--search={name}: a grid needs values, such as {name}={values.low:g},"
                f"{values.high:g}, not a range; --sampler=tpe and random take ranges."
            )
        lists.append(values)
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*lists)]


def _values(name: str, values: Sequence[str], config_class: type) -> Range | tuple[str, ...]:
    known = {
        field.name: value_type(part, field.name)[0] for _, part, field in settings(config_class)
    }
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"--search={name}: no such flag.{hint}")
    if name in ("model_dir", "do_train", "do_eval", "overwrite"):
        raise UserError(f"--search={name}: the sweep itself sets this flag.")
    match = _RANGE.fullmatch(values[0]) if len(values) == 1 else None
    if match:
        return _range(name, match, known[name])
    if "" in values or len({*values}) < len(values):
        raise UserError(f"--search={name}={','.join(values)}: a value is empty or stands twice.")
    return tuple(values)


def _range(name: str, match: re.Match[str], kind: type) -> Range:
    text = f"--search={name}={match[0]}"
    if kind not in (int, float):
        raise UserError(f"{text}: not a number's flag. Write its values: {name}=one,other.")
    try:
        low, high = kind(match["low"]), kind(match["high"])
        step = float(match["kind"]) if match["kind"] not in (None, "log") else None
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{text}: a range is of {what}, as in {_FORM}.") from None
    log = match["kind"] == "log"
    if not low < high or (log and low <= 0) or (step is not None and step <= 0):
        raise UserError(
            f"{text}: the first number must be less than the second, and above 0 for :log; a step "
            "is above 0."
        )
    if kind is int and step is not None and step != int(step):
        raise UserError(f"{text}: the steps of whole numbers are whole.")
    return Range(low, high, log, step, kind is int)
