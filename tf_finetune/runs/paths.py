"""The paths that a user gives: `~` is expanded, and what cannot be recorded is refused."""

import os
import re

from tf_finetune.errors import UserError


def expand_path(path: str | os.PathLike[str], what: str) -> str:
    """Returns a path with the home folder in place of a leading `~` or `~user`.

    Args:
        path: The path. A file whose name begins with `~` is written `./~name`.
        what: What the path was given as, for error messages: a flag or an argument.

    Raises:
        UserError: There is no such user, or the path is not UTF-8.
    """
    text = os.fspath(path)
    check_utf8(text, what)
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise UserError(
            f"{what}={text}: ~ stands for a home folder, and there is no user "
            f"{text[1:].partition('/')[0]}. A name that begins with ~ is written ./{text}."
        )
    return expanded


def expand_paths(paths: str | os.PathLike[str], what: str) -> str:
    """Expands `~` at the start of each path of a comma-separated list; see `expand_path`."""
    paths = os.fspath(paths)
    check_utf8(paths, what)
    if os.path.isfile(paths) and not paths.startswith("~/"):  # Its name may hold ",~".
        return paths
    parts = re.split(r"(,\s*)", paths)
    return "".join(expand_path(part, what) if part[:1] == "~" else part for part in parts)


def check_utf8(text: str, what: str) -> None:
    """Checks that a text, as Python decoded it from the command line, is UTF-8.

    Raises:
        UserError: It is not; the message shows its bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        # Python keeps the byte 0xe9 that is not UTF-8 as the surrogate U+DCE9 (PEP 383).
        shown = re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)
        shown = shown.encode(errors="backslashreplace").decode()
        raise UserError(
            f"{what}={shown}: bytes that are not UTF-8, in which a run's settings are recorded. "
            "Rename the file or folder, or make a link to it."
        ) from None
