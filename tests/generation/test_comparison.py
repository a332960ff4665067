"""Base and tuned side by side."""

import json
import re

import pytest

from tf_finetune.errors import UserError
from tf_finetune.generation.answers import Answer, Question
from tf_finetune.generation.comparison import (
    Evaluated,
    compare,
    comparison_samples,
    comparison_table,
)
from tf_finetune.generation.scores import rouge_l

ROWS = 40
QUESTIONS = [
    Question(({"role": "user", "content": f"question {row}"},), f"t.jsonl:{row + 1}", f"say {row}")
    for row in range(ROWS)
]
LOSSES = {"examples": ROWS, "answer_tokens": 1_234, "loss": 2.0, "perplexity": 7.389}


def evaluated(texts: list[str]) -> Evaluated:
    return Evaluated([Answer(text, 3, "stop", 0.1) for text in texts], LOSSES)


def right(row: int) -> str:
    return f"say {row}"


# The base says nothing right as it is; told the format 10 rows in other words; with examples 8 to
# the letter. The tuned model has 30 rows, but has lost rows 2 to 4, two of them nearly right.
COLUMNS = {
    "base": evaluated(["what?"] * ROWS),
    "base + prompt": evaluated(
        [f"Say {row}." if row < 10 else "say nothing about this at all" for row in range(ROWS)]
    ),
    "base + 2 examples": evaluated([right(row) if row < 8 else "say" for row in range(ROWS)]),
    "tuned": evaluated(
        [
            f"say {row} or more"
            if row in (2, 4)
            else right(row)
            if 5 <= row < 33 or row < 2
            else "no"
            for row in range(ROWS)
        ]
    ),
}


def test_each_score_is_compared_with_the_base_that_is_best_in_it() -> None:
    result = compare(QUESTIONS, COLUMNS, seed=3)
    assert result["best_base"] == "base + prompt"
    exact, match = result["paired"]["exact_match"], result["paired"]["normalized_match"]
    # Twice the probability of at most 3 of 28 throws.
    assert exact.pop("p_value") == pytest.approx(2 * (1 + 28 + 378 + 3_276) / 2**28)
    assert exact == {
        "base": "base + 2 examples",
        "both_right": 5,
        "only_base": 3,
        "only_tuned": 25,
        "both_wrong": 7,
    }
    assert match["base"] == "base + prompt"
    assert (match["both_right"], match["only_base"], match["only_tuned"]) == (7, 3, 23)
    rouge = result["paired"]["rouge_l"]
    assert rouge["base"] == "base + 2 examples"
    means = [
        sum(rouge_l(a.text, q.reference or "") for a, q in zip(c.answers, QUESTIONS, strict=True))
        for c in (COLUMNS["tuned"], COLUMNS["base + 2 examples"])
    ]
    assert rouge["difference"] == pytest.approx((means[0] - means[1]) / ROWS)
    assert rouge["interval"][0] < rouge["difference"] < rouge["interval"][1]
    assert result["columns"]["tuned"]["counts"]["exact_match"] == 30
    assert result["columns"]["base"]["loss"] == 2.0
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_earlier_of_equal_bases_is_the_best() -> None:
    columns = {"base": COLUMNS["base"], "base + prompt": COLUMNS["base"], "tuned": COLUMNS["tuned"]}
    assert compare(QUESTIONS, columns, seed=0)["best_base"] == "base"


def test_rows_are_chosen_by_seed_and_scores() -> None:
    samples = compare(QUESTIONS, COLUMNS, seed=3)["samples"]
    assert samples["seed"] == 3 and len(set(samples["random"])) == 8
    assert samples == compare(QUESTIONS, COLUMNS, seed=3)["samples"]
    assert samples["random"] != compare(QUESTIONS, COLUMNS, seed=4)["samples"]["random"]
    # Rows 2 to 4 the base had right; of the others row 33 is the first on which it says a word.
    assert samples["regressions"] == [3, 2, 4, 33]
    # Row 3 and those from 33 on have no word right, 2 and 4 have some.
    assert samples["worst"] == [3, 33, 34, 35]


def test_a_perfect_model_has_neither_worst_rows_nor_regressions() -> None:
    columns = {**COLUMNS, "tuned": evaluated([right(row).upper() for row in range(ROWS)])}
    compared = compare(QUESTIONS, columns, seed=3)
    assert compared["samples"]["worst"] == compared["samples"]["regressions"] == []
    assert "worst" not in comparison_samples(QUESTIONS, columns, compared)


def test_the_table_has_a_column_for_each_and_says_n_first() -> None:
    compared = compare(QUESTIONS, COLUMNS, seed=3)
    lines = comparison_table(compared).splitlines()
    cells = [re.split(r" {2,}", line) for line in lines]
    assert cells[0] == ["", *COLUMNS]
    assert cells[1] == ["examples", *["40"] * 4]
    assert cells[2] == ["answer tokens", *["1,234"] * 4]
    by_name = {line[0]: line[1:] for line in cells}
    assert by_name["loss"] == ["2.000"] * 4
    assert by_name["exact match"][-1] == "0.750 [0.598, 0.858]"
    assert by_name["mean tokens"][0] == "3.0 [3.0, 3.0]"
    assert set(by_name) >= {"normalized match", "ROUGE-L", "stopped", "empty", "repeated"}
    assert len({len(line) for line in lines[:9]}) <= 2 and max(map(len, lines)) <= 130
    assert lines[-4] == "Best base: base + prompt. On the same 40 rows:"
    assert "both right 7, only base 3, only tuned 23, both wrong 7 (McNemar p = " in lines[-2]


def test_a_model_alone_has_a_table_too() -> None:
    columns = {"tuned": Evaluated(COLUMNS["tuned"].answers, {})}
    compared = compare(QUESTIONS, columns, seed=3)
    assert compared["best_base"] is None and compared["paired"] is None
    assert comparison_table(compared).splitlines()[1].split() == ["examples", "40"]
    assert "regressions" not in comparison_samples(QUESTIONS, columns, compared)


def test_samples_show_the_best_base_beside_the_tuned_model() -> None:
    compared = compare(QUESTIONS, COLUMNS, seed=3)
    text = comparison_samples(QUESTIONS, COLUMNS, compared)
    assert text.startswith("8 random rows (seed 3):\nt.jsonl:")
    regressions = text.split("\n\n")[-1]
    assert regressions.startswith(
        "regressions (worse than base + prompt):\n"
        "t.jsonl:4\n"
        "  prompt         question 3\n"
        "  reference      say 3\n"
        "  base + prompt  Say 3.\n"
        "  tuned          no\n"
    )


def test_rows_without_a_reference_are_an_error() -> None:
    with pytest.raises(UserError, match=r"t\.jsonl:9: no answer to compare with"):
        compare([Question("a", "t.jsonl:9")], {"tuned": evaluated(["b"])}, seed=0)
    with pytest.raises(UserError, match="no answers to score"):
        compare([], {"tuned": evaluated([])}, seed=0)
