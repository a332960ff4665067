"""The splits of a run: files, rows held out, samples, streams, answers that may be missing."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.dialogue_files import assistant, load, user, write
from tf_finetune.data.chat_config import ChatDataConfig
from tf_finetune.data.conversations import Completion, Conversation, Preference, prompt_text
from tf_finetune.data.dialogues import DialogueData, load_dialogues
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig


def rows(number: int) -> list[dict[str, str]]:
    return [{"prompt": f"prompt {n}", "completion": f"answer {n}"} for n in range(number)]


def sizes(data: DialogueData) -> dict[str, int]:
    return {split: len(examples) for split, examples in data.splits.items()}


def test_files_of_a_folder(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "dev", "test"), 1):
        write(tmp_path / f"{name}.jsonl", rows(number))
    data = load_dialogues(DataConfig(data_dir=str(tmp_path)))
    assert sizes(data) == {"train": 1, "validation": 2, "test": 3}
    assert data.forms == dict.fromkeys(data.splits, ("prompt and completion",))
    assert data.notices == []


def test_rows_held_out(tmp_path: Path) -> None:
    flags = {"validation_fraction": 0.2, "test_fraction": 0.1}
    doubled = [row for row in rows(200) for _ in range(2)]
    data = load(tmp_path, doubled, **flags)
    assert sizes(data) == pytest.approx({"train": 280, "validation": 80, "test": 40}, abs=8)
    prompts = [{prompt_text(e) for e in examples} for examples in data.splits.values()]
    assert len(set.union(*prompts)) == sum(map(len, prompts)) == 200
    (notice,) = data.notices
    assert "divided by a hash of their prompt: " in notice
    # A trained model finds the same rows again.
    again = load(tmp_path, doubled, is_trained=True, **flags)
    assert again.train is None
    assert (again.validation, again.test) == (data.validation, data.test)
    assert again.held_out == data.held_out
    kept = load(tmp_path, doubled, max_eval_samples=3, **flags)
    assert kept.held_out == data.held_out and data.validation
    assert kept.validation == data.validation[:3]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_conversations_of_one_prompt_stay_together(tmp_path: Path, method: str) -> None:
    if method == "sft":
        made = [{"messages": [user(f"{n // 2}"), assistant(f"{n}")]} for n in range(100)]
    else:
        made = [
            {
                "prompt": [user(f"{n // 2}")],
                "chosen": [assistant("a")],
                "rejected": [assistant(f"{n}")],
            }
            for n in range(100)
        ]
    data = load(tmp_path, made, method, validation_fraction=0.3)
    prompts = [{prompt_text(e) for e in examples} for examples in data.splits.values()]
    assert not prompts[0] & prompts[1] and prompts[1]


def test_splits_that_are_there_already(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows(20))
    write(tmp_path / "dev.jsonl", rows(2))
    with pytest.raises(UserError, match="there are validation examples already"):
        load_dialogues(DataConfig(data_dir=str(tmp_path), validation_fraction=0.1))
    with pytest.raises(UserError, match="none of the 1 rows falls into validation"):
        load(tmp_path, rows(1), validation_fraction=0.1)


def test_the_first_samples(tmp_path: Path) -> None:
    other = write(tmp_path / "b.jsonl", rows(9))
    data = load(
        tmp_path,
        rows(10),
        validation_file=str(other),
        test_file=str(other),
        max_train_samples=4,
        max_eval_samples=3,
        max_predict_samples=2,
    )
    assert sizes(data) == {"train": 4, "validation": 3, "test": 2}


OPEN = [
    {"messages": [user("a")]},
    {"messages": [user("a"), assistant("b"), user("c")]},
    {"prompt": "a"},
    {"prompt": "a", "completion": ""},
    {"prompt": "a", "completion": None},
    {"prompt": [user("a")]},
    {"instruction": "a", "input": "b"},
    {"conversations": [{"from": "human", "value": "a"}]},
]


@pytest.mark.parametrize("row", OPEN, ids=range(len(OPEN)))
def test_a_test_file_may_lack_answers(tmp_path: Path, row: Any) -> None:
    path = write(tmp_path / "b.jsonl", [row])
    data = load(tmp_path, rows(2), test_file=str(path))
    assert data.test
    (example,) = data.test
    assert not example.has_answer
    assert isinstance(example, Completion | Conversation)
    told = f"1 row of test without an answer (first {path}:1): predicted, and left out of the"
    assert any(told in notice for notice in data.notices)
    for flags in ({"train_file": str(path)}, {"validation_file": str(path)}):
        with pytest.raises(UserError, match=r"b.jsonl:1: "):
            load_dialogues(DataConfig(**{"train_file": str(tmp_path / "a.jsonl"), **flags}))
    # Every file of a trained model may.
    config = DataConfig(validation_file=str(path))
    assert load_dialogues(config, is_trained=True).validation == data.test


def test_a_model_of_preferences_predicts_plain_prompts(tmp_path: Path) -> None:
    test = write(tmp_path / "b.jsonl", [{"prompt": "a"}])
    made = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    data = load(tmp_path, made, "dpo", test_file=str(test))
    assert data.train and isinstance(data.train[0], Preference)
    assert data.test and isinstance(data.test[0], Completion)


def test_ids(tmp_path: Path) -> None:
    test = write(tmp_path / "b.jsonl", [{"prompt": "a", "key": "x7"}])
    data = load(tmp_path, rows(1), test_file=str(test), id_column="key")
    assert data.train and data.train[0].id is None
    assert data.test and data.test[0].id == "x7"
    assert data.notices[0].startswith("1 row of test without an answer")


def test_streamed_rows_are_those_in_memory(tmp_path: Path) -> None:
    made = [{"messages": [user(f"u{n}" * 9), assistant(f"a{n}")]} for n in range(3000)]
    whole = load(tmp_path, made, system_prompt="S")
    data = load(tmp_path, made, system_prompt="S", streaming="true")
    assert data.stream and data.read and data.train and whole.train
    assert 0 < len(data.train) <= 3000
    blocks = range(len(data.stream.blocks))
    read = [e for n in blocks for e in data.read(data.stream.rows(data.stream.raw_rows(n)))]
    assert all(isinstance(e, Conversation) for e in read)
    assert [e.messages for e in read] == [e.messages for e in whole.train]  # type: ignore[union-attr]
    write(tmp_path / "b.jsonl", [*made, {"text": "a"}])
    mixed = data.stream.parse(data.stream.raw_rows(0)[0])
    assert mixed
    with pytest.raises(UserError, match=r"x:1: a row of the form text, but .*a.jsonl:byte"):
        data.read([("x:1", {"text": "a"})])


def test_streaming_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("question\tanswer\n" + "".join(f"q{n}\ta{n}\n" for n in range(2000)))
    data = load_dialogues(DataConfig(train_file=str(path), streaming="true"))
    assert data.stream and data.read and data.found["prompt_column"] == "question"
    (example,) = data.read([("f:1", {"question": "q", "answer": "a"})])
    assert example == Completion("q", "a", "f:1")
    with pytest.raises(UserError, match="--packing=True needs all rows beforehand"):
        load_dialogues(
            DataConfig(train_file=str(path), streaming="true"), needs_all_rows={"packing": True}
        )


def test_a_folder_of_texts(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("once\n")
    data = load_dialogues(DataConfig(train_file=str(tmp_path / "texts")))
    assert data.train == [Completion("", "once\n", str(tmp_path / "texts" / "a.txt"))]
    assert data.notices == []


def test_tables_that_quote_alike(tmp_path: Path) -> None:
    train, test = tmp_path / "a.tsv", tmp_path / "b.tsv"
    train.write_text('prompt\tcompletion\n"a\tb"\t"c"\n"d"\t"e"\n')
    test.write_text('prompt\tcompletion\n"f"\t"g"\n')
    data = load_dialogues(DataConfig(train_file=str(train), test_file=str(test)))
    assert data.test == [Completion("f", "g", f"{test}:2")]
    assert data.found == {"quoting": "minimal"}


@pytest.mark.parametrize(
    ("name", "sizes_", "form"),
    [
        ("snips", {"train": 13784, "test": 700}, "messages"),
        ("sentfin", {"train": 9673, "test": 1000}, "prompt and completion"),
        ("bank_chat", {"train": 207, "validation": 42}, "messages"),
    ],
)
def test_real_data(shared_data: Path, name: str, sizes_: dict[str, int], form: str) -> None:
    folder = shared_data / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    data = load_dialogues(DataConfig(data_dir=str(folder)))
    assert sizes(data) == sizes_ and set(data.forms.values()) == {(form,)}
    # Nothing is lost on the way.
    for split, examples in data.splits.items():
        file = next(folder.glob(f"{'dev' if split == 'validation' else split}.jsonl"))
        for line, example in zip(file.read_text().splitlines(), examples, strict=True):
            if isinstance(example, Conversation):
                row: Any = {"messages": list(example.messages)}
                roles = [message["role"] == "assistant" for message in example.messages]
                assert list(example.trained) == roles
            else:
                assert isinstance(example, Completion)
                row = {"prompt": example.prompt, "completion": example.completion}
            assert json.loads(line) == row


def test_a_table_of_a_classifier(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "banking77" / "test.csv", tmp_path / "train.csv")
    chat = ChatDataConfig(prompt_column="text", completion_column="category")
    data = load_dialogues(DataConfig(data_dir=str(tmp_path)), chat)
    assert data.train and len(data.train) == 3080
    assert isinstance(data.train[0], Completion)
    assert re.fullmatch("[a-z_]+", data.train[0].completion or "")
