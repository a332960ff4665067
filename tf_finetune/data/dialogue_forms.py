"""The forms in which rows of prompts and answers are written, found by their keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tf_finetune.data.conversations import Example
from tf_finetune.data.dialogue_rows import (
    read_alpaca_row,
    read_messages_row,
    read_prompt_row,
    read_sharegpt_row,
    read_text_row,
)
from tf_finetune.data.preference_rows import read_openai_preference, read_preference
from tf_finetune.data.prompt_columns import PAIRS, PromptColumns

Method = Literal["sft", "dpo"]


@dataclass(frozen=True)
class Form:
    """How rows are written.

    Attributes:
        name: As reports name it.
        keys: The keys of a row, by which the form is known.
        read: Takes a row, its location, and whether the answer may be missing.
        method: What learns from such rows.
        optional: Further keys that are read.
        marks: Keys of which one shows a row of this form that lacks others.
        columns: The columns of a table; None: the keys have fixed names.
    """

    name: str
    keys: tuple[str, ...]
    read: Callable[[Mapping[str, Any], str, bool], Example]
    method: Method = "sft"
    optional: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    columns: PromptColumns | None = None

    @property
    def shown(self) -> str:
        """The form and its keys, for messages."""
        keys = ", ".join(self.keys)
        return self.name if keys == self.name else f"{self.name} ({keys})"


_TOOLS = ("tools", "functions", "parallel_tool_calls")


def column_form(columns: PromptColumns) -> Form:
    """Returns the form of a table's columns."""
    # A name with points leads into an object: its first part need not be a key.
    return Form("columns", columns.names, columns.read, columns=columns)


def preference_form(columns: PromptColumns) -> Form:
    """Returns the form of preferences whose prompts stand in columns of other names."""

    def read(row: Mapping[str, Any], location: str, may_lack: bool) -> Example:
        prompt = columns.read(row, location, True).prompt
        return read_preference({**row, "prompt": prompt}, location, may_lack)

    keys = ("chosen", "rejected")
    return Form("preferences", keys, read, "dpo", (*columns.names, *_TOOLS), keys)


# A row of several forms is of the first.
FORMS = (
    Form("messages", ("messages",), read_messages_row, "sft", _TOOLS),
    Form(
        "OpenAI's preferences",
        ("input", "preferred_output", "non_preferred_output"),
        read_openai_preference,
        "dpo",
        marks=("preferred_output", "non_preferred_output"),
    ),
    Form(
        "preferences",
        ("chosen", "rejected"),
        read_preference,
        "dpo",
        ("prompt", *_TOOLS),
        marks=("chosen", "rejected"),
    ),
    Form("ShareGPT", ("conversations",), read_sharegpt_row, "sft", ("system", *_TOOLS)),
    Form(
        "Alpaca",
        ("instruction", "output"),
        read_alpaca_row,
        "sft",
        ("input", "system", "history", "tools"),
        marks=("instruction",),
    ),
    Form(
        "prompt and completion",
        ("prompt", "completion"),
        read_prompt_row,
        "sft",
        _TOOLS,
        marks=("prompt", "completion"),
    ),
    *(column_form(PromptColumns((("", prompt),), answer)) for prompt, answer in PAIRS),
    Form("text", ("text",), read_text_row),
)


def complete_form(row: Mapping[str, Any]) -> Form | None:
    """Returns the form all of whose keys a row has."""
    return next((form for form in FORMS if all(row.get(k) is not None for k in form.keys)), None)


def partial_form(row: Mapping[str, Any]) -> Form | None:
    """Returns the form of which a row has some keys."""
    return next((form for form in FORMS if any(row.get(k) is not None for k in form.marks)), None)
