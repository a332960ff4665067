"""`DialogueReader`: turns the rows of a file into examples, once their form is known."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_finetune.data.chat_config import ChatDataConfig
from tf_finetune.data.conversations import Example, with_system_prompt
from tf_finetune.data.dialogue_forms import (
    FORMS,
    Form,
    Method,
    column_form,
    complete_form,
    partial_form,
    preference_form,
)
from tf_finetune.data.keys import column_names, find_column, first_keys, listed
from tf_finetune.data.prompt_columns import find_columns, pair_notice
from tf_finetune.data.readers import Row
from tf_finetune.data.text_cells import missing_key
from tf_finetune.errors import UserError


@dataclass(frozen=True)
class DialogueReader:
    """Turns rows into examples.

    Attributes:
        form: The form of the rows.
        first: The location of the row that shows it.
        system_prompt: Put in front of conversations that have none; empty: none.
        id_column: The column of ids; None: there is none.
        is_predicted: Whether answers may be missing, and ids may not.
    """

    form: Form
    first: str
    system_prompt: str = ""
    id_column: str | None = None
    is_predicted: bool = False

    def read(self, row: Row) -> Example:
        """Turns a row into an example.

        Raises:
            UserError: The row cannot be used, or is of another form.
        """
        location, values = row
        if any(values.get(key) is None for key in self.form.keys):
            self._check_form(row)
        example = self.form.read(values, location, self.is_predicted)
        if self.id_column:
            if self.is_predicted and self.id_column not in values:
                raise missing_key(values, self.id_column, location)
            found = values.get(self.id_column)
            found = found.decode(errors="backslashreplace") if isinstance(found, bytes) else found
            example = dataclasses.replace(example, id=found)
        if self.system_prompt:
            example = with_system_prompt(example, self.system_prompt)
        return example

    def __call__(self, rows: Sequence[Row]) -> list[Example]:
        """Turns rows into examples; see `read`."""
        return list(map(self.read, rows))

    def _check_form(self, row: Row) -> None:
        """Checks that a row without some of the form's keys is not one of another form."""
        location, values = row
        if self.form.columns and find_column(self.form.keys[0], values, {}):
            return  # A column that was named may be a key of another form, too.
        other = complete_form(values)
        if other is None and not any(values.get(key) is not None for key in self.form.keys):
            other = partial_form(values)
        if other not in (None, self.form):
            raise UserError(
                f"{location}: a row of the form {other.shown if other else ''}, but {self.first} "
                f"has the form {self.form.shown}. Write each form into a file of its own."
            )


@dataclass(frozen=True)
class Found:
    """What the first rows of a file show.

    Attributes:
        reader: Reads the rows.
        notices: What was guessed, and what is not read.
        guessed: Whether the columns were found by their names.
    """

    reader: DialogueReader
    notices: tuple[str, ...]
    guessed: bool = False


def find_reader(
    rows: Sequence[Row],
    chat: ChatDataConfig,
    methods: Collection[Method],
    earlier: Form | None = None,
    *,
    id_column: str | None = None,
    is_predicted: bool = False,
) -> Found:
    """Finds the form of a file's rows.

    Args:
        rows: The first rows, at least one.
        chat: The settings of columns.
        methods: What may learn from the rows, or predict them.
        earlier: The columns that were found in an earlier file, which this may have too.
        id_column: The column of ids; None: there is none.
        is_predicted: Whether answers may be missing.

    Raises:
        UserError: The form is not known, or nothing can be learnt from it by the method.
    """
    location, row = rows[0]
    keys = first_keys(row for _, row in rows)
    notices: list[str] = []
    guessed = False
    is_preference = "dpo" in methods and {"chosen", "rejected"} <= keys.keys()
    columns = find_columns(chat, keys, location, is_predicted or is_preference)
    if columns is not None:
        form = (preference_form if is_preference else column_form)(columns[0])
        notices += columns[1]
    else:
        form = _find_form(row, keys, location, earlier)
        guessed = form in FORMS and form.columns is not None
        if guessed:
            notices.append(pair_notice(*form.keys))
    if form.method not in methods:
        raise _wrong_method(form, location)
    if form.name == "text" and chat.system_prompt:
        raise UserError(
            f"{location}: --system_prompt does not go with rows of 'text', which have no turns. "
            "Leave it out, or name the columns of prompt and answer."
        )
    read = {*form.keys, *form.optional, id_column}
    parts = {name.split(".")[0] for name in form.keys} if form.columns else set()
    unread = [key for key in keys if key.strip() not in read | parts]
    if unread:
        told = f"not read: {listed(unread, 8)}."
        if form.name == "text":
            told = f"each text is learnt whole, without a prompt; {told}"
        notices.append(told)
    reader = DialogueReader(form, location, chat.system_prompt or "", id_column, is_predicted)
    return Found(reader, tuple(notices), guessed)


def _find_form(
    row: Mapping[str, Any], keys: Mapping[str, Any], location: str, earlier: Form | None
) -> Form:
    if form := complete_form(row):
        return form
    if earlier and earlier.keys[0] in keys:
        return earlier
    if form := complete_form(keys) or partial_form(row) or partial_form(keys):
        return form
    names = column_names(keys)
    hint = " If its cells are separated by something else: --field_separator." * (len(names) == 1)
    raise UserError(
        f"{location}: no known form; the keys are {listed(names)}. Known are: "
        f"{'; '.join(form.shown for form in FORMS if form.columns is None)}. Of a table name the "
        f"columns: --prompt_column and --completion_column.{hint}"
    )


def _wrong_method(form: Form, location: str) -> UserError:
    if form.method == "dpo":
        return UserError(
            f"{location}: rows of the form {form.shown} hold two answers each, from which "
            "--method=dpo learns. Set it, or give rows of one answer."
        )
    return UserError(
        f"{location}: rows of the form {form.shown} hold one answer each, but --method=dpo learns "
        "from two: 'chosen' and 'rejected', or 'preferred_output' and 'non_preferred_output'. "
        "Give such rows, or set --method=sft."
    )
