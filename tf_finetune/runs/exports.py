"""The folders of exports: what may be replaced, and versions as TensorFlow Serving reads them."""

import os
import re

from tf_finetune.errors import UserError
from tf_finetune.files import exists, is_dir, is_remote, list_dir

# The file by which a folder is known to be an export of its kind.
SAVED_MODEL, HUGGING_FACE, PEFT = "saved_model.pb", "generation_config.json", "adapter_config.json"
# Those of a classifier for other programs than TensorFlow, by the names of their folders.
RUNTIMES = {"openvino": "model.xml", "onnx": "model.onnx", "litert": "model.tflite"}
# The temperature of a classifier, and the teacher that it learnt from.
RECORDS = CALIBRATION, TEACHER_RECORD = "calibration.json", "teacher.json"
CONFIG = "config.json"  # A classifier in Hugging Face's format has no other file of its own.


def versions(base: str) -> list[int]:
    """Returns the versions in a folder, in ascending order: its folders with a number as name."""
    numbers = [name for name in list_dir(base) if re.fullmatch("[0-9]+", name)]
    return sorted(int(name) for name in numbers if is_dir(os.path.join(base, name)))


def check_replaced(directory: str, mark: str) -> None:
    """Checks that an export may be written to a folder: it replaces an earlier export, no more.

    Args:
        directory: The folder.
        mark: The file that an export of this kind has.

    Raises:
        UserError: The folder holds other files, which would be lost.
    """
    names = [name for name in list_dir(directory) if not name.startswith(".")]
    # The upload of a remote one may have ended before this file.
    if names and mark not in names and not is_remote(directory):
        raise UserError(
            f"{directory} holds {names[0]} and no {mark}: it is not of an export, and is not "
            "replaced. Choose another folder, or move its files away."
        )


def check_export(directory: str) -> None:
    """Checks that a SavedModel may be written to a folder, beside its other versions.

    Args:
        directory: `<folder>`, or `<folder>/<version>`.

    Raises:
        UserError: The folder holds versions or other files, which would be lost; or a version
            would stand beside a SavedModel without one.
    """
    if found := versions(directory):
        raise UserError(
            f"{directory} holds the versions {', '.join(map(str, found))}, which an export without "
            f"a version would replace. Give it one (--export_version={found[-1] + 1}), or move "
            "these away."
        )
    check_replaced(directory, SAVED_MODEL)
    base, name = os.path.split(directory.rstrip("/"))
    if re.fullmatch("[0-9]+", name) and exists(os.path.join(base, SAVED_MODEL)):
        raise UserError(
            f"{base} holds a SavedModel without a version, and versions cannot stand beside it. "
            "Move it away, or export without a version (no --export_version) to replace it."
        )
