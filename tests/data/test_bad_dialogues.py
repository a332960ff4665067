"""Rows that cannot be learnt from: what is said of each."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.data.dialogue_files import assistant, load, user, write
from tf_finetune.data.dialogues import load_dialogues
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

NAN = float("nan")
GOOD = {"messages": [user("a"), assistant("b")]}
CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(*messages: Any, **others: Any) -> dict[str, Any]:
    return {"messages": list(messages), **others}


def calling(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


ROWS: dict[str, tuple[Any, str]] = {
    "role": (
        chat(user("a"), {"role": "bot", "content": "b"}),
        "messages[1].role is 'bot'; the roles are system, developer, user, assistant, tool,",
    ),
    "no role": (chat({"content": "b"}), "messages[0] has no 'role'; its keys are content."),
    "no turns": (chat(), "messages is empty. Give the turns of the conversation, or remove"),
    "no list": ({"messages": "a"}, "messages is 'a', not a list of messages such as"),
    "no message": (chat("a"), "messages[0] is 'a', not a message such as"),
    "no answer": (
        chat(user("a"), user("b")),
        "messages: no turn of the assistant, so there is nothing to",
    ),
    "last turn": (
        chat(user("a"), assistant("b"), user("c")),
        "messages[2]: the last turn is of the user, and nothing answers it. Add the answer, or",
    ),
    "last turn of a tool": (
        chat(user("a"), assistant("b"), {"role": "tool", "content": "c"}),
        "messages[2]: the last turn is of the role 'tool', and nothing answers it.",
    ),
    "weights": (
        chat(user("a"), assistant("b", weight=0)),
        "messages: every turn of the assistant has weight 0,",
    ),
    "weight": (chat(user("a"), assistant("b", weight=0.5)), "messages[1].weight is 0.5; it is 0 ("),
    "true": (chat(user("a"), assistant("b", weight=True)), "messages[1].weight is True; it is 0"),
    "weight of the user": (
        chat({**user("a"), "weight": 1}, assistant("b")),
        "messages[0].weight: this turn is of the role 'user', and only the assistant's are learnt.",
    ),
    "number": (
        chat(user("a"), {"role": "assistant", "content": 3}),
        "messages[1].content is 3; it",
    ),
    "object": (chat(user("a"), {"role": "assistant", "content": {}}), "messages[1].content is {};"),
    "nan": (chat(user("a"), {"role": "assistant", "content": NAN}), "messages[1].content is nan;"),
    "null": (
        chat(user("a"), {"role": "assistant", "content": None}),
        "messages[1].content is null. Only a turn that calls tools may lack it.",
    ),
    "no content": (
        chat({"role": "user"}, assistant("b")),
        "messages[0].content is missing. Only a",
    ),
    "nul": (chat(user("a\0"), assistant("b")), "messages[0].content holds a NUL character."),
    "image": (
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, assistant("b")),
        "messages[0].content[0] is of the type 'image_url'; only texts are learnt",
    ),
    "part": (
        chat({"role": "user", "content": ["a"]}, assistant("b")),
        "messages[0].content[0] is 'a'; only texts are learnt",
    ),
    "empty answer": (
        chat(user("a"), assistant(" ")),
        "messages[1].content is empty, an answer of nothing. Give the text, or leave the turn out",
    ),
    "calls of the user": (
        chat({**user("a"), "tool_calls": [CALL]}, assistant("b")),
        "messages[0]: a turn of the role 'user' calls tools; only the assistant can.",
    ),
    "calls": (
        chat(user("a"), {**assistant("b"), "tool_calls": "f"}),
        "messages[1].tool_calls is 'f'",
    ),
    "call": (
        chat(user("a"), calling({"name": "f"})),
        "messages[1].tool_calls[0] is {'name': 'f'},",
    ),
    "function": (
        chat(user("a"), calling({"function": {}})),
        "messages[1].tool_calls[0].function is {}; it must be an object with a 'name'.",
    ),
    "arguments": (
        chat(user("a"), calling({"function": {"name": "f", "arguments": "{"}})),
        "messages[1].tool_calls[0].function.arguments is not valid JSON (",
    ),
    "arguments of another type": (
        chat(user("a"), calling({"function": {"name": "f", "arguments": "[1]"}})),
        "messages[1].tool_calls[0].function.arguments is [1], not a JSON object",
    ),
    "two ways to call": (
        chat(user("a"), {**calling(CALL), "function_call": CALL["function"]}),
        "messages[1]: both 'tool_calls' and 'function_call'. Keep 'tool_calls'.",
    ),
    "call without an id": (
        chat(
            user("a"),
            calling(CALL),
            {"role": "tool", "tool_call_id": "x", "content": "c"},
            user("d"),
        ),
        "messages[1].tool_calls[0] has no 'id', to which the tool's turn messages[2] could refer "
        "by tool_call_id='x'. Give the call this id.",
    ),
    "dangling id": (
        chat(
            user("a"),
            calling({**CALL, "id": "y"}),
            {"role": "tool", "tool_call_id": "x", "content": "c"},
            assistant("d"),
        ),
        "messages[2].tool_call_id is 'x', but no earlier tool call has this id; the ids are 'y'.",
    ),
    "id before any call": (
        chat(user("a"), {"role": "tool", "tool_call_id": "x", "content": "c"}, assistant("d")),
        "messages[1].tool_call_id is 'x', but no earlier tool call has this id; the ids are none.",
    ),
    "tools": ({**GOOD, "tools": "["}, "'tools' is not valid JSON ("),
    "tools that are none": ({**GOOD, "tools": {"a": 1}}, "'tools' is {'a': 1}, not a list."),
    "tool": ({**GOOD, "tools": ["f"]}, 'tools[0] is \'f\', not {"type": "function", '),
    "tools and functions": (
        {**GOOD, "tools": [{"name": "f"}], "functions": [{"name": "f"}]},
        "both 'tools' and 'functions'. Keep 'tools'.",
    ),
    "prompt alone": ({"prompt": "a"}, "there is no 'completion'; the keys are prompt."),
    "completion alone": ({"completion": "a"}, "there is no 'prompt'; the keys are completion."),
    "empty completion": ({"prompt": "a", "completion": " \n"}, "'completion' is empty. Give the"),
    "empty prompt": ({"prompt": "", "completion": "b"}, "'prompt' is empty. Give the text, or"),
    "nan completion": ({"prompt": "a", "completion": NAN}, "'completion' is NaN, which is not a"),
    "null completion": ({"prompt": "a", "completion": None}, "'completion' is null, which is not"),
    "false": (
        {"prompt": "a", "completion": False},
        "'completion' holds False, which is not a text.",
    ),
    "a nul": ({"prompt": "a\0", "completion": "b"}, "a NUL character in 'prompt'. Remove it."),
    "text and list": (
        {"prompt": "a", "completion": [assistant("b")]},
        "'prompt' is 'a', and 'completion' is a list of messages. Both must be texts, or both",
    ),
    "list and text": (
        {"prompt": [user("a")], "completion": "b"},
        "'prompt' is a list of messages, and 'completion' is 'b'. Both must be texts, or both",
    ),
    "completion of the user": (
        {"prompt": [user("a")], "completion": [user("b")]},
        "completion: no turn of the assistant, so there is nothing to learn",
    ),
    "empty text": ({"text": ""}, "'text' is empty. Give the text, or remove the row."),
    "no instruction": ({"instruction": None, "output": "b"}, "no known form; the keys are"),
    "no output": ({"instruction": "a", "input": "b"}, "there is no 'output'; the keys are"),
    "history": (
        {"instruction": "a", "output": "b", "history": [["c"]]},
        "history[0] is ['c'], not a pair of an instruction and its answer.",
    ),
    "name": (
        {"conversations": [{"from": "bing", "value": "b"}]},
        "conversations[0].from is 'bing'; the names are human, user, gpt, assistant, system, tool,",
    ),
    "turn": (
        {"conversations": [{"from": "gpt"}]},
        "conversations[0] is {'from': 'gpt'}, not a turn",
    ),
    "call as JSON": (
        {"conversations": [{"from": "function_call", "value": "f()"}]},
        "conversations[0].value is 'f()', not a call as JSON",
    ),
    "no form": (
        {"a": "b", "c": {"d": "e"}},
        "no known form; the keys are a, c.d. Known are: messages; OpenAI's preferences (input, ",
    ),
    "preferences": (
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        "rows of the form preferences (chosen, rejected) hold two answers each, from which "
        "--method=dpo learns. Set it, or give rows of one answer.",
    ),
}

PREFERENCES: dict[str, tuple[Any, str]] = {
    "one answer": (
        {"prompt": "a", "completion": "b"},
        "rows of the form prompt and completion (prompt, completion) hold one answer each, but "
        "--method=dpo learns from two: 'chosen' and 'rejected', or 'preferred_output'",
    ),
    "equal": (
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        "'chosen' and 'rejected' are equal, so nothing is preferred. Correct one, or remove the",
    ),
    "equal turns": (
        {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("b")]},
        "'chosen' and 'rejected' are equal",
    ),
    "equal outputs": (
        {
            "input": {"messages": [user("a")]},
            "preferred_output": [assistant("b")],
            "non_preferred_output": [assistant("b")],
        },
        "'preferred_output' and 'non_preferred_output' are equal",
    ),
    "no rejected": ({"prompt": "a", "chosen": "b"}, "there is no 'rejected'; the keys are prompt,"),
    "empty": ({"prompt": "a", "chosen": "b", "rejected": ""}, "'rejected' is empty. Give the text"),
    "null": ({"prompt": "a", "chosen": None, "rejected": "c"}, "'chosen' is null, which is not a"),
    "unlike": (
        {"prompt": "a", "chosen": [assistant("b")], "rejected": "c"},
        "'chosen' is [{'role': 'assistant', 'content': 'b'}], and 'rejected' is 'c'. Both must be",
    ),
    "prompt of turns": (
        {"prompt": [user("a")], "chosen": "b", "rejected": "c"},
        "'prompt' is a list of messages, and 'chosen' a text. Write the answer as a list too",
    ),
    "no prompt": (
        {"chosen": "good", "rejected": "bad"},
        "'chosen' and 'rejected' do not begin alike, and there is no 'prompt'. Give it, or name",
    ),
    "nothing in common": (
        {"chosen": [user("a"), assistant("b")], "rejected": [user("c"), assistant("d")]},
        "'chosen' and 'rejected' have no first turn in common, and there is no 'prompt'.",
    ),
    "beginning": (
        {"chosen": "a b c", "rejected": "a b "},
        "of 'chosen' and 'rejected' one is the beginning of the other",
    ),
    "prompt twice": (
        {
            "prompt": [user("a")],
            "chosen": [user("a"), assistant("b")],
            "rejected": [user("a"), assistant("c")],
        },
        "chosen[0]: the answer begins with a turn of the role 'user', not of the assistant.",
    ),
    "other questions": (
        {
            "chosen": [user("a"), user("b"), assistant("c")],
            "rejected": [user("a"), user("d"), assistant("c")],
        },
        "chosen[1]: the answer begins with a turn of the role 'user', not of the assistant.",
    ),
    "unanswered": (
        {"chosen": [user("a"), assistant("b"), user("c")], "rejected": [user("a"), assistant("d")]},
        "chosen[2]: the last turn is of the user, and nothing answers it.",
    ),
    "input": (
        {"input": "a", "preferred_output": [assistant("b")], "non_preferred_output": []},
        "'input' is 'a', not an object with \"messages\"",
    ),
    "no turns": (
        {
            "input": {"messages": [user("a")]},
            "preferred_output": [assistant("b")],
            "non_preferred_output": [],
        },
        "non_preferred_output is empty.",
    ),
    "role": (
        {"prompt": [user("a")], "chosen": [{"role": "x", "content": "b"}], "rejected": []},
        "chosen[0].role is 'x'; the roles are",
    ),
}


@pytest.mark.parametrize(("row", "message"), ROWS.values(), ids=list(ROWS))
def test_rows_of_answers(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"a.jsonl:1: {re.escape(message)}"):
        load(tmp_path, [row])


@pytest.mark.parametrize(("row", "message"), PREFERENCES.values(), ids=list(PREFERENCES))
def test_rows_of_two_answers(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"a.jsonl:1: {re.escape(message)}"):
        load(tmp_path, [row], "dpo")


def test_the_place_in_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n{"prompt": "a", "completion": "b"},\n\n{"prompt": "a", "completion": ""}]')
    with pytest.raises(UserError, match=r"a.json:4: 'completion' is empty"):
        load_dialogues(DataConfig(train_file=str(path)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [GOOD, GOOD, {"prompt": "a", "completion": "b"}],
            "a.jsonl:3: a row of the form prompt and completion (prompt, completion), but "
            "{path}:1 has the form messages. Write each form into a file of its own.",
        ),
        (
            [{"prompt": "a", "completion": "b"}, {"messages": None, "text": "c"}],
            "a.jsonl:2: a row of the form text, but {path}:1 has the form prompt and completion",
        ),
        (
            # As a table of both forms has them.
            [{**GOOD, "text": None}, {"messages": None, "text": "c"}],
            "a.jsonl:2: a row of the form text, but {path}:1 has the form messages.",
        ),
        ([GOOD, {"message": []}], "a.jsonl:2: there is no 'messages'; the keys are message."),
        (
            [{"question": "a", "answer": "b"}, {"question": "a", "answer": None}],
            "a.jsonl:2: 'answer' is null, which is not a text.",
        ),
    ],
)
def test_forms_that_are_mixed(tmp_path: Path, rows: Any, message: str) -> None:
    expected = re.escape(message.format(path=tmp_path / "a.jsonl"))
    with pytest.raises(UserError, match=expected):
        load(tmp_path, rows)


def test_the_format_of_the_file_is_told_with_the_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a;b\nc;d\n")
    with pytest.raises(UserError, match=r"no known form; the keys are a, b.* separated by ';'"):
        load_dialogues(DataConfig(train_file=str(path)))


def test_a_data_set_of_tensorflow() -> None:
    with pytest.raises(UserError, match=r"--tfds_name=gsm8k: .* Write the examples as .jsonl"):
        load_dialogues(DataConfig(tfds_name="gsm8k"))


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"There are no training data. Give --train_file, or --data"
    ):
        load_dialogues(DataConfig(data_dir=str(tmp_path)))


def test_an_id_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--id_column=key: no file has such a column"):
        load(tmp_path, [GOOD], id_column="key")
    test = write(tmp_path / "b.jsonl", [GOOD])
    with pytest.raises(UserError, match=r"b.jsonl:1: there is no 'key'; the keys are messages"):
        load(tmp_path, [{**GOOD, "key": 1}], id_column="key", test_file=str(test))


def test_a_system_prompt_for_texts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--system_prompt does not go with rows of 'text'"):
        load(tmp_path, [{"text": "a"}], system_prompt="S")
