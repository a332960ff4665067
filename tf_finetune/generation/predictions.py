"""Writes the file of answers."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.files import replaced_file
from tf_finetune.generation.answers import Answer, Question
from tf_finetune.generation.comparison import Evaluated
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import report_files

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


def write_evaluated(
    model_dir: ModelDir, questions: Sequence[Question], columns: Mapping[str, Evaluated]
) -> None:
    """Writes the answers of the base and the tuned model as JSON lines; the report reads them.

    A line is an object: `row`, `location`, `prompt`, `reference`, and `answers`, an object of
    `text`, `tokens` and `finish_reason` for each column.

    Args:
        model_dir: Gets the file.
        questions: What was asked.
        columns: What each has answered, by its name.

    Raises:
        OSError: The file cannot be written; an existing one is unchanged.
    """
    with replaced_file(report_files(model_dir).evaluated) as file:
        for row, question in enumerate(questions):
            answers = {name: part.answers[row] for name, part in columns.items()}
            record = {
                "row": row + 1,
                "location": question.location,
                "prompt": _prompt(question),
                "reference": question.reference,
                "answers": {
                    name: {
                        "text": answer.text,
                        "tokens": answer.tokens,
                        "finish_reason": answer.finish_reason,
                    }
                    for name, answer in answers.items()
                },
            }
            file.write(_json_line(record))


def _prompt(question: Question) -> str | list[dict[str, Any]]:
    prompt = question.prompt
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


def _record(row: int, question: Question, answer: Answer) -> dict[str, Any]:
    return {
        "row": row,
        **({} if question.id is None else {"id": question.id}),
        "location": question.location,
        "prompt": _prompt(question),
        "reference": question.reference,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "tokens": answer.tokens,
        "seconds": round(answer.seconds, 4),
    }


def _json_line(record: dict[str, Any]) -> bytes:
    line = _LEFT.sub(lambda match: f"\\u{ord(match[0]):04x}", _json(record))
    return f"{line}\n".encode()
