"""Every metric against scikit-learn, scipy and formulas written out in numpy."""

import dataclasses
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sk

from tf_finetune.classification.metrics import (
    check_metric_name,
    choose_labels,
    collapse_warning,
    compute_metrics,
    greater_is_better,
    metric_names,
    probabilities,
)
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError

BINARY = Problem("single_label", ("text",), ("no", "yes"))
FIVE = Problem("single_label", ("text",), ("a", "b", "c", "d", "e"))
MULTI = Problem("multi_label", ("text",), ("joy", "anger", "fear", "love"))
REGRESSION = Problem("regression", ("a", "b"))


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def random_case(problem: Problem, rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    logits = random.normal(0, 2, (rows, problem.num_outputs)).astype(np.float32)
    if problem.problem_type == "regression":
        return logits, (logits[:, 0] + random.normal(0, 1, rows)).astype(np.float32)
    if problem.problem_type == "multi_label":
        truth = random.random(logits.shape) < special.expit(logits / 2)
        return logits, truth.astype(np.float32)
    noisy = logits + random.gumbel(0, 2, logits.shape)
    return logits, noisy.argmax(axis=1).astype(np.int32)


def close(value: float, expected: float) -> None:
    assert value == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("problem", [BINARY, FIVE, MULTI, REGRESSION])
def test_names_are_those_computed_and_ready_for_json(problem: Problem) -> None:
    result = compute_metrics(*random_case(problem), problem)
    assert set(result) - {"per_class", "examples"} == set(metric_names(problem))
    assert result["examples"] == 200
    assert ("per_class" in result) == (problem.problem_type != "regression")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(type(result[name]) is float for name in metric_names(problem))


@pytest.mark.parametrize("problem", [BINARY, FIVE])
def test_single_label_equals_sklearn(problem: Problem) -> None:
    logits, labels = random_case(problem)
    shares = special.softmax(logits.astype(np.float64), axis=1)
    predicted = logits.argmax(axis=1)
    result = compute_metrics(logits, labels, problem)
    close(result["loss"], sk.log_loss(labels, shares))
    close(result["accuracy"], sk.accuracy_score(labels, predicted))
    close(result["macro_f1"], sk.f1_score(labels, predicted, average="macro"))
    close(result["micro_f1"], sk.f1_score(labels, predicted, average="micro"))
    close(result["matthews_correlation"], sk.matthews_corrcoef(labels, predicted))
    if problem is BINARY:
        close(result["f1"], sk.f1_score(labels, predicted))
        close(result["precision"], sk.precision_score(labels, predicted))
        close(result["recall"], sk.recall_score(labels, predicted))
        close(result["roc_auc"], sk.roc_auc_score(labels, shares[:, 1]))
    else:
        auc = sk.roc_auc_score(labels, shares, multi_class="ovr", average="macro")
        close(result["roc_auc"], auc)
    report = sk.classification_report(
        labels, predicted, target_names=problem.label_names, output_dict=True
    )
    for name in problem.label_names:
        ours, theirs = result["per_class"][name], report[name]
        assert ours["support"] == theirs["support"]
        for ours_key, theirs_key in [
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
        ]:
            close(ours[ours_key], theirs[theirs_key])


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_multi_label_equals_sklearn(threshold: float) -> None:
    logits, labels = random_case(MULTI)
    shares = special.expit(logits.astype(np.float64))
    predicted = (shares >= threshold).astype(int)
    problem = dataclasses.replace(MULTI, threshold=threshold)
    result = compute_metrics(logits, labels, problem)
    close(
        result["loss"],
        np.mean([sk.log_loss(y, p) for y, p in zip(labels.T, shares.T, strict=True)]),
    )
    close(result["accuracy"], sk.accuracy_score(labels, predicted))
    close(result["micro_f1"], sk.f1_score(labels, predicted, average="micro"))
    close(result["macro_f1"], sk.f1_score(labels, predicted, average="macro"))
    close(result["roc_auc"], sk.roc_auc_score(labels, shares, average="macro"))
    scores = sk.precision_recall_fscore_support(labels, predicted)
    for name, *expected in zip(MULTI.label_names, *scores, strict=True):
        assert list(result["per_class"][name].values()) == pytest.approx(expected)


def test_regression_equals_scipy() -> None:
    logits, labels = random_case(REGRESSION)
    result = compute_metrics(logits, labels, REGRESSION)
    close(result["pearson"], stats.pearsonr(logits[:, 0], labels).statistic)
    close(result["spearman"], stats.spearmanr(logits[:, 0], labels).statistic)
    close(result["mean_squared_error"], sk.mean_squared_error(labels, logits[:, 0].astype(float)))
    assert result["loss"] == result["mean_squared_error"]


def test_formulas_by_hand() -> None:
    """Three rows that can be counted on paper: one hit, one false alarm, one miss of "yes"."""
    logits = np.array([[0, 2], [0, 1], [3, 0]], np.float32)
    result = compute_metrics(logits, np.array([1, 0, 1]), BINARY)
    assert result["accuracy"] == result["micro_f1"] == pytest.approx(1 / 3)
    assert result["precision"] == result["recall"] == result["f1"] == 0.5
    assert result["macro_f1"] == 0.25
    loss = np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(1)), np.log1p(np.exp(3))])
    assert result["loss"] == pytest.approx(loss)
    # tp tn fp fn = 1 0 1 1
    assert result["matthews_correlation"] == pytest.approx((1 * 0 - 1 * 1) / np.sqrt(2 * 2 * 1 * 1))
    # Of the pairs (positive, negative), (2, 1) is in order and (-3, 1) is not.
    assert result["roc_auc"] == 0.5

    values = np.array([[1.0], [2.0], [4.0]], np.float32)
    result = compute_metrics(values, np.array([1.0, 3.0, 2.0], np.float32), REGRESSION)
    assert result["mean_squared_error"] == pytest.approx((0 + 1 + 4) / 3)
    assert result["spearman"] == pytest.approx(1 - 6 * (0 + 1 + 1) / (3 * 8))


@pytest.mark.parametrize("problem", [BINARY, FIVE])
def test_one_class_predicted(problem: Problem) -> None:
    logits = np.zeros((6, problem.num_outputs), np.float32)
    logits[:, 0] = 1
    labels = np.array([0, 1, 0, 1, 1, 0])
    result = compute_metrics(logits, labels, problem)
    assert result["matthews_correlation"] == 0.0
    assert result["accuracy"] == 0.5
    assert result["roc_auc"] == 0.5
    second = result["per_class"][problem.label_names[1]]
    assert second == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 3}


def test_macro_f1_is_over_the_labels_that_occur_or_are_predicted() -> None:
    labels, predicted = np.array([0, 1, 0, 1]), np.array([0, 1, 4, 4])
    logits = np.eye(5, dtype=np.float32)[predicted]
    result = compute_metrics(logits, labels, FIVE)
    close(result["macro_f1"], sk.f1_score(labels, predicted, average="macro"))
    close(result["macro_f1"], (2 / 3 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("problem", [BINARY, FIVE])
def test_one_class_in_the_labels(problem: Problem) -> None:
    logits, _ = random_case(problem)
    result = compute_metrics(logits, np.zeros(len(logits), np.int32), problem)
    assert result["roc_auc"] is None
    assert result["matthews_correlation"] == 0.0
    json.dumps(result, allow_nan=False)


def test_multi_label_with_empty_columns() -> None:
    logits, labels = random_case(MULTI)
    labels[:, 0] = 0
    logits[:, 0] = -5
    result = compute_metrics(logits, labels, MULTI)
    assert result["per_class"]["joy"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    predicted = logits >= 0
    macro = sk.f1_score(labels, predicted, average="macro", zero_division=0)
    close(result["macro_f1"], macro)
    close(result["roc_auc"], sk.roc_auc_score(labels[:, 1:], logits[:, 1:]))
    nothing = compute_metrics(logits, np.zeros_like(labels), MULTI)
    assert nothing["roc_auc"] is None
    assert nothing["micro_f1"] == 0.0


def test_a_single_label_of_multi_label_is_not_taken_for_two_classes() -> None:
    problem = Problem("multi_label", ("text",), ("spam",))
    result = compute_metrics(np.array([[1.0], [-1.0], [-1.0]]), np.array([[1], [1], [0]]), problem)
    assert result["per_class"] == {
        "spam": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    }
    assert result["macro_f1"] == result["micro_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("case", ["predictions", "labels", "one row"])
def test_correlations_that_are_not_defined_are_none(case: str) -> None:
    logits, labels = random_case(REGRESSION, rows=1 if case == "one row" else 9)
    if case == "predictions":
        logits[:] = 2.5
    if case == "labels":
        labels[:] = 0.1
    result = compute_metrics(logits, labels, REGRESSION)
    assert result["pearson"] is result["spearman"] is None
    close(result["mean_squared_error"], sk.mean_squared_error(labels, logits[:, 0].astype(float)))


def test_extreme_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    assert compute_metrics(logits, np.array([0, 1]), BINARY)["loss"] == 0.0
    assert compute_metrics(logits, np.array([1, 0]), BINARY)["loss"] == 2e4
    np.testing.assert_array_equal(probabilities(logits, BINARY), np.eye(2))
    multi = Problem("multi_label", ("text",), ("x", "y"))
    np.testing.assert_array_equal(probabilities(logits, multi), np.eye(2))
    assert compute_metrics(logits, np.eye(2), multi)["loss"] == 0.0


@pytest.mark.parametrize("problem", [BINARY, FIVE, MULTI])
def test_probabilities_equal_scipy(problem: Problem) -> None:
    logits, _ = random_case(problem)
    function = special.expit if problem is MULTI else lambda x: special.softmax(x, axis=1)
    shares = probabilities(logits, problem)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares, function(logits.astype(np.float64)), rtol=1e-6)


def test_threshold_itself_counts() -> None:
    shares = np.array([[0.3, 0.29999998, 0.30000004, 0.0]], np.float32)
    chosen = choose_labels(shares, dataclasses.replace(MULTI, threshold=0.3))
    assert chosen.tolist() == [[True, False, True, False]]
    each = dataclasses.replace(MULTI, thresholds=(0.5, 0.1, 0.3, 0.9))
    assert choose_labels(shares, each).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("problem", [BINARY, FIVE, MULTI, REGRESSION])
def test_order_of_rows_changes_nothing(problem: Problem) -> None:
    logits, labels = random_case(problem)
    order = np.random.default_rng(3).permutation(len(logits))
    first: Any = compute_metrics(logits, labels, problem)
    second: Any = compute_metrics(logits[order], labels[order], problem)
    for name in metric_names(problem):
        assert first[name] == pytest.approx(second[name], rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_diverged_model(value: float) -> None:
    logits, labels = random_case(BINARY)
    logits[3, 1] = value
    with pytest.raises(UserError, match=r"not finite in 1 of 200 rows.*--learning_rate"):
        compute_metrics(logits, labels, BINARY)


def unlabelled(problem: Problem, labels: np.ndarray) -> np.ndarray:
    """Labels of which those of every third row are not known."""
    labels = labels.copy()
    labels[::3] = -1 if problem.problem_type == "single_label" else np.nan
    return labels


@pytest.mark.parametrize("problem", [BINARY, FIVE, MULTI, REGRESSION])
def test_rows_whose_label_is_not_known_do_not_count(problem: Problem) -> None:
    logits, labels = random_case(problem)
    known = np.arange(len(labels)) % 3 > 0
    result = compute_metrics(logits, unlabelled(problem, labels), problem)
    assert result == compute_metrics(logits[known], labels[known], problem)
    assert result["examples"] == known.sum() == 133
    with pytest.raises(UserError, match="no rows to evaluate whose label is known"):
        compute_metrics(logits[~known], unlabelled(problem, labels)[~known], problem)


def test_a_collapse_is_seen_in_rows_whose_label_is_known() -> None:
    logits = np.array([[1, 2], [2, 1], [2, 1]], np.float32)
    assert collapse_warning(logits, np.array([0, 1, 0]), BINARY) is None
    assert "2 rows is predicted 'no'" in str(collapse_warning(logits, np.array([-1, 1, 0]), BINARY))
    assert collapse_warning(logits, np.array([-1, -1, -1]), BINARY) is None
    labels = np.array([[np.nan] * 4, [0, 0, 0, 1], [0, 0, 1, 0]])
    logits = np.array([[3.0] * 4, [-3.0] * 4, [-3.0] * 4])
    assert "2 rows is predicted no label" in str(collapse_warning(logits, labels, MULTI))


def test_no_rows() -> None:
    with pytest.raises(UserError, match="no rows"):
        compute_metrics(np.zeros((0, 2)), np.zeros(0), BINARY)


def test_which_is_better() -> None:
    for problem in (BINARY, FIVE, MULTI, REGRESSION):
        less = {name for name in metric_names(problem) if not greater_is_better(name)}
        assert less == {"loss", "mean_squared_error"} & set(metric_names(problem))


def test_metric_name_is_checked() -> None:
    for problem in (BINARY, FIVE, MULTI, REGRESSION):
        for name in metric_names(problem):
            check_metric_name(name, problem)
    with pytest.raises(UserError, match=r"f1: no such metric for single_label with 5.*macro_f1"):
        check_metric_name("f1", FIVE)
    with pytest.raises(UserError, match=r"accuracy: no such metric for regression\. .*pearson"):
        check_metric_name("accuracy", REGRESSION)
    with pytest.raises(UserError):
        check_metric_name("per_class", BINARY)


@pytest.mark.parametrize(
    ("problem", "logits", "labels", "complaint"),
    [
        (BINARY, [[2.0, 1.0]] * 3, [0, 1, 0], "every one of 3 rows is predicted 'no'.*rate"),
        (BINARY, [[2.0, 1.0], [1.0, 2.0]], [0, 1], None),
        (BINARY, [[2.0, 1.0]] * 3, [0, 0, 0], None),
        (MULTI, [[-3.0] * 4] * 2, [[1, 0, 0, 0], [0, 0, 1, 0]], "predicted no label.*--threshold"),
        (MULTI, [[3.0, -3, 3, -3]] * 2, [[1, 0, 0, 0], [0, 0, 1, 0]], "predicted joy, fear"),
        (MULTI, [[-3.0] * 4, [3.0] * 4], [[1, 0, 0, 0], [0, 0, 1, 0]], None),
        (REGRESSION, [[1.0]] * 2, [1.0, 2.0], None),
    ],
)
def test_predictions_of_one_class_are_warned_of(problem, logits, labels, complaint) -> None:
    warning = collapse_warning(np.array(logits, np.float32), np.array(labels), problem)
    assert (warning is None) == (complaint is None)
    assert complaint is None or re.search(complaint, warning)
