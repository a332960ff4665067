"""The settings of prompts, answers and conversations."""

from dataclasses import dataclass
from typing import ClassVar

from tf_finetune.errors import UserError
from tf_finetune.runs.settings import check_values, setting


@dataclass(frozen=True)
class ChatDataConfig:
    """The columns of prompts and answers, and the system prompt."""

    title: ClassVar[str] = "Prompts"

    prompt_column: str | None = setting(
        None,
        "the column of the prompt; none: found by the names of the columns",
        may_change=True,
    )
    completion_column: str | None = setting(
        None,
        "the column of the answer to learn; none: found by the names of the columns",
        may_change=True,
    )
    prompt_template: str | None = setting(
        None,
        r"the prompt with column names in braces, such as 'Translate: {text}'; \n is a line end, "
        "{{ a brace",
        may_change=True,
    )
    system_prompt: str | None = setting(
        None, "a system message put in front of each conversation that has none", may_change=True
    )

    def __post_init__(self) -> None:
        check_values(self)
        if self.prompt_column and self.prompt_template:
            raise UserError(
                f"--prompt_column={self.prompt_column} and --prompt_template: give one of them. A "
                f"template names the column itself: --prompt_template='{{{self.prompt_column}}}'."
            )
        if self.prompt_column and self.prompt_column == self.completion_column:
            raise UserError(
                f"--prompt_column and --completion_column are both {self.prompt_column}. Name two "
                "columns; texts without prompts are read from a column named text."
            )
