"""Expands paths, globs and lists of them to the files that exist."""

import difflib
import glob
import os
import re

from tf_finetune.data.lines import COMPRESSED
from tf_finetune.data.text_folders import is_text_folder
from tf_finetune.errors import UserError
from tf_finetune.files import glob_files, is_dir, is_file, list_dir
from tf_finetune.runs.paths import check_utf8

# The number of a shard and how many there are, at the end of a name or before its extension.
SHARD = re.compile(r"-(\d+)-of-(\d+)(?=\.|$)")
# What is not read over the network, and the command that brings it here.
_DOWNLOADS = {
    "http": "curl -L -O {path}",
    "https": "curl -L -O {path}",
    "s3": "aws s3 cp {path} .",
    "hf": "hf download --repo-type=dataset <name> --local-dir=.",
    "az": "azcopy copy {path} .",
    "abfs": "azcopy copy {path} .",
}


def find_files(pattern: str) -> list[str]:
    """Returns the files that match a path, a glob, or a comma-separated list of these.

    A folder of texts counts as a file; see `read_folder`.

    Raises:
        UserError: No such file, no match, or something that is not read as a file.
        OSError: A remote file system cannot be reached.
    """
    found: list[str] = []
    for part in [pattern] if _exists(pattern) else filter(None, map(str.strip, pattern.split(","))):
        if _exists(part):
            _check_single_text(part)
            found.append(part)
        elif glob.has_magic(part) and not _scheme(part):
            matches = glob_files(part)
            if not matches:
                raise UserError(f"{part}: no file matches this pattern.")
            found += matches
        else:
            raise UserError(_missing(part))
    for path in found:
        check_utf8(path, pattern)
    return list(dict.fromkeys(found))


def plain_name(path: str) -> str:
    """Returns a file's name in small letters, without the ending of a compression.

    For a shard (`data.tfrecord-00000-of-00010`, `data-00000-of-00010.csv`) it is that of its set.
    """
    name = SHARD.sub("", os.path.basename(path)).lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name


def extension(path: str) -> str:
    """Returns the extension of a file's `plain_name`."""
    return os.path.splitext(plain_name(path))[1]


def _exists(path: str) -> bool:
    return not _scheme(path) and (is_file(path) or is_text_folder(path))


def _scheme(path: str) -> str:
    """Returns the scheme of an address that is not read over the network; else an empty text."""
    scheme = path.partition("://")[0].lower()
    return scheme if "://" in path and scheme in _DOWNLOADS else ""


def _check_single_text(path: str) -> None:
    if path.lower().endswith(".txt") and is_file(path):
        raise UserError(
            f"{path}: is this one text, or one a line? For one text a file name the folder, or a "
            "pattern such as folder/*.txt. For one a line write the column's name, text, into a "
            "line above and name the file .tsv."
        )


def _missing(path: str) -> str:
    if scheme := _scheme(path):
        command = _DOWNLOADS[scheme].format(path=path)
        return f"{path}: not read over the network. Get it first, for example: {command}"
    if path == "-" or (os.path.exists(path) and not is_dir(path)):
        return (
            f"{path}: rows are read several times, and a pipe only once. Write them into a file "
            "first, whose extension says its format: cat > rows.csv"
        )
    if is_dir(path):
        return (
            f"{path}: this is a folder; name a file in it, or use a pattern such as *.tsv. (A "
            "folder that holds a folder of .txt files for each class can be named itself.)"
        )
    folder, name = os.path.split(path)
    if not is_dir(folder or "."):
        return f"{path}: no such file; the folder {folder} does not exist either."
    near = difflib.get_close_matches(name, list_dir(folder or "."))
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return f"{path}: no such file in this folder.{hint}"
