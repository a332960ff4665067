"""Scores from weights of rows: those of scikit-learn and scipy, and how sure they are."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from tf_finetune.experiments.calibration import coverage, precision_recall, reliability
from tf_finetune.experiments.confusion import similar_together
from tf_finetune.experiments.judged import SCORES, Judged, difference, interval, score

# Of the numbers of 1,000 resamples only about so many digits are sure.
CHANCE = 0.02


def single(rows: int = 300, labels: int = 5, seed: int = 0) -> Judged:
    random = np.random.default_rng(seed)
    truth = random.integers(labels, size=rows)
    predicted = np.where(random.random(rows) < 0.6, truth, random.integers(labels, size=rows))
    return Judged("single_label", truth, predicted)


def multi(rows: int = 200, labels: int = 4, seed: int = 0) -> Judged:
    random = np.random.default_rng(seed)
    truth = random.random((rows, labels)) < 0.3
    return Judged("multi_label", truth, truth ^ (random.random((rows, labels)) < 0.2))


def numbers(rows: int = 200, seed: int = 0) -> Judged:
    random = np.random.default_rng(seed)
    truth = random.integers(1, 9, rows).astype(float)  # with ties
    return Judged("regression", truth, np.round(truth + random.normal(0, 2, rows)))


def repeated(rows: Judged, weights: np.ndarray) -> Judged:
    return rows.take(np.repeat(np.arange(len(rows)), weights))


EXPECTED = {
    "accuracy": metrics.accuracy_score,
    "macro_f1": lambda t, p: metrics.f1_score(t, p, average="macro", zero_division=0),
    "micro_f1": lambda t, p: metrics.f1_score(t, p, average="micro", zero_division=0),
    "matthews_correlation": metrics.matthews_corrcoef,
    "f1": metrics.f1_score,
    "pearson": lambda t, p: stats.pearsonr(t, p).statistic,
    "spearman": lambda t, p: stats.spearmanr(t, p).statistic,
    "mean_squared_error": metrics.mean_squared_error,
}


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        *((name, single()) for name in ("accuracy", "macro_f1", "matthews_correlation")),
        *((name, multi()) for name in ("accuracy", "macro_f1", "micro_f1")),
        *((name, numbers()) for name in ("pearson", "spearman", "mean_squared_error")),
        ("f1", single(labels=2)),
        ("accuracy", single(labels=77)),
        ("macro_f1", single(rows=90, labels=77)),
    ],
)
def test_scores_are_scikit_learns_of_all_rows_and_of_resamples(name, rows):
    expected = EXPECTED[name]
    assert score(rows, name) == pytest.approx(expected(rows.truth, rows.predicted), abs=1e-12)
    weights = np.random.default_rng(1).integers(4, size=(3, len(rows)))
    found = SCORES[name](rows, weights.astype(float))
    for drawn, value in zip(weights, found, strict=True):
        again = repeated(rows, drawn)
        assert value == pytest.approx(expected(again.truth, again.predicted), abs=1e-9)


def test_what_is_undefined_is_0():
    equal = Judged("regression", np.array([1.5, 1.5, 1.5]), np.array([1e6, 2e6, 3e6]))
    assert score(equal, "pearson") == 0 and score(equal, "spearman") == 0
    one = Judged("single_label", np.array([0, 0]), np.array([0, 0]))
    assert score(one, "matthews_correlation") == 0 and score(one, "f1") == 0
    assert score(one, "accuracy") == 1


def test_wilson_is_as_by_hand():
    rows = Judged("single_label", np.zeros(10, int), np.array([0] * 8 + [1] * 2))
    z = stats.norm.ppf(0.975)
    middle, spread = 0.8 + z**2 / 20, z * (0.8 * 0.2 / 10 + z**2 / 400) ** 0.5
    expected = [(middle - spread) / (1 + z**2 / 10), (middle + spread) / (1 + z**2 / 10)]
    assert interval(rows, "accuracy") == pytest.approx(expected)


def test_a_bootstrap_of_a_mean_is_the_normal_one():
    rows = numbers(rows=2_000)
    errors = (rows.truth - rows.predicted) ** 2
    low, high = interval(rows, "mean_squared_error")
    spread = 1.96 * errors.std() / 2_000**0.5
    assert (low, high) == pytest.approx(
        (errors.mean() - spread, errors.mean() + spread), rel=CHANCE
    )
    # Of a correlation by Fisher's transformation; these numbers are not quite normal.
    low, high = interval(rows, "pearson")
    middle, width = np.arctanh(score(rows, "pearson")), 1.96 / (2_000 - 3) ** 0.5
    assert (low, high) == pytest.approx(
        tuple(np.tanh([middle - width, middle + width])), rel=CHANCE
    )


def test_a_difference_is_paired():
    ours, theirs = single(), single()
    assert difference(ours, theirs, "macro_f1")["interval"] == [0, 0]
    wrong = (theirs.predicted + (np.arange(300) < 9) * theirs.right) % 5
    found = difference(ours, Judged("single_label", theirs.truth, wrong), "accuracy")
    lost = int((theirs.right[:9]).sum())
    assert found["mcnemar"]["only_tuned"] == lost and found["mcnemar"]["only_base"] == 0
    assert found["mcnemar"]["p_value"] == pytest.approx(min(1, 2 * 0.5**lost))
    assert found["difference"] == pytest.approx(lost / 300)
    assert 0 <= found["interval"][0] < found["difference"] < found["interval"][1]
    assert "mcnemar" not in difference(numbers(), numbers(), "pearson")


def test_reliability_is_as_by_hand():
    sure = np.array([0.95, 0.95, 0.55, 0.65])
    right = np.array([True, False, True, True])
    truth = np.where(right, 0, 1)
    rows = Judged("single_label", truth, np.zeros(4, int), np.stack([sure, 1 - sure], axis=1))
    found = reliability(rows)
    assert [(b["predictions"], b["right"]) for b in found["bins"]] == [(1, 1), (1, 1), (2, 0.5)]
    expected = (0.45 + 0.35 + 2 * 0.45) / 4
    assert found["expected_calibration_error"] == pytest.approx(expected)


def test_coverage_is_as_by_hand():
    sure = np.array([0.9, 0.6, 0.8, 0.8, 0.55])
    right = np.array([True, False, True, False, True])
    shares = np.stack([sure, 1 - sure], axis=1)
    rows = Judged("single_label", np.where(right, 0, 1), np.zeros(5, int), shares)
    found = coverage(rows, 0.7)
    # Two rows are equally sure: both are answered or none.
    assert found["coverage"] == pytest.approx([0.2, 0.6, 0.8, 1.0])
    assert found["accuracy"] == pytest.approx([1, 2 / 3, 0.5, 0.6])
    own, *others = found["choices"]
    assert own == {"reject_below": 0.7, "coverage": 0.6, "accuracy": pytest.approx(2 / 3)}
    for part in others:  # What is told to be typed does what is told.
        answered = sure >= part["reject_below"]
        assert part["coverage"] == answered.mean()
        assert part["accuracy"] == pytest.approx(right[answered].mean())
    assert [part["coverage"] for part in others] == [1.0, 1.0, 0.8, 0.8, 0.6]
    nobody = coverage(rows, 0.95)["choices"][0]
    assert nobody == {"reject_below": 0.95, "coverage": 0.0, "accuracy": None}


def test_average_precision_is_scikit_learns():
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(3), 500)
    rows = Judged("single_label", random.integers(3, size=500), shares.argmax(axis=1), shares)
    found = precision_recall(rows)
    hot = rows.truth[:, None] == np.arange(3)
    expected = metrics.average_precision_score(hot, shares, average="micro")
    assert found["average_precision"] == pytest.approx(expected) and len(found["recall"]) <= 200


def test_labels_that_are_confused_stand_together():
    counts = np.diag(np.full(8, 50))
    for one, other in ((0, 5), (5, 2), (1, 7)):
        counts[one, other] = counts[other, one] = 20
    order = similar_together(counts)
    assert sorted(order) == list(range(8))
    places = {label: place for place, label in enumerate(order)}
    assert all(abs(places[a] - places[b]) == 1 for a, b in ((0, 5), (5, 2), (1, 7)))
    assert similar_together(np.diag([3, 4, 5])) == [0, 1, 2]
    assert similar_together(np.array([[3, 1], [1, 3]])) == [0, 1]
