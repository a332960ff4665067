"""Checks the files of a job, row by row, before its training is started."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tf_finetune.data.chat_config import ChatDataConfig
from tf_finetune.data.dialogue_forms import complete_form
from tf_finetune.data.dialogue_reader import find_reader
from tf_finetune.data.file_format import find_format
from tf_finetune.data.keys import FIRST_ROWS
from tf_finetune.data.readers import Row, read_file
from tf_finetune.data.text_cells import filled_cell, value_of
from tf_finetune.errors import UserError

MIN_EXAMPLES = 10
# After so many wrong rows no further ones are looked for.
_SHOWN_ERRORS = 5
_FORMS = {
    "supervised": '{"messages": [...]} or {"prompt": "...", "completion": "..."}',
    "dpo": '{"input": {"messages": [...]}, "preferred_output": [...], '
    '"non_preferred_output": [...]}',
}
_METHODS = {"supervised": "sft", "dpo": "dpo"}


class InvalidFile(Exception):
    """A file from which nothing can be learnt.

    Args:
        param: The job's field that names it.
        message: What is wrong, with line numbers.
        code: OpenAI's name of the mistake.
    """

    def __init__(self, param: str, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code or f"invalid_{param}", "message": message, "param": param}


def check_dialogues(paths: Mapping[str, Path], method: str) -> int:
    """Checks prompts with answers, as a language model learns them.

    Args:
        paths: The files by the job's fields, `training_file` and perhaps `validation_file`.
        method: The job's, `supervised` or `dpo`.

    Returns:
        The number of training examples.

    Raises:
        InvalidFile: The message names the first wrong rows.
    """

    def reader(first: list[Row]) -> Callable[[Row], Any]:
        location, row = first[0]
        form = complete_form(row)
        if form and form.method != _METHODS[method]:
            raise UserError(
                f"{location}: a row of the form {form.shown}, but the method {method} learns from "
                f"rows such as {_FORMS[method]}."
            )
        return find_reader(first, ChatDataConfig(), {_METHODS[method]}).reader.read  # type: ignore[arg-type]

    counts = {param: _check(param, path, reader) for param, path in paths.items()}
    return counts["training_file"]


def check_labelled(paths: Mapping[str, Path]) -> int:
    """Checks prompts with labels, as a classifier learns them: rows of `prompt` and `completion`.

    Args:
        paths: See `check_dialogues`.

    Returns:
        The number of training examples.

    Raises:
        InvalidFile: The message names the first wrong rows.
    """
    labels: dict[str, str] = {}

    def read(row: Row, is_new: bool) -> None:
        _, label = labelled_row(row)
        if is_new:
            labels.setdefault(label, row[0])
        elif label not in labels:
            raise UserError(
                f"{row[0]}: the label {label!r:.80} is not one of the training file's "
                f"{len(labels)}."
            )

    def reader(is_new: bool) -> Callable[[list[Row]], Callable[[Row], Any]]:
        return lambda _: lambda row: read(row, is_new)

    count = _check("training_file", paths["training_file"], reader(True))
    if len(labels) < 2:
        raise InvalidFile(
            "training_file",
            f"Every completion is {next(iter(labels))!r:.80}. An encoder learns to tell labels "
            "apart: give rows of two or more.",
        )
    if "validation_file" in paths:
        _check("validation_file", paths["validation_file"], reader(False))
    return count


def labelled_row(row: Row) -> tuple[str, str]:
    """Returns the prompt and the label of a row.

    Raises:
        UserError: One is missing, empty, or no text.
    """
    location, values = row
    prompt, label = (
        filled_cell(value_of(values, key, location), key, location)
        for key in ("prompt", "completion")
    )
    return prompt, label


def _check(param: str, path: Path, reader: Callable[[list[Row]], Callable[[Row], Any]]) -> int:
    """Reads every row of a file and returns their number."""
    errors: list[str] = []
    count = 0
    rows = _rows(path, errors)
    first = list(itertools.islice(rows, FIRST_ROWS))
    try:
        read = reader(first) if first else None
    except UserError as error:
        raise _invalid(param, path, [str(error)]) from None
    for row in itertools.chain(first, rows):
        count += 1
        try:
            assert read
            read(row)
        except UserError as error:
            errors.append(str(error))
            if len(errors) == _SHOWN_ERRORS:
                break
    if errors:
        raise _invalid(param, path, errors)
    if param == "training_file" and count < MIN_EXAMPLES:
        raise InvalidFile(
            param,
            f"Training file has {count} example(s), but must have at least {MIN_EXAMPLES} "
            "examples.",
            "invalid_n_examples",
        )
    return count


def _rows(path: Path, errors: list[str]) -> Iterator[Row]:
    """Yields rows up to one that cannot be read, which goes to the errors."""
    try:
        yield from read_file(find_format(str(path)))
    except UserError as error:
        errors.append(str(error))


def _invalid(param: str, path: Path, errors: list[str]) -> InvalidFile:
    # A client knows lines, not where the server has its files.
    found = [error.replace(f"{path}:", "Line ").replace(str(path), "The file") for error in errors]
    what = param.replace("_", " ")
    return InvalidFile(param, f"The job failed due to an invalid {what}. {' '.join(found)}")
