"""Rows of two answers."""

from pathlib import Path
from typing import Any

import pytest

from tests.data.dialogue_files import assistant, read, system, user
from tf_finetune.data.conversations import Preference

GOOD, BAD = (assistant("good"),), (assistant("bad"),)
TOOL = {"type": "function", "function": {"name": "f"}}
HELPFUL = "\n\nHuman: Why?\n\nAssistant:"

ROWS = {
    "OpenAI's": (
        {
            "input": {
                "messages": [system("s"), user("a")],
                "tools": [TOOL],
                "parallel_tool_calls": True,
            },
            "preferred_output": [assistant("good")],
            "non_preferred_output": [assistant("bad")],
        },
        ((system("s"), user("a")), GOOD, BAD, (TOOL,)),
    ),
    "explicit": (
        {"prompt": [user("a")], "chosen": [*GOOD], "rejected": [*BAD], "tools": [TOOL]},
        ((user("a"),), GOOD, BAD, (TOOL,)),
    ),
    "implicit": (
        {"chosen": [user("a"), *GOOD], "rejected": [user("a"), *BAD]},
        ((user("a"),), GOOD, BAD),
    ),
    "implicit, and the prompt as a text too": (
        {"prompt": "a", "chosen": [user("a"), *GOOD], "rejected": [user("a"), *BAD]},
        ((user("a"),), GOOD, BAD),
    ),
    "answers to a text": (
        {"prompt": "a", "chosen": [*GOOD], "rejected": [*BAD]},
        ((user("a"),), GOOD, BAD),
    ),
    "implicit, of several turns": (
        {
            "chosen": [user("a"), assistant("b"), user("c"), *GOOD],
            "rejected": [user("a"), assistant("b"), user("c"), assistant("d"), user("e"), *BAD],
        },
        (
            (user("a"), assistant("b"), user("c")),
            GOOD,
            (assistant("d"), user("e"), *BAD),
        ),
    ),
    "texts": ({"prompt": "a", "chosen": "good", "rejected": "bad"}, ("a", "good", "bad")),
    # As in hh-rlhf.
    "implicit texts": (
        {"chosen": f"{HELPFUL} I know.", "rejected": f"{HELPFUL} It is."},
        (HELPFUL, " I know.", " It is."),
    ),
}


@pytest.mark.parametrize(("row", "values"), ROWS.values(), ids=list(ROWS))
def test_rows(tmp_path: Path, row: Any, values: Any) -> None:
    example = read(tmp_path, row, "dpo")
    assert example == Preference(*values, location=f"{tmp_path / 'a.jsonl'}:1")


def test_texts_as_conversations(tmp_path: Path) -> None:
    row = {"prompt": "a", "chosen": "good", "rejected": "bad"}
    example = read(tmp_path, row, "dpo", system_prompt="S")
    assert isinstance(example, Preference)
    found = example.as_conversation()
    assert (found.prompt, found.chosen, found.rejected) == ((system("S"), user("a")), GOOD, BAD)
    assert found.as_conversation() is found


def test_a_system_prompt(tmp_path: Path) -> None:
    row = {"prompt": [user("a")], "chosen": [*GOOD], "rejected": [*BAD]}
    example = read(tmp_path, row, "dpo", system_prompt="S")
    assert isinstance(example, Preference) and example.prompt == (system("S"), user("a"))


def test_a_prompt_in_another_column(tmp_path: Path) -> None:
    row = {"system": "s", "question": "a", "chosen": "good", "rejected": "bad"}
    example = read(tmp_path, row, "dpo", prompt_column="question")
    assert isinstance(example, Preference) and example.prompt == "a"
    example = read(tmp_path, row, "dpo", prompt_template="{system} {question}")
    assert isinstance(example, Preference) and example.prompt == "s a"
