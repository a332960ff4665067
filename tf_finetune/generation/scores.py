"""Scores of generated answers against references."""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from rapidfuzz.distance import Indel

from tf_finetune.data.normalize import normalized
from tf_finetune.errors import UserError
from tf_finetune.generation.answers import Answer
from tf_finetune.generation.significance import bootstrap_interval, wilson_interval

# A sign or a point before the first digit, which `normalized` drops with the punctuation.
_SIGN = re.compile(r"\W*?(-?\.?)\d")
# Kana and ideographs, which no blanks part, are words of their own.
_ALONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
# An answer is a loop if it ends in one piece so many times, over so many characters or more.
_LEAST_REPEATS = 4
_LEAST_REPEATED = 40


def score_answers(answers: Sequence[Answer], references: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores answers row by row.

    Args:
        answers: The answers.
        references: The right answer to each.

    Returns:
        Arrays [n] by name, bool unless said otherwise:
        `exact_match`: equal but for blanks at the ends.
        `normalized_match`: see `is_match`.
        `json_valid`: a JSON object or array; only if all references are.
        `rouge_l`: float64, see `rouge_l`.
        `stopped`: ended by itself.
        `mean_tokens`: float64, the answer's tokens.
        `empty`: nothing but blanks.
        `repeated`: ends in a loop that the reference does not have.
    """
    rows = list(zip([answer.text for answer in answers], references, strict=True))
    scores: dict[str, list[Any]] = {
        "exact_match": [text.strip() == reference.strip() for text, reference in rows],
        "normalized_match": [is_match(text, reference) for text, reference in rows],
    }
    if all(_is_json(reference) for reference in references):
        scores["json_valid"] = [_is_json(text) for text, _ in rows]
    scores |= {
        "rouge_l": [rouge_l(text, reference) for text, reference in rows],
        "stopped": [answer.finish_reason == "stop" for answer in answers],
        "mean_tokens": [float(answer.tokens) for answer in answers],
        "empty": [not text.strip() for text, _ in rows],
        "repeated": [is_loop(text) and not is_loop(reference) for text, reference in rows],
    }
    return {name: np.array(values) for name, values in scores.items()}


def summarize(scores: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the means of scores over their rows, with how many rows and how sure they are.

    Args:
        scores: From `score_answers`.

    Returns:
        `examples`, the number of rows; the mean of each score under its name; `counts`, the rows
        that are counted in each share; and `intervals`, the 95 % interval of each mean: Wilson's
        of a share, else the bootstrap's.

    Raises:
        UserError: There are no rows.
    """
    examples = len(scores["exact_match"])
    if not examples:
        raise UserError(
            "There are no answers to score. Check that the rows have a reference answer, and "
            "--max_eval_samples."
        )
    counts = {name: int(rows.sum()) for name, rows in scores.items() if rows.dtype == bool}
    intervals = {
        name: list(
            wilson_interval(counts[name], examples) if name in counts else bootstrap_interval(rows)
        )
        for name, rows in scores.items()
    }
    means = {name: float(rows.mean()) for name, rows in scores.items()}
    return {"examples": examples, **means, "counts": counts, "intervals": intervals}


def is_match(text: str, reference: str) -> bool:
    """Returns whether an answer says what the reference says.

    Where the reference is a JSON object or array, the values must be equal: the order of keys and
    blanks do not count. Else case, the width of characters, blanks and outer punctuation do not
    count, but a minus does. Unlike SQuAD's, articles count, which are English only, and so does
    inner punctuation: 3.5 is not 35.
    """
    value = _canonical_json(reference)
    if value is not None and (value == _canonical_json(text) or value[0] in "[{"):
        return value == _canonical_json(text)
    return _normalized(text) == _normalized(reference)


def rouge_l(text: str, reference: str) -> float:
    """Returns the F1 of the longest common subsequence of words (ROUGE-L; Lin, 2004).

    For ASCII it is the value of the `rouge_score` package without stemming, but 1 where neither
    text has a word and both are equal. Letters of all scripts count, case and width do not.
    """
    words, expected = _words(text), _words(reference)
    if not words and not expected:
        return float(text.strip() == reference.strip())
    # 2 L / (m + n): Indel's similarity is 1 minus the share of words to insert and delete.
    return Indel.normalized_similarity(words, expected)


def is_loop(text: str) -> bool:
    """Returns whether a text ends in one piece, four times or more, over 40 characters or more."""
    for period in range(1, len(text) // _LEAST_REPEATS + 1):
        size = period * max(_LEAST_REPEATS, -(-_LEAST_REPEATED // period))
        end = text[-size:]
        if len(end) == size and end[period:] == end[:-period]:
            return True
    return False


def _normalized(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).replace("−", "-")
    sign = _SIGN.match(text)
    return (sign[1] if sign else "") + normalized(text)


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _is_json(text: str) -> bool:
    value = _canonical_json(text)
    return value is not None and value[0] in "[{"


def _canonical_json(text: str) -> str | None:
    """Returns JSON in one spelling for equal values; None for what is not JSON."""
    try:
        value = json.loads(text.strip(), parse_float=_number, parse_constant=_refuse)
        return json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _number(digits: str) -> float | int:
    """Reads 1.0 as the integer 1, so that both are written alike."""
    number = float(digits)
    return int(number) if number.is_integer() else number


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")
