"""Writes the file of predictions."""

import os
import re
from collections.abc import Iterator, Sequence

from tf_finetune.classification.predict import Predictions, text_columns
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.files import write_text_atomic


def write_predictions(
    path: str | os.PathLike[str],
    predictions: Predictions,
    texts: Sequence[str] | Sequence[Sequence[str]],
    problem: Problem,
) -> None:
    r"""Writes predictions atomically as unquoted TSV, one line a row.

    The header is `row`, the text columns, `prediction`, and `probability_<label>` for each label.
    `row` counts from 1. A multi-label prediction is the label names joined by commas, possibly
    none. A regression has no probabilities; its prediction is the number. Numbers have as many
    digits as identify the float32.

    In texts and names a backslash, a tab and a line end are written `\\`, `\t`, `\n` and `\r`, and
    other control characters and line separators `\x1b` or `\u2028`; `unescape` reads them back.

    Args:
        path: The file.
        predictions: From `predict`.
        texts: The texts given to `predict`.
        problem: The problem given to `predict`.

    Raises:
        UserError: The texts do not belong to the predictions.
        OSError: The file cannot be written; an existing one is unchanged.
    """
    columns = text_columns(texts, problem)
    if len(columns[0]) != len(predictions):
        raise UserError(f"{len(predictions)} predictions were given for {len(columns[0])} texts.")
    lines = _lines(predictions, columns, problem)
    write_text_atomic(path, "".join("\t".join(map(escape, line)) + "\n" for line in lines))


# The characters that some reader takes for the end of a line or a file, the control characters of
# terminals, and surrogates, which UTF-8 cannot encode.
_SPECIAL = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPED = re.compile(r"\\(?:([\\tnr])|x([0-9a-f]{2})|u([0-9a-f]{4}))")


def escape(text: str) -> str:
    """Writes a text so that it fits into one field of a TSV file; see `write_predictions`."""

    def write(match: re.Match[str]) -> str:
        code = ord(match[0])
        return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return _SPECIAL.sub(write, text)


def unescape(field: str) -> str:
    """Returns the text from which `escape` made a field."""

    def read(match: re.Match[str]) -> str:
        if match[1]:
            return {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}[match[1]]
        return chr(int(match[2] or match[3], 16))

    return _ESCAPED.sub(read, field)


def _lines(
    predictions: Predictions, columns: tuple[Sequence[str], ...], problem: Problem
) -> Iterator[Sequence[str]]:
    yield (
        "row",
        *problem.text_columns,
        "prediction",
        *(f"probability_{name}" for name in problem.label_names),
    )
    regression = problem.problem_type == "regression"
    for row, texts in enumerate(zip(*columns, strict=True)):
        probabilities = predictions.probabilities[row]
        answer = str(predictions.values[row]) if regression else ",".join(predictions.labels[row])
        # str of a float32 scalar is the shortest text that identifies it.
        yield str(row + 1), *texts, answer, *map(str, probabilities)
