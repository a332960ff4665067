"""The losses of a language model against scipy and scikit-learn, token by token."""

import json
import math

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sk

from tf_finetune.errors import UserError
from tf_finetune.generation.metrics import (
    check_metric_name,
    greater_is_better,
    loss_metrics,
    metric_names,
)


def test_losses_are_those_of_all_tokens_together() -> None:
    random = np.random.default_rng(3)
    lengths, vocabulary = [1, 5, 40], 11
    logits = [random.normal(0, 2, (length, vocabulary)) for length in lengths]
    right = [random.integers(vocabulary, size=length) for length in lengths]
    rows = [
        special.log_softmax(part, axis=1)[np.arange(len(ids)), ids]
        for part, ids in zip(logits, right, strict=True)
    ]
    text_bytes = np.array([0, 17, 120])
    result = loss_metrics(
        np.array([row.sum() for row in rows], np.float32),
        np.array(lengths),
        np.array([(part.argmax(1) == ids).sum() for part, ids in zip(logits, right, strict=True)]),
        text_bytes,
    )
    shares = special.softmax(np.concatenate(logits), axis=1)
    all_right = np.concatenate(right)
    loss = sk.log_loss(all_right, shares, labels=range(vocabulary))
    assert result == {
        "examples": 3,
        "answer_tokens": 46,
        "loss": pytest.approx(loss, rel=1e-6),
        "perplexity": pytest.approx(math.exp(loss), rel=1e-6),
        # The bits of a perfect code for all answers, over the bytes of their texts.
        "bits_per_byte": pytest.approx(-np.log2(np.exp(np.concatenate(rows))).sum() / 137, 1e-6),
        "token_accuracy": pytest.approx(sk.accuracy_score(all_right, shares.argmax(1))),
    }
    assert list(result)[2:] == list(metric_names(generates=False))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    result = loss_metrics(
        np.array([-4 * math.log(256)]), np.array([4]), np.array([0]), np.array([4])
    )
    assert result["perplexity"] == pytest.approx(256)
    assert result["bits_per_byte"] == pytest.approx(8)
    assert result["token_accuracy"] == 0


def test_bits_per_byte_is_undefined_without_bytes() -> None:
    result = loss_metrics(np.array([-1.0]), np.array([1]), np.array([1]), np.array([0]))
    assert result["bits_per_byte"] is None and result["loss"] == 1


def test_nothing_to_evaluate_is_an_error() -> None:
    empty = np.zeros(0)
    with pytest.raises(UserError, match="no answer tokens"):
        loss_metrics(empty, empty, empty, empty)
    with pytest.raises(UserError, match="no answer tokens"):
        loss_metrics(np.zeros(2), np.zeros(2, int), np.zeros(2, int), np.ones(2, int))


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf, -1e6])
def test_a_model_that_has_diverged_is_an_error(bad: float) -> None:
    rows = np.array([-1.0, bad, -2.0], np.float32)
    with pytest.raises(UserError, match=r"of [01] of 3 rows is not finite: the model has diverged"):
        loss_metrics(rows, np.full(3, 2), np.ones(3, int), np.full(3, 5))


def test_less_is_better_for_what_is_a_loss() -> None:
    worse = [name for name in metric_names(generates=True) if not greater_is_better(name)]
    assert worse == ["loss", "perplexity", "bits_per_byte"]


def test_names_of_metrics_are_checked() -> None:
    for name in metric_names(generates=True):
        check_metric_name(name, generates=True)
    with pytest.raises(UserError, match=r"=f1: no such .*Allowed are loss, perplexity, .*rouge_l"):
        check_metric_name("f1", generates=True)
    with pytest.raises(UserError, match=r"not generated\. Allowed are loss, p"):
        check_metric_name("exact_match", generates=False)
