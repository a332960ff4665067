"""Paths, globs and lists of them to files that are there."""

import difflib
import glob
import os.path
from pathlib import Path

from tf_finetune.errors import UserError


def find_files(pattern: str) -> list[str]:
    """Returns the files a path, a glob, or a comma-separated list of these stands for.

    Raises:
        UserError: No such file, or no match.
    """
    if os.path.isfile(pattern):
        return [pattern]
    found: list[str] = []
    for part in filter(None, (part.strip() for part in pattern.split(","))):
        if os.path.isfile(part):
            found.append(part)
        elif glob.has_magic(part):
            matches = sorted(
                name for name in glob.glob(part, recursive=True) if os.path.isfile(name)
            )
            if not matches:
                raise UserError(f"{part}: no file matches this pattern.")
            found += matches
        else:
            raise UserError(_missing(Path(part)))
    return list(dict.fromkeys(found))


def _missing(path: Path) -> str:
    if os.path.isdir(path):
        return f"{path}: this is a folder; name a file in it, or use a pattern such as *.tsv."
    if not os.path.isdir(path.parent):
        return f"{path}: no such file; the folder {path.parent} does not exist either."
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()])
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return f"{path}: no such file in this folder.{hint}"
