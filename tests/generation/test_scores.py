"""Scores of answers against the `rouge_score` package's values, formulas and properties."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_finetune.errors import UserError
from tf_finetune.generation.answers import Answer
from tf_finetune.generation.scores import is_loop, is_match, rouge_l, score_answers, summarize

TEXTS = st.text(max_size=40) | st.text('ab .,-5{}[]":1', max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def answer(text: str, tokens: int = 3, finish_reason: Any = "stop") -> Answer:
    return Answer(text, tokens, finish_reason, 0.1)


# RougeScorer(["rougeL"]).score(text, reference).fmeasure of rouge_score 0.1.2; the first two are
# the examples of Lin (2004), section 3.1.
@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        (
            "The quick brown fox jumps over the lazy dog",
            "The quick brown dog jumps on the log.",
            0.5882352941176471,
        ),
        (
            '{"intent": "GetWeather", "country": "Chad"}',
            '{"intent": "GetWeather", "timeRange": "now", "country": "Chad"}',
            0.8,
        ),
        ("a b c d e f g", "g f e d c b a", 0.14285714285714285),
        ("one", "two", 0.0),
        ("", "word", 0.0),
        ("snake_case and 3.5%", "snake case AND 3 5", 1.0),
        ("x x x y", "x y x x", 0.75),
    ],
)
def test_rouge_l_equals_the_package_of_that_name(
    text: str, reference: str, expected: float
) -> None:
    assert rouge_l(text, reference) == pytest.approx(expected, abs=1e-12)


def longest_common(a: list[str], b: list[str]) -> int:
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i, j] = (
                table[i - 1, j - 1] + 1 if x == y else max(table[i - 1, j], table[i, j - 1])
            )
    return int(table[-1, -1])


@given(*[st.lists(st.sampled_from(["a", "bb", "é", "日"]), min_size=1, max_size=12)] * 2)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    common = longest_common(a, b)
    precision, recall = common / len(a), common / len(b)
    expected = 2 * precision * recall / (precision + recall) if common else 0.0
    assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(expected)


def test_rouge_l_knows_other_scripts() -> None:
    assert rouge_l("Über die Brücke", "über die brücke") == 1
    assert rouge_l("Привет, мир", "привет мир!") == 1
    # 今天 is common, of 4 and 3 ideographs.
    assert rouge_l("今天下雨", "今天晴") == pytest.approx(4 / 7)
    assert rouge_l("!!", "!!") == 1 and rouge_l("!!", "??") == 0


@pytest.mark.parametrize(
    ("text", "reference", "same"),
    [
        ("Yes.", "yes", True),
        ("  Two\n words ", "two words", True),
        ("ＡＢＣ１", "abc1", True),
        ('"neutral"', "Neutral", True),
        ("STRASSE", "straße", True),
        ("3.5", "35", False),
        ("-5", "5", False),
        ("−5.", "-5", True),
        (".5", "5", False),
        ("the cat", "cat", False),
        ("!", "?", False),
        ('{"b": 1.0, "a":[1, 2]}', '{"a": [1,2], "b": 1}', True),
        (' {"a": 1}\u00a0', '{"a": 1}', True),
        ('{"a": [2, 1]}', '{"a": [1, 2]}', False),
        ('{"a": "X"}', '{"a": "x"}', False),
        ('{"a": true}', '{"a": 1}', False),
        ('{"a": "b"', '{"a": "b"}', False),
        ("{'a': 'b'}", '{"a": "b"}', False),
        ("5.0", "5", True),
        ("[NaN]", "[NaN]", True),  # not JSON, but the same text
    ],
)
def test_what_counts_as_the_same_answer(text: str, reference: str, same: bool) -> None:
    assert is_match(text, reference) is same


@given(TEXTS, st.sampled_from(["", " ", "\n", "\u00a0"]))
def test_equal_texts_match_in_every_score(text: str, blank: str) -> None:
    scores = score_answers([answer(blank + text + blank)], [text])
    assert scores["exact_match"].all() and scores["normalized_match"].all()
    assert scores["rouge_l"].tolist() == [1.0]


@given(TEXTS, TEXTS)
def test_a_match_is_mutual_unless_json_is_asked_for(text: str, reference: str) -> None:
    if not any(part.strip()[:1] in ("{", "[") for part in (text, reference)):
        assert is_match(text, reference) == is_match(reference, text)
    assert rouge_l(text, reference) == pytest.approx(rouge_l(reference, text))
    assert 0 <= rouge_l(text, reference) <= 1


@given(JSON, st.integers(0, 3))
def test_json_matches_whatever_its_order_and_blanks(value: Any, indent: int) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    written = json.dumps(turned(value), indent=indent)
    assert is_match(written, json.dumps(value, ensure_ascii=False))
    assert not is_match(json.dumps([value, "more"]), json.dumps([value]))


def test_json_is_scored_only_where_all_references_are_objects_or_arrays() -> None:
    texts = ['{"a": 1}', '{"a": 1', "7", "[" * 100_000, "[NaN]", "[" + "9" * 5_000 + "]"]
    answers = [answer(text) for text in texts]
    scores = score_answers(answers, ['{"a": 1}', "[]", "[1]", "[2]", "{}", "[]"])
    assert scores["json_valid"].tolist() == [True, *[False] * 5]
    assert "json_valid" not in score_answers(answers, ['{"a": 1}', "[]", "[1]", "2", "{}", "[]"])


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("I am sorry. " * 6, True),
        ("First this. " + "and then " * 7 + "and th", True),
        ("a" * 40, True),
        ("a" * 39, False),
        ("1000000", False),
        ("-" * 10, False),
        ("| --- | --- | --- | --- |", False),
        ("no " * 13, False),
        ("no " * 14, True),
        ("yes" + "\n" * 40, True),
        ("a sentence of some length. " * 3, False),
        ("a sentence of some length. " * 4, True),
        ("今天" * 20, True),
        ("", False),
        ("a text that says each thing once, and then another thing, and it ends.", False),
    ],
)
def test_what_is_a_loop(text: str, loops: bool) -> None:
    assert is_loop(text) is loops


@given(st.text(max_size=30), st.text(min_size=10, max_size=30), st.integers(4, 8))
def test_every_end_that_repeats_is_a_loop(start: str, piece: str, times: int) -> None:
    assert is_loop(start + f"<{piece}>" * times)


def test_a_loop_that_was_asked_for_is_none() -> None:
    assert score_answers([answer("la " * 30)], ["la " * 40])["repeated"].tolist() == [False]
    assert score_answers([answer("la " * 30)], ["la"])["repeated"].tolist() == [True]


def test_summary_has_the_mean_the_count_and_the_interval_of_each_score() -> None:
    answers = [
        answer("yes", 2),
        answer("Yes.", 4),
        answer("", 1),
        answer("no " * 40, 80, "length"),
        answer("perhaps", 3),
    ]
    result = summarize(score_answers(answers, ["yes"] * 5))
    assert result["examples"] == 5
    assert result["counts"] == {
        "exact_match": 1,
        "normalized_match": 2,
        "stopped": 4,
        "empty": 1,
        "repeated": 1,
    }
    assert all(result[name] == count / 5 for name, count in result["counts"].items())
    assert result["mean_tokens"] == 18 and result["rouge_l"] == pytest.approx(2 / 5)
    assert set(result["intervals"]) == set(result) - {"examples", "counts", "intervals"}
    assert all(low <= result[name] <= high for name, (low, high) in result["intervals"].items())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_no_rows_are_an_error_and_so_are_unequal_numbers() -> None:
    with pytest.raises(UserError, match="no answers to score"):
        summarize(score_answers([], []))
    with pytest.raises(ValueError, match="zip"):
        score_answers([answer("a")], [])
