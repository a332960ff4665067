"""The files of weights in a folder: one, or the parts that its index names."""

import json
from pathlib import Path

from tf_finetune.errors import UserError

_LFS_POINTER = b"version https://git-lfs."


def weight_parts(directory: Path, name: str) -> list[Path]:
    """Returns the file of that name, or the parts that its index names.

    Args:
        directory: The folder.
        name: The file's name, `model.safetensors` or `pytorch_model.bin` or `tf_model.h5`.

    Returns:
        The files, all of which are there; empty: there is neither the file nor an index.

    Raises:
        UserError: The index names a file elsewhere, a part is missing, or Git LFS' pointer.
        Exception: The index is damaged.
    """
    index = directory / f"{name}.index.json"
    names = {name} if (directory / name).is_file() else set()
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    if outside := [part for part in names if Path(part).name != part]:
        raise UserError(
            f"{index} names {outside[0]!r}, which is not a file beside it. Its parts must be."
        )
    files = [directory / part for part in sorted(names)]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(
            f"{index} names {missing[0]}, which is missing ({len(missing)} of {len(files)} parts "
            "are). Fetch it from where the model comes from."
        )
    for file in files:
        check_fetched(file)
    return files


def check_fetched(file: Path) -> None:
    """Checks that a file is not the pointer that Git leaves in place of a large one.

    Raises:
        UserError: It is.
    """
    with file.open("rb") as opened:
        if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise UserError(
                f"{file} is a pointer of Git LFS, not the file itself. Fetch it: git lfs pull."
            )
