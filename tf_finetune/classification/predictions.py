"""Writes the files of predictions."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tf_finetune.classification.fields import escape
from tf_finetune.classification.predict import Predictions, text_columns
from tf_finetune.data.label_cells import CONTROL
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem, known_labels
from tf_finetune.errors import UserError
from tf_finetune.files import replaced_file
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import report_files


def write_predictions(
    model_dir: ModelDir, predictions: Predictions, examples: Examples, problem: Problem
) -> None:
    r"""Writes predictions row by row as unquoted TSV and as JSON lines, both atomically.

    The TSV's header is `row`, `id` if the examples have ids, the text columns, `prediction`, and
    `probability_<label>` for each label. `row` counts from 1. A multi-label prediction is the label
    names joined by commas, possibly none. A regression has no probabilities; its prediction is the
    number. Numbers have as many digits as identify the float32.

    In texts and names of the TSV a backslash, a tab and a line end are written `\\`, `\t`, `\n` and
    `\r`, other control characters and line separators `\x1b` or `\u2028`, and a comma within a name
    of a multi-label prediction `\x2c`: split at the commas first, then `unescape` reads each back.

    A line of JSON is an object: `row`, `id`, `texts` by column, `label` (the true one, null where
    it is not known), `prediction`, and `probabilities` by label. A label is a name, for multi_label
    a list of names, for a regression a number; that has no probabilities. What is not a finite
    number is null.

    Args:
        model_dir: Gets the files.
        predictions: From `predict`.
        examples: The texts given to `predict`, their ids, and their labels as far as known.
        problem: The problem given to `predict`.

    Raises:
        UserError: The examples do not belong to the predictions.
        OSError: A file cannot be written; existing ones are unchanged.
    """
    text_columns(examples.texts, problem)
    if len(examples) != len(predictions):
        raise UserError(f"{len(predictions)} predictions were given for {len(examples)} texts.")
    header = ["row", *(["id"] if len(examples.ids) else []), *problem.text_columns, "prediction"]
    header += [f"probability_{name}" for name in problem.label_names]
    with (
        replaced_file(model_dir.predictions) as table,
        replaced_file(model_dir.predictions_jsonl) as objects,
    ):
        table.write(_tsv_line(map(escape, header)))
        for record in _records(predictions, examples, problem):
            table.write(_tsv_line(_fields(record)))
            objects.write(_json_line(record))


def write_evaluated(
    model_dir: ModelDir, predictions: Predictions, examples: Examples, problem: Problem, split: str
) -> None:
    """Writes the predictions for evaluated rows as JSON lines, atomically; the report reads them.

    A line is that of `predictions.jsonl` with the row's `split` and, where it is known, `location`.

    Args:
        model_dir: Gets the file.
        predictions: See `write_predictions`.
        examples: See `write_predictions`.
        problem: See `write_predictions`.
        split: The examples' split.

    Raises:
        OSError: The file cannot be written; an existing one is unchanged.
    """
    with replaced_file(report_files(model_dir).evaluated) as objects:
        for row, record in enumerate(_records(predictions, examples, problem)):
            place = {"location": examples.locations[row]} if len(examples.locations) else {}
            objects.write(_json_line({**record, "split": split, **place}))


# What JSON's encoder leaves of control characters; all are within strings.
_LEFT = re.compile(f"[{CONTROL}]")
# `json.dumps` would make an encoder for each row.
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _records(
    predictions: Predictions, examples: Examples, problem: Problem
) -> Iterator[dict[str, Any]]:
    """Yields the object of each row."""
    kind, names = problem.problem_type, problem.label_names
    truths = _true_labels(examples, problem)
    for row, texts in enumerate(zip(*examples.texts, strict=True)):
        record: dict[str, Any] = {"row": row + 1}
        if len(examples.ids):
            value = examples.ids[row]
            record["id"] = _number(value) if isinstance(value, float) else value
        record["texts"] = dict(zip(problem.text_columns, texts, strict=True))
        record["label"] = next(truths)
        if kind == "regression":
            yield {**record, "prediction": _number(predictions.values[row])}
            continue
        labels = predictions.labels[row]
        record["prediction"] = list(labels) if kind == "multi_label" else labels[0]
        shares = map(_number, predictions.probabilities[row])
        record["probabilities"] = dict(zip(names, shares, strict=True))
        yield record


def _true_labels(examples: Examples, problem: Problem) -> Iterator[Any]:
    """Yields the label of each row as JSON has it, None where it is not known."""
    if examples.labels is None:
        yield from (None for _ in range(len(examples)))
        return
    names = problem.label_names
    for known, label in zip(known_labels(examples.labels), examples.labels, strict=True):
        if not known:
            yield None
        elif problem.problem_type == "regression":
            yield _number(label)
        elif problem.problem_type == "multi_label":
            yield [names[index] for index in label.nonzero()[0]]
        else:
            yield names[label]


def _number(value: Any) -> float | None:
    """Returns a float32 as the float of the same shortest decimal; None if it is not finite."""
    return float(str(value)) if math.isfinite(value) else None


def _fields(record: dict[str, Any]) -> Iterator[str]:
    """Yields the fields of a row of the TSV."""
    yield str(record["row"])
    if "id" in record:
        value = record["id"]
        yield escape(value if isinstance(value, str) else "" if value is None else _json(value))
    yield from map(escape, record["texts"].values())
    answer = record["prediction"]
    if isinstance(answer, list):
        yield ",".join(escape(name).replace(",", "\\x2c") for name in answer)
    else:
        yield escape(answer) if isinstance(answer, str) else _decimal(answer)
    yield from map(_decimal, record.get("probabilities", {}).values())


def _decimal(number: float | None) -> str:
    return "nan" if number is None else str(number)


def _tsv_line(fields: Iterable[str]) -> bytes:
    return ("\t".join(fields) + "\n").encode()


def _json_line(record: dict[str, Any]) -> bytes:
    line = _LEFT.sub(lambda match: f"\\u{ord(match[0]):04x}", _json(record))
    return f"{line}\n".encode()
