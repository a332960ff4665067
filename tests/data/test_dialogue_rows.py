"""Each form of rows as the example that it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.dialogue_files import assistant, load, read, system, user, write
from tf_finetune.data.conversations import Completion, Conversation
from tf_finetune.data.dialogues import load_dialogues
from tf_finetune.runs.config import DataConfig

WEATHER = {"name": "weather", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": WEATHER}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"in": "Rom"}}}


def conversation(*messages: Any, trained: str, tools: Any = ()) -> dict[str, Any]:
    """The values of a conversation; `trained` has an x for each turn that is learnt."""
    learnt = tuple(mark == "x" for mark in trained)
    return {"messages": messages, "trained": learnt, "tools": tools}


FORMS = {
    "messages": (
        {"messages": [system("Be brief."), user("Hi"), assistant("Hello")]},
        conversation(system("Be brief."), user("Hi"), assistant("Hello"), trained="..x"),
    ),
    "weights": (
        {
            "messages": [
                user("a"),
                assistant("b", weight=0),
                user("c"),
                assistant("d", weight=1),
                user("e"),
                assistant("f"),
            ]
        },
        conversation(
            user("a"),
            assistant("b"),
            user("c"),
            assistant("d"),
            user("e"),
            assistant("f"),
            trained="...x.x",
        ),
    ),
    "parts": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}],
                },
                assistant("c"),
            ]
        },
        conversation(user("a b"), assistant("c"), trained=".x"),
    ),
    "what templates may know": (
        {
            "messages": [
                {"role": "developer", "content": "d"},
                {**user("u"), "name": "Ann", "weight": None},
                assistant("a", reasoning_content="r", refusal=None),
            ]
        },
        conversation(
            system("d"),
            {**user("u"), "name": "Ann"},
            assistant("a", reasoning_content="r"),
            trained="..x",
        ),
    ),
    "tools": (
        {
            "messages": [
                user("Rain?"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {**CALL, "function": {"name": "weather", "arguments": '{"in": "Rom"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "no"},
                assistant("No."),
            ],
            "tools": [TOOL],
            "parallel_tool_calls": False,
        },
        conversation(
            user("Rain?"),
            assistant("", tool_calls=[CALL]),
            {"role": "tool", "tool_call_id": "c1", "content": "no"},
            assistant("No."),
            trained=".x.x",
            tools=(TOOL,),
        ),
    ),
    "deprecated functions": (
        {
            "messages": [
                user("Rain?"),
                {
                    "role": "assistant",
                    "function_call": {"name": "weather", "arguments": '{"in": "Rom"}'},
                },
                {"role": "function", "name": "weather", "content": "no"},
                assistant("No."),
            ],
            "functions": [WEATHER],
        },
        conversation(
            user("Rain?"),
            assistant("", tool_calls=[{k: v for k, v in CALL.items() if k != "id"}]),
            {"role": "tool", "name": "weather", "content": "no"},
            assistant("No."),
            trained=".x.x",
            tools=(TOOL,),
        ),
    ),
    "tools without ids": (
        {"messages": [user("a"), {"role": "tool", "content": "b"}, assistant("c")]},
        conversation(user("a"), {"role": "tool", "content": "b"}, assistant("c"), trained="..x"),
    ),
    "prompt and completion of messages": (
        {"prompt": [user("a"), assistant("b"), user("c")], "completion": [assistant("d")]},
        conversation(user("a"), assistant("b"), user("c"), assistant("d"), trained="...x"),
    ),
    "a completion that goes on after a call of the prompt": (
        {
            "prompt": [user("a"), assistant("", tool_calls=[CALL])],
            "completion": [{"role": "tool", "tool_call_id": "c1", "content": "x"}, assistant("d")],
            "tools": json.dumps([TOOL]),
        },
        conversation(
            user("a"),
            assistant("", tool_calls=[CALL]),
            {"role": "tool", "tool_call_id": "c1", "content": "x"},
            assistant("d"),
            trained="...x",
            tools=(TOOL,),
        ),
    ),
    "ShareGPT": (
        {
            "system": "s",
            "conversations": [
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
                {"from": "human", "value": "c"},
                {"from": "gpt", "value": "d", "weight": 0},
            ],
        },
        conversation(
            system("s"), user("a"), assistant("b"), user("c"), assistant("d"), trained="..x.."
        ),
    ),
    "ShareGPT with tools": (
        {
            "system": "left out",
            "tools": json.dumps([WEATHER]),
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "a"},
                {
                    "from": "function_call",
                    "value": '{"name": "weather", "arguments": {"in": "Rom"}}',
                },
                {"from": "observation", "value": "no"},
                {"from": "gpt", "value": "No."},
            ],
        },
        conversation(
            system("s"),
            user("a"),
            assistant("", tool_calls=[{k: v for k, v in CALL.items() if k != "id"}]),
            {"role": "tool", "content": "no"},
            assistant("No."),
            trained="..x.x",
            tools=(TOOL,),
        ),
    ),
    "conversations of messages": (
        {"conversations": [user("a"), assistant("b")]},
        conversation(user("a"), assistant("b"), trained=".x"),
    ),
    "Alpaca": (
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        conversation(user("Add.\n1 2"), assistant("3"), trained=".x"),
    ),
    "Alpaca without an input": (
        {"instruction": "Add.", "input": "", "output": 3, "history": []},
        conversation(user("Add."), assistant("3"), trained=".x"),
    ),
    "Alpaca with more": (
        {"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]},
        conversation(
            system("s"), user("a"), assistant("b"), user("c"), assistant("d"), trained="..x.x"
        ),
    ),
}


@pytest.mark.parametrize(("row", "expected"), FORMS.values(), ids=list(FORMS))
def test_rows_that_are_conversations(
    tmp_path: Path, row: dict[str, Any], expected: dict[str, Any]
) -> None:
    example = read(tmp_path, row)
    assert example == Conversation(location=f"{tmp_path / 'a.jsonl'}:1", **expected)


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"prompt": " a ", "completion": " b\n"}, " a ", " b\n"),
        ({"prompt": "1 + 1", "completion": 2}, "1 + 1", "2"),
        ({"text": "all of it"}, "", "all of it"),
        ({"question": "a", "answer": "b"}, "a", "b"),
        ({"instruction": "a", "response": "b"}, "a", "b"),
        ({"input": "a", "output": "b"}, "a", "b"),
        # The first of several forms.
        ({"text": "c", "prompt": "a", "completion": "b"}, "a", "b"),
        ({"text": "c", "question": "a", "answer": "b"}, "a", "b"),
    ],
)
def test_rows_that_are_texts(tmp_path: Path, row: Any, prompt: str, completion: str) -> None:
    assert read(tmp_path, row) == Completion(prompt, completion, f"{tmp_path / 'a.jsonl'}:1")


def test_texts_as_conversations() -> None:
    row = Completion("a", "b", "f:1", 7)
    assert row.as_conversation() == Conversation(
        (user("a"), assistant("b")), (False, True), (), "f:1", 7
    )
    open_row = Completion("a", None, system_prompt="s").as_conversation()
    assert open_row == Conversation((system("s"), user("a")), (False, False))
    assert isinstance(open_row, Conversation) and open_row.answer is None
    text = Completion("", "b")
    assert text.as_conversation() is text


def test_what_is_predicted_of_a_conversation() -> None:
    turns = (user("a"), assistant("b"))
    answered = Conversation(turns, (False, True))
    assert (answered.prompt, answered.answer) == (turns[:1], turns[1])
    asked = Conversation((*turns, user("c")), (False, True, False))
    assert asked.prompt == asked.messages and asked.answer is None


@pytest.mark.parametrize(
    ("row", "first"),
    [
        ({"messages": [user("a"), assistant("b")]}, [system("S"), user("a"), assistant("b")]),
        (
            {"messages": [system("own"), user("a"), assistant("b")]},
            [system("own"), user("a"), assistant("b")],
        ),
        ({"prompt": "a", "completion": "b"}, [system("S"), user("a"), assistant("b")]),
    ],
)
def test_a_system_prompt(tmp_path: Path, row: Any, first: list[Any]) -> None:
    example = read(tmp_path, row, system_prompt="S")
    if isinstance(example, Completion):
        example = example.as_conversation()
    assert isinstance(example, Conversation)
    assert list(example.messages) == first
    assert example.trained == (False, False, True)


def test_forms_of_several_files_may_differ(tmp_path: Path) -> None:
    one = write(tmp_path / "1.jsonl", [{"prompt": "a", "completion": "b"}])
    other = write(tmp_path / "2.jsonl", [{"messages": [user("a"), assistant("b")]}])
    data = load_dialogues(DataConfig(train_file=f"{one},{other}"))
    assert data.train and list(map(type, data.train)) == [Completion, Conversation]
    assert data.forms == {"train": ("prompt and completion", "messages")}


def test_what_is_not_read_is_told(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b", "label": False}]
    assert load(tmp_path, rows).notices == [f"{tmp_path / 'a.jsonl'}: not read: label."]
    (notice,) = load(tmp_path, [{"text": "a", "category": "b"}]).notices
    assert "each text is learnt whole, without a prompt; not read: category." in notice
