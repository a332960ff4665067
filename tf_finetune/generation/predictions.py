"""Writes the file of answers."""

import json
import re
from collections.abc import Sequence
from typing import Any

from tf_finetune.files import replaced_file
from tf_finetune.generation.answers import Answer, Question
from tf_finetune.runs.model_dir import ModelDir

# What JSON's encoder leaves of the characters that some reader takes for the end of a line, and
# surrogates, which UTF-8 cannot encode; all are within strings.
_LEFT = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def write_predictions(
    model_dir: ModelDir, questions: Sequence[Question], answers: Sequence[Answer]
) -> None:
    """Writes answers row by row as JSON lines, atomically.

    A line is an object: `row`, counted from 1, `id` if the row has one, `location`, `prompt` (text
    or messages), `reference` (null if it is not known), `answer`, `finish_reason`, `tokens` and
    `seconds`.

    Args:
        model_dir: Gets the file.
        questions: What was asked.
        answers: The answer to each.

    Raises:
        OSError: The file cannot be written; an existing one is unchanged.
    """
    with replaced_file(model_dir.predictions_jsonl) as file:
        for row, (question, answer) in enumerate(zip(questions, answers, strict=True), start=1):
            file.write(_json_line(_record(row, question, answer)))


def _record(row: int, question: Question, answer: Answer) -> dict[str, Any]:
    prompt = question.prompt
    return {
        "row": row,
        **({} if question.id is None else {"id": question.id}),
        "location": question.location,
        "prompt": prompt if isinstance(prompt, str) else [dict(message) for message in prompt],
        "reference": question.reference,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "tokens": answer.tokens,
        "seconds": round(answer.seconds, 4),
    }


def _json_line(record: dict[str, Any]) -> bytes:
    line = _LEFT.sub(lambda match: f"\\u{ord(match[0]):04x}", _json(record))
    return f"{line}\n".encode()
