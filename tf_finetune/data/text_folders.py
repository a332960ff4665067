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
    names = list_dir(path)
    if any(map(_is_text, names)):
        return True
    folders = (os.path.join(path, name) for name in names if not name.startswith("."))
    return any(_is_text(name) for folder in folders for name in list_dir(folder))


def read_folder(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads the texts of a folder: those of `<path>/<class>/`, with the class as their label.

    Texts in the folder itself, where there are no classes, have no label. Other files and hidden
    ones are left out.

    Yields:
        The file of each text; its `text`, `label` and `file`, a path relative to the folder.

    Raises:
        UserError: A text is not UTF-8, or texts stand both in the folder and in classes.
    """
    names = [name for name in list_dir(path) if not name.startswith(".")]
    classes = [name for name in names if is_dir(os.path.join(path, name))]
    texts = [name for name in names if _is_text(name)]
    with_texts = {name: list(_texts_below(os.path.join(path, name))) for name in classes}
    if texts and any(with_texts.values()):
        raise UserError(
            f"{path}: texts stand both in the folder ({texts[0]}) and in folders of classes "
            f"({', '.join(classes[:5])}). Move those without a class away."
        )
    for name in texts:
        for location, row in read_text(os.path.join(path, name)):
            yield location, {"text": row["text"], "file": name}
    for label, files in with_texts.items():
        for file in files:
            for location, row in read_text(file):
                yield location, {**row, "label": label, "file": os.path.relpath(file, path)}


def read_text(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads a file as one text, whose label is the name of its folder; see `read_folder`."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    folder, name = os.path.split(path)
    label = os.path.basename(os.path.abspath(folder) if "://" not in folder else folder)
    yield path, {"text": decode_line(data, path, 0), "label": label, "file": name}


def _texts_below(folder: str) -> Iterator[str]:
    for name in list_dir(folder):
        path = os.path.join(folder, name)
        if _is_text(name):
            yield path
        elif not name.startswith(".") and is_dir(path):
            yield from _texts_below(path)


def _is_text(name: str) -> bool:
    return name.lower().endswith(".txt") and not name.startswith(".")
