"""Texts in files of their own: one folder a class, as `keras.utils.text_dataset_from_directory`."""

import os
from collections.abc import Iterator
from typing import Any

from tf_finetune.data.lines import decode_line
from tf_finetune.errors import UserError
from tf_finetune.files import is_dir, list_dir, read_bytes


def is_text_folder(path: str) -> bool:
    """Whether a folder holds texts (`.txt`), or folders that do."""
    if not is_dir(path):
        return False
    return any(map(_is_text, _files_below(path)))


def read_folder(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads the texts of a folder: those of `<path>/<class>/`, with the class as their label.

    Where there are no classes, the texts in the folder itself are read; they have no label.

    Yields:
        The file of each text; its `text`, `label` and `file`, a path relative to the folder.

    Raises:
        UserError: A text is not UTF-8.
    """
    for label, files in _files_by_class(path).items():
        for file in filter(_is_text, files):
            for location, row in read_text(file):
                labelled = {"label": label} if label else {}
                yield (
                    location,
                    {"text": row["text"], **labelled, "file": os.path.relpath(file, path)},
                )


def folder_notices(path: str) -> list[str]:
    """Tells which files of a folder of texts are not read."""
    classes = _files_by_class(path)
    others = [file for files in classes.values() for file in files if not _is_text(file)]
    if "" not in classes:
        others += [os.path.join(path, name) for name in list_dir(path) if _is_text(name)]
    if not others:
        return []
    return [
        f"{len(others):,} of its files are not read, such as {others[0]}: texts are .txt files, "
        "in a folder for each class."
    ]


def _files_by_class(path: str) -> dict[str, list[str]]:
    """Returns the files below each folder that holds texts; without one, those in the folder."""
    folders = [name for name in list_dir(path) if not name.startswith(".")]
    found = {name: list(_files_below(os.path.join(path, name))) for name in folders}
    found = {name: files for name, files in found.items() if files}
    if any(map(_is_text, (file for files in found.values() for file in files))):
        return found
    return {"": [os.path.join(path, name) for name in folders if _is_text(name)]}


def read_text(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads a file as one text, whose label is the name of its folder; see `read_folder`."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    folder, name = os.path.split(path)
    label = os.path.basename(os.path.abspath(folder) if "://" not in folder else folder)
    yield path, {"text": decode_line(data, path, 0), "label": label, "file": name}


def _files_below(folder: str) -> Iterator[str]:
    for name in list_dir(folder):
        path = os.path.join(folder, name)
        if name.startswith(".") or (os.path.islink(path) and is_dir(path)):
            continue  # A link may lead back.
        if is_dir(path):
            yield from _files_below(path)
        else:
            yield path


def _is_text(path: str) -> bool:
    name = os.path.basename(path)
    return name.lower().endswith(".txt") and not name.startswith(".")
