"""Intervals and tests against published values and formulas written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_finetune.generation.significance import bootstrap_interval, mcnemar, wilson_interval


# Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
@pytest.mark.parametrize(
    ("count", "examples", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_one(count: int, examples: int, low: float, high: float) -> None:
    assert wilson_interval(count, examples) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_its_equation(counts: tuple[int, int]) -> None:
    count, examples = counts
    share, z = count / examples, 1.959963984540054
    low, high = wilson_interval(count, examples)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    # Each end lies z standard errors, its own, from the share.
    for end in (low, high):
        distance = z * math.sqrt(end * (1 - end) / examples)
        assert abs(share - end) == pytest.approx(distance, abs=1e-7)


def test_mcnemar_is_the_published_one() -> None:
    # Fagerland, Lydersen and Laake (2013), table 2: 1 and 7 discordant pairs, exact p = 0.070.
    base = np.array([True] * 1 + [True] * 7 + [False] * 1 + [False] * 12)
    tuned = np.array([True] * 1 + [False] * 7 + [True] * 1 + [False] * 12)
    result = mcnemar(base, tuned)
    assert result.pop("p_value") == pytest.approx(0.0703, abs=5e-5)
    assert result == {"both_right": 1, "only_base": 7, "only_tuned": 1, "both_wrong": 12}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_counts_every_row_and_is_symmetric(rows: list[tuple[bool, bool]]) -> None:
    base, tuned = np.array(rows).T
    result, swapped = mcnemar(base, tuned), mcnemar(tuned, base)
    names = ("both_right", "only_base", "only_tuned", "both_wrong")
    assert sum(result[name] for name in names) == len(rows)
    assert result["p_value"] == pytest.approx(swapped["p_value"])
    # The binomial tails summed by hand.
    few = min(result["only_base"], result["only_tuned"])
    unequal = int(result["only_base"] + result["only_tuned"])
    tail = sum(math.comb(unequal, k) for k in range(int(few) + 1)) / 2**unequal
    assert result["p_value"] == pytest.approx(min(1.0, 2 * tail))


def test_bootstrap_is_near_the_normal_interval_and_repeats_itself() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 400)
    low, high = bootstrap_interval(values, seed=2)
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    assert bootstrap_interval(values, seed=2) == (low, high)
    assert bootstrap_interval(values, seed=3) != (low, high)


def test_bootstrap_covers_the_mean_in_some_95_of_100_samples() -> None:
    random = np.random.default_rng(5)
    samples = [random.normal(1.0, 1.0, 100) for _ in range(100)]
    covered = sum(low <= 1 <= high for low, high in map(bootstrap_interval, samples))
    assert 89 <= covered <= 99


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap_interval(np.full(7, 0.25)) == (0.25, 0.25)
