"""Reads flagfiles, which absl would read in the locale's encoding and with a byte-order mark."""

import os
from collections.abc import Iterator, Sequence

from tf_finetune.errors import UserError


def expand_flagfiles(arguments: Sequence[str], opened: Sequence[str] = ()) -> Iterator[str]:
    """Yields arguments with the lines of each `--flagfile` in its place, as absl does.

    A line is one argument, or a comment if it begins with `#` or `//`. Flagfiles may name others.

    Args:
        arguments: The arguments after the program's name; from `--` on they are left as they are.
        opened: The flagfiles that these arguments stand in.

    Raises:
        UserError: A flagfile cannot be read, is not UTF-8, or stands in itself.
    """
    rest = iter(arguments)
    for argument in rest:
        name, equals, path = argument.partition("=")
        if name in ("--flagfile", "-flagfile"):
            path = path if equals else next(rest, "")
            yield from expand_flagfiles(_read(path.strip(), opened), [*opened, path.strip()])
        else:
            yield argument
            if argument == "--":
                yield from rest


def _read(path: str, opened: Sequence[str]) -> list[str]:
    if not path:
        raise UserError("--flagfile: no file is named. Write --flagfile=FILE.")
    if path in opened:
        raise UserError(f"--flagfile={path}: this file reads itself, by {' and '.join(opened)}.")
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            # Joined files have a byte-order mark (U+FEFF) in the middle.
            lines = [line.lstrip("\ufeff").strip() for line in file]
    except OSError as error:
        raise UserError(f"--flagfile={path}: cannot be read: {error.strerror}.") from None
    except ValueError as error:  # Not UTF-8, or a NUL in the name.
        raise UserError(f"--flagfile={path}: not UTF-8 text: {error}. Save it as UTF-8.") from None
    return [line for line in lines if line and not line.startswith(("#", "//"))]
