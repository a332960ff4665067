"""Expands paths, globs and lists of them to the files that exist."""

import difflib
import glob
import os.path
import re

from tf_finetune.errors import UserError
from tf_finetune.files import glob_files, is_dir, is_file, list_dir


def find_files(pattern: str) -> list[str]:
    """Returns the files that match a path, a glob, or a comma-separated list of these.

    Raises:
        UserError: No such file, or no match.
        OSError: A remote file system cannot be reached.
    """
    if is_file(pattern):
        return [pattern]
    found: list[str] = []
    for part in filter(None, (part.strip() for part in pattern.split(","))):
        if is_file(part):
            found.append(part)
        elif glob.has_magic(part):
            matches = glob_files(part)
            if not matches:
                raise UserError(f"{part}: no file matches this pattern.")
            found += matches
        else:
            raise UserError(_missing(part))
    return list(dict.fromkeys(found))


def name_of_set(path: str) -> str:
    """Returns a file's name; for a shard (`data.tfrecord-00000-of-00010`), that of its set."""
    return re.sub(r"-\d+-of-\d+$", "", os.path.basename(path))


def _missing(path: str) -> str:
    if is_dir(path):
        return f"{path}: this is a folder; name a file in it, or use a pattern such as *.tsv."
    folder, name = os.path.split(path)
    if not is_dir(folder or "."):
        return f"{path}: no such file; the folder {folder} does not exist either."
    near = difflib.get_close_matches(name, list_dir(folder or "."))
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return f"{path}: no such file in this folder.{hint}"
