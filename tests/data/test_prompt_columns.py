"""Columns of prompts and answers in tables of every format."""

import re
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from tf_finetune.data.chat_config import ChatDataConfig
from tf_finetune.data.conversations import Completion
from tf_finetune.data.dialogues import DialogueData, load_dialogues
from tf_finetune.data.prompt_columns import parse_template
from tf_finetune.errors import UserError
from tf_finetune.runs.config import DataConfig

ROWS = [
    {"id": "1", "text": "I am late", "lang": "French", "said": "Je suis en retard"},
    {"id": "2", "text": 'a "quoted" one, yes', "lang": "German", "said": "7"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    columns = list(rows[0])
    cells = [[str(row[name]) for name in columns] for row in rows]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        for line in [columns, *cells]:
            book.active.append(line)
        book.save(path)
    elif path.suffix == ".csv":
        quoted = ['"' + '","'.join(c.replace('"', '""') for c in line) + '"' for line in cells]
        path.write_text("\n".join([",".join(columns), *quoted]) + "\n")
    else:
        path.write_text("\n".join("\t".join(line) for line in [columns, *cells]) + "\n")
    return path


def load(path: Path, test: Path | None = None, **flags: Any) -> DialogueData:
    config = DataConfig(train_file=str(path), test_file=str(test) if test else None)
    return load_dialogues(config, ChatDataConfig(**flags))


def texts(data: DialogueData, split: str = "train") -> list[tuple[str, str | None]]:
    found = data.splits[split]
    assert all(isinstance(example, Completion) for example in found)
    return [(e.prompt, e.completion) for e in found if isinstance(e, Completion)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "xlsx"])
def test_columns_by_name(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a.{ending}", ROWS)
    data = load(path, prompt_column="text", completion_column="said")
    assert texts(data) == [(row["text"], row["said"]) for row in ROWS]
    assert any("not read: id, lang." in notice for notice in data.notices)
    template = r"To {lang}:\n{text} {{}}"
    data = load(path, prompt_template=template, completion_column="said")
    assert texts(data)[0] == ("To French:\nI am late {}", "Je suis en retard")


@pytest.mark.parametrize(
    ("names", "flags", "told"),
    [
        (("question", "answer"), {}, "prompts are read from the column 'question' and answers"),
        (("input", "output"), {}, "prompts are read from the column 'input' and answers"),
        (
            ("text", "answer"),
            {"prompt_column": "text"},
            "the answer is read from the column 'answer' (--completion_column says it).",
        ),
        (
            ("question", "said"),
            {"completion_column": "said"},
            "the prompt is read from the column 'question' (--prompt_column says it).",
        ),
        (
            ("a", "target"),
            {"prompt_template": "{a}"},
            "the answer is read from the column 'target'",
        ),
    ],
)
def test_usual_names(tmp_path: Path, names: Any, flags: dict[str, str], told: str) -> None:
    rows = [dict(zip(names, (row["text"], row["said"]), strict=True)) for row in ROWS]
    data = load(write(tmp_path / "a.tsv", rows), **flags)
    assert texts(data) == [(row["text"], row["said"]) for row in ROWS]
    assert sum(told in notice for notice in data.notices) == 1
    if not flags:
        assert data.found == {"prompt_column": names[0], "completion_column": names[1]}


def test_a_test_file_without_answers_is_read_by_the_columns_of_the_training(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "response": "b"}]
    train = write(tmp_path / "a.tsv", rows)
    test = write(tmp_path / "b.tsv", [{"instruction": "c"}])
    assert texts(load(train, test), "test") == [("c", None)]
    # So does a later call, by what was found.
    data = load_dialogues(
        DataConfig(test_file=str(test)),
        ChatDataConfig(prompt_column="instruction", completion_column="response"),
        is_trained=True,
    )
    assert data.train is None and texts(data, "test") == [("c", None)]


def test_a_column_within_an_object(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"data": {"q": "a", "n": 1}, "gold": {"text": "b"}}\n')
    assert texts(load(path, prompt_column="data.q", completion_column="gold.text")) == [("a", "b")]
    assert texts(load(path, prompt_template="{data.n}{data.q}", completion_column="gold.text")) == [
        ("1a", "b")
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"prompt_column": "txt", "completion_column": "said"},
            "a.tsv:2: there is no column 'txt'; the columns are id, text, lang, said. Correct the "
            "file or --prompt_column.",
        ),
        (
            {"prompt_column": "text", "completion_column": "gold"},
            "there is no column 'gold'; the columns are id, text, lang, said. Correct the file or "
            "--completion_column.",
        ),
        (
            {"prompt_column": "text"},
            "a.tsv:2: which column holds the answer? Set --completion_column to one of id, lang, "
            "said.",
        ),
        (
            {"completion_column": "said"},
            "which column holds the prompt? Set --prompt_column to one of id, text, lang.",
        ),
        (
            {"prompt_template": "{text}: {language}", "completion_column": "said"},
            "there is no column 'language'; the columns are id, text, lang, said. Correct the file "
            "or --prompt_template.",
        ),
        ({}, "Of a table name the columns: --prompt_column and --completion_column."),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, flags: Any, message: str) -> None:
    rows = ROWS if flags else [{"id": "1", "said": "a"}]
    with pytest.raises(UserError, match=re.escape(message)):
        load(write(tmp_path / "a.tsv", rows), **flags)


@pytest.mark.parametrize("cell", ["", "  ", None, float("nan")])
@pytest.mark.parametrize("column", ["text", "said"])
def test_empty_cells(tmp_path: Path, column: str, cell: Any) -> None:
    rows: list[Any] = [{**ROWS[0], column: cell}]
    table = pyarrow.Table.from_pylist([*rows, {**ROWS[0], column: None}])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"a.parquet:row 1: '{column}' is (empty|null|NaN)"):
        load(tmp_path / "a.parquet", prompt_column="text", completion_column="said")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Translate", "no column. Write its name in braces: '{text}'."),
        ("{text", "Names of columns stand in braces; a brace of the text is doubled."),
        ('{"a": 1} {text}', '{"a": 1} is not the name of a column. A brace of the text is doubled'),
        ("{} {text}", "{} is not the name of a column."),
        ("{text!r}", "{text!r} is not the name of a column."),
    ],
)
def test_templates_that_are_none(template: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_template(template)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"prompt_column": "a", "prompt_template": "{a}"}, "give one of them"),
        ({"prompt_column": "a", "completion_column": "a"}, "are both a. Name two columns"),
    ],
)
def test_settings_that_contradict(flags: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ChatDataConfig(**flags)
