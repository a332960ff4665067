"""The file of answers."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tf_finetune.generation.answers import Answer, Question
from tf_finetune.generation.predictions import write_predictions
from tf_finetune.runs.model_dir import ModelDir

MESSAGES = (
    {"role": "system", "content": "Answer as JSON."},
    {"role": "user", "content": "Wetter in Köln?"},
)


def test_each_line_is_one_row(tmp_path: Path) -> None:
    model_dir = ModelDir(str(tmp_path / "model"))
    write_predictions(
        model_dir,
        [Question(MESSAGES, "t.jsonl:1", "{}", id=7), Question("Once", "t.jsonl:2")],
        [Answer('{"a": 1}', 6, "stop", 0.123456), Answer("", 1, "length", 0.5)],
    )
    lines = Path(model_dir.predictions_jsonl).read_text(encoding="utf-8").splitlines()
    assert list(map(json.loads, lines)) == [
        {
            "row": 1,
            "id": 7,
            "location": "t.jsonl:1",
            "prompt": list(MESSAGES),
            "reference": "{}",
            "answer": '{"a": 1}',
            "finish_reason": "stop",
            "tokens": 6,
            "seconds": 0.1235,
        },
        {
            "row": 2,
            "location": "t.jsonl:2",
            "prompt": "Once",
            "reference": None,
            "answer": "",
            "finish_reason": "length",
            "tokens": 1,
            "seconds": 0.5,
        },
    ]
    assert "Köln" in lines[0]


@given(st.text())
@example("\n\r\x85\u2028\u2029\udfff\ud800\x1b\x7f")
def test_any_text_comes_back_from_its_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    model_dir = ModelDir(str(tmp_path_factory.mktemp("model")))
    question = Question(({"role": "user", "content": text},), "t:1", text)
    write_predictions(model_dir, [question] * 2, [Answer(text, 1, "stop", 0.0)] * 2)
    lines = Path(model_dir.predictions_jsonl).read_bytes().decode().splitlines()
    assert len(lines) == 2
    record = json.loads(lines[1])
    assert record["answer"] == record["reference"] == record["prompt"][0]["content"] == text


def test_what_fails_leaves_the_earlier_file(tmp_path: Path) -> None:
    model_dir = ModelDir(str(tmp_path))
    write_predictions(model_dir, [Question("a", "t:1")], [Answer("b", 1, "stop", 0.0)])
    before = Path(model_dir.predictions_jsonl).read_bytes()
    with pytest.raises(ValueError, match="zip"):
        write_predictions(model_dir, [Question("c", "t:1")], [])
    assert Path(model_dir.predictions_jsonl).read_bytes() == before
    assert os.listdir(tmp_path) == ["predictions.jsonl"]
