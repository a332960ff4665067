"""The columns of prompts and answers in tables, and prompts made of several columns."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_finetune.data.chat_config import ChatDataConfig
from tf_finetune.data.conversations import Completion
from tf_finetune.data.dialogue_rows import answer_cell
from tf_finetune.data.keys import column_names, find_column, listed
from tf_finetune.data.text_cells import filled_cell, text_cell
from tf_finetune.errors import UserError

# Usual names of columns, which are recognised without a flag.
PAIRS = (
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "response"),
    ("input", "output"),
    ("query", "response"),
    ("source", "target"),
    ("user", "assistant"),
)
_PROMPTS = ("prompt", *dict.fromkeys(prompt for prompt, _ in PAIRS if prompt != "prompt"))
_ANSWERS = ("completion", *dict.fromkeys(answer for _, answer in PAIRS))


@dataclass(frozen=True)
class PromptColumns:
    """The columns of a table that are learnt.

    Attributes:
        template: The texts and the columns of the prompt in turn, as `("", "question")`; an empty
            column stands for none.
        answer: The column of the answer; None: the table has none.
    """

    template: tuple[tuple[str, str], ...]
    answer: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read."""
        prompt = [column for _, column in self.template if column]
        return (*prompt, *([self.answer] if self.answer else []))

    def read(self, row: Mapping[str, Any], location: str, may_lack: bool) -> Completion:
        """Reads a row.

        Args:
            row: The row.
            location: Its place.
            may_lack: Whether the answer may be missing.

        Raises:
            UserError: A column is missing or no text; the prompt or the answer is empty.
        """
        columns = [column for _, column in self.template if column]
        if len(columns) == 1:
            cells = {
                columns[0]: filled_cell(_cell(row, columns[0], location), columns[0], location)
            }
        else:
            cells = {
                name: text_cell(_cell(row, name, location), name, location) for name in columns
            }
        prompt = "".join(text + cells.get(column, "") for text, column in self.template)
        if not self.answer:
            return Completion(prompt, None, location)
        path = find_column(self.answer, row, {})
        found = {self.answer: _at(row, path)} if path else {}
        if not found and not may_lack:
            raise _no_column(self.answer, row, location, "completion_column")
        return Completion(prompt, answer_cell(found, self.answer, location, may_lack), location)


def find_columns(
    config: ChatDataConfig, keys: Mapping[str, Any], location: str, may_lack: bool
) -> tuple[PromptColumns, list[str]] | None:
    """Finds the columns that the settings name; of prompt and answer the other by its usual name.

    Args:
        config: The settings.
        keys: The columns of the table with a value of each.
        location: The place of its first row.
        may_lack: Whether the answer may be missing.

    Returns:
        The columns, and a notice of what was guessed; None if the settings name no column.

    Raises:
        UserError: There is no such column, or no usual name.
    """
    answer = config.completion_column
    if not (config.prompt_column or config.prompt_template or answer):
        return None
    if config.prompt_template:
        template = parse_template(config.prompt_template)
    elif config.prompt_column:
        template = (("", config.prompt_column),)
    else:
        template = (("", _guess(_PROMPTS, [answer], keys, location, "prompt_column")),)
    flag = "prompt_template" if config.prompt_template else "prompt_column"
    read = [column for _, column in template if column]
    for column in read:
        if find_column(column, keys, {}) is None:
            raise _no_column(column, keys, location, flag)
    notices = []
    if answer and find_column(answer, keys, {}) is None:
        if not may_lack:
            raise _no_column(answer, keys, location, "completion_column")
    elif not answer and may_lack and not any(name in keys for name in _ANSWERS):
        answer = None
    elif not answer:
        answer = _guess(_ANSWERS, read, keys, location, "completion_column")
        notices = [f"the answer is read from the column {answer!r} (--completion_column says it)."]
    if not (config.prompt_column or config.prompt_template):
        notices.append(f"the prompt is read from the column {read[0]!r} (--prompt_column says it).")
    return PromptColumns(template, answer), notices


def parse_template(template: str) -> tuple[tuple[str, str], ...]:
    r"""Returns the parts of a prompt template; see `PromptColumns`.

    Args:
        template: Texts, and names of columns in braces; `\n` is a line end.

    Raises:
        UserError: A brace is not closed, or no column is named.
    """
    wrong = f"--prompt_template={template!r:.200}: "
    try:
        parsed = list(string.Formatter().parse(template.replace("\\n", "\n")))
    except ValueError as error:
        raise UserError(
            f"{wrong}{error}. Names of columns stand in braces; a brace of the text is doubled."
        ) from None
    parts = []
    for text, name, form, conversion in parsed:
        if form or conversion or name == "":
            shown = (name or "") + (f"!{conversion}" if conversion else "")
            shown += f":{form}" if form else ""
            raise UserError(
                f"{wrong}{{{shown}}} is not the name of a column. A brace of the text is doubled."
            )
        parts.append((text, name or ""))
    if not any(name for _, name in parts):
        raise UserError(f"{wrong}no column. Write its name in braces: '{{text}}'.")
    return tuple(parts)


def pair_notice(prompt: str, answer: str) -> str:
    """Tells of columns that were found by their names."""
    return (
        f"prompts are read from the column {prompt!r} and answers from {answer!r}, as their names "
        "show (--prompt_column and --completion_column say others)."
    )


def _guess(
    usual: Sequence[str],
    taken: Sequence[str | None],
    keys: Mapping[str, Any],
    location: str,
    flag: str,
) -> str:
    found = [name for name in usual if name in keys and name not in taken]
    if len(found) == 1:
        return found[0]
    names = [name for name in column_names(keys) if name not in taken]
    what = "prompt" if flag == "prompt_column" else "answer"
    raise UserError(
        f"{location}: which column holds the {what}? Set --{flag} to one of {listed(names)}."
    )


def _cell(row: Mapping[str, Any], name: str, location: str) -> Any:
    path = find_column(name, row, {})
    if path is None:
        raise _no_column(name, row, location, "prompt_column")
    return _at(row, path)


def _at(row: Any, path: Sequence[str]) -> Any:
    for key in path:
        row = row[key]
    return row


def _no_column(name: str, row: Mapping[str, Any], location: str, flag: str) -> UserError:
    return UserError(
        f"{location}: there is no column {name!r}; the columns are {listed(column_names(row))}. "
        f"Correct the file or --{flag}."
    )
