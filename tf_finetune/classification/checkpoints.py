"""Classification checkpoints of transformers: where they are, and what their labels are."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.layout import infer_columns, open_splits
from tf_finetune.data.problem import Problem, ProblemType
from tf_finetune.errors import UserError
from tf_finetune.files import is_remote
from tf_finetune.formats.handles import find_kind, local_path, read_object
from tf_finetune.formats.hf_hub import download_config
from tf_finetune.runs.config import DataConfig
from tf_finetune.runs.paths import expand_path

_TYPES: dict[str, ProblemType] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


def is_checkpoint(handle: str) -> bool:
    """Whether a value of `--init_from` is a checkpoint in Hugging Face's format.

    Args:
        handle: A handle of an encoder, or the folder of an earlier run.
    """
    if handle.startswith(("hf://", "package:")):
        return True
    if is_remote(handle):
        return False
    return find_kind(Path(expand_path(handle, "--init_from"))) == "hugging_face"


def checkpoint_problem(source: dict[str, Any], columns: tuple[str, ...], where: str) -> Problem:
    """Returns what a classification checkpoint has learnt.

    Args:
        source: The content of its config.json.
        columns: The names of the texts that it reads.
        where: The checkpoint, for error messages.

    Raises:
        UserError: Its labels are damaged.
    """
    names = source.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    try:
        labels = tuple(str(names[key]) for key in sorted(names, key=int))
        if [int(key) for key in sorted(names, key=int)] != list(range(len(names))):
            raise ValueError(f"the ids {', '.join(map(str, names))}")
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"--init_from={where}: config.json has id2label={str(names)[:80]}; it must give a name "
            "for each number from 0. Compare it with the original's."
        ) from error
    kind = _TYPES.get(str(source.get("problem_type")))
    kind = kind or ("regression" if len(labels) == 1 else "single_label")
    if kind == "regression":
        return Problem(kind, columns)
    # Names that transformers made up: the data have the numbers.
    if all(re.fullmatch(r"LABEL_\d+", name) for name in labels):
        labels = tuple(name.removeprefix("LABEL_") for name in labels)
    return Problem(kind, columns, labels)


def read_problem(handle: str, data: DataConfig, labels: LabelConfig) -> Problem:
    """Returns the problem of a checkpoint that is to evaluate or predict a run's data.

    Args:
        handle: See `is_checkpoint`.
        data: Where the data are: the names of their text columns are taken.
        labels: The user's settings of columns.

    Raises:
        UserError: The checkpoint or the data cannot be used.
    """
    layout, tables, _ = open_splits(data, labels)
    if not tables:
        raise UserError("No data: give --test_file, --validation_file or --data_dir.")
    first = next(iter(tables.values()))[0]
    columns = infer_columns(layout, first, may_lack_label=True).text_columns
    source = read_object(find_checkpoint(handle) / "config.json")
    problem = checkpoint_problem(source, columns, handle)
    for name in ("label_names", "problem_type"):
        given, theirs = getattr(labels, name), getattr(problem, name)
        if given not in ((), "auto", theirs):
            raise UserError(
                f"--{name}={given}: --init_from={handle} has learnt {theirs}. Leave the flag out, "
                "or train with --do_train."
            )
    return dataclasses.replace(
        problem, threshold=labels.threshold, reject_below=labels.reject_below
    )


def find_checkpoint(handle: str) -> Path:
    """Returns the folder of a checkpoint; of one of the Hub its small files are fetched.

    Raises:
        UserError: There is none.
    """
    if handle.startswith("hf://"):
        return download_config(handle.removeprefix("hf://"), "init_from")
    path = local_path(handle, "init_from")
    assert path is not None
    return path
