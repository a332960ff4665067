"""The files and tables of a run's splits: train, validation and test."""

import os.path
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from tf_finetune.data.file_format import FileFormat
from tf_finetune.data.paths import SHARD, find_files, plain_name
from tf_finetune.data.readers import Row, read_file
from tf_finetune.data.text_folders import is_text_folder
from tf_finetune.errors import UserError
from tf_finetune.files import is_dir, is_file, list_dir
from tf_finetune.runs.config import DataConfig

Table = Callable[[], Iterator[Row]]
"""Starts reading a file, or a split of a TensorFlow data set, from its first row."""

SPLITS = ("train", "validation", "test")
# The rows of --unlabelled_file, which are no split: they are only trained on.
UNLABELLED = "unlabelled"
# In this order they are looked for; without one, a folder of texts for each class.
_ENDINGS = (*(".tsv", ".csv", ".jsonl", ".parquet", ".json", ".ndjson"), ".xlsx", ".tfrecord", "")


def file_names(*stems: str) -> tuple[str, ...]:
    """Returns the names of a file in every format, the formats in the order of preference."""
    return tuple(stem + ending for ending in _ENDINGS for stem in stems)


USUAL_FILES = {
    "train": file_names("train"),
    "validation": file_names("validation", "dev", "valid", "val"),
    "test": file_names("test"),
}
"""The names of the files of each split in a data folder."""


def find_split_files(
    config: DataConfig, known: Mapping[str, Sequence[str]], splits: Collection[str] = SPLITS
) -> dict[str, list[str]]:
    """Finds the files of each split: those of its flag, else one in the data folder.

    Args:
        config: Where the data are.
        known: File names to look for in `data_dir`, by split; the first that exists is taken. The
            case of letters, an ending of compression and the numbers of shards do not count.
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
            paths = next(iter(_in_folder(config.data_dir, known[split]).values()), [])
        if paths:
            found[split] = paths
    return found


def passed_over(
    config: DataConfig,
    known: Mapping[str, Sequence[str]],
    found: Mapping[str, Sequence[FileFormat]],
) -> list[str]:
    """Returns a notice for each split of which the data folder holds files of several names.

    Args:
        config: Where the data are.
        known: See `find_split_files`.
        found: The files that are read.
    """
    notices = []
    for split, files in found.items():
        if config.data_dir and split in known and not getattr(config, f"{split}_file"):
            _, *others = _in_folder(config.data_dir, known[split])
            if others:
                notices.append(
                    f"{files[0].path}: taken for {split}, and not {', '.join(others)} beside it "
                    f"(--{split}_file says another)."
                )
    return notices


def file_notices(files: Sequence[FileFormat]) -> list[str]:
    """Returns what was found of the files; of shards once."""
    paths: dict[str, list[str]] = {}
    for file in files:
        for notice in file.notices:
            paths.setdefault(notice, []).append(file.path)
    return [
        f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {notice}"
        for notice, found in paths.items()
    ]


def _in_folder(folder: str, known: Sequence[str]) -> dict[str, list[str]]:
    """Returns the files of each known name that are there, in the order of the names.

    Each is one file, or one whole set of shards.

    Raises:
        UserError: A shard is missing.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name in list_dir(folder):
        path = os.path.join(folder, name)
        plain = plain_name(name)
        if plain in known and (is_file(path) or is_text_folder(path)):
            shown = SHARD.sub(r"-*-of-\2", name)
            found.setdefault(plain, {}).setdefault(shown, []).append(path)
    sets = {shown: paths for name in known for shown, paths in found.get(name, {}).items()}
    for shown, paths in sets.items():
        if (shard := SHARD.search(paths[0])) and len(paths) != int(shard[2]):
            raise UserError(
                f"{os.path.join(folder, shown)}: {len(paths)} of {int(shard[2])} shards are there. "
                "Bring the others, or name the files by flags."
            )
    return sets


def file_tables(files: Sequence[FileFormat | str]) -> list[Table]:
    """Returns the tables of files; see `read_file`."""
    return [partial(read_file, file) for file in files]


def max_samples(config: DataConfig, split: str) -> int | None:
    """Returns the number of rows of a split to use; None: all."""
    return {
        UNLABELLED: None,
        "train": config.max_train_samples,
        "validation": config.max_eval_samples,
        "test": config.max_predict_samples,
    }[split]
