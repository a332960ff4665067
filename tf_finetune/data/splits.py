"""The files and tables of a run's splits: train, validation and test."""

import os.path
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from tf_finetune.data.file_format import FileFormat
from tf_finetune.data.paths import find_files
from tf_finetune.data.readers import Row, read_file
from tf_finetune.data.text_folders import is_text_folder
from tf_finetune.errors import UserError
from tf_finetune.files import is_dir, is_file
from tf_finetune.runs.config import DataConfig

Table = Callable[[], Iterator[Row]]
"""Starts reading a file, or a split of a TensorFlow data set, from its first row."""

SPLITS = ("train", "validation", "test")


def find_split_files(
    config: DataConfig, known: Mapping[str, Sequence[str]], splits: Collection[str] = SPLITS
) -> dict[str, list[str]]:
    """Finds the files of each split: those of its flag, else one in the data folder.

    Args:
        config: Where the data are.
        known: File names to look for in `data_dir`, by split; the first that exists is taken.
        splits: The splits to look for.

    Returns:
        The paths of the splits that exist.

    Raises:
        UserError: No such file or folder.
    """
    if config.data_dir and not is_dir(config.data_dir):
        raise UserError(f"--data_dir={config.data_dir}: no such folder.")
    found = {}
    for split in splits:
        paths = find_files(getattr(config, f"{split}_file") or "")
        if config.data_dir and not paths:
            candidates = (os.path.join(config.data_dir, name) for name in known[split])
            paths = [path for path in candidates if is_file(path) or is_text_folder(path)][:1]
        if paths:
            found[split] = paths
    return found


def file_tables(files: Sequence[FileFormat | str]) -> list[Table]:
    """Returns the tables of files; see `read_file`."""
    return [partial(read_file, file) for file in files]


def max_samples(config: DataConfig, split: str) -> int | None:
    """Returns the number of rows of a split to use; None: all."""
    return {
        "train": config.max_train_samples,
        "validation": config.max_eval_samples,
        "test": config.max_predict_samples,
    }[split]
