"""Metrics of a language model from the log-probabilities of its answer tokens."""

import math
from typing import Any

import numpy as np

from tf_finetune.errors import UserError

_LESS_IS_BETTER = ("loss", "perplexity", "bits_per_byte")
_LOSSES = ("loss", "perplexity", "bits_per_byte", "token_accuracy")
# What there is to choose by, beside generated answers.
_GIVEN = {"sft": _LOSSES, "dpo": ("loss", "reward_accuracy", "reward_margin")}
_GENERATED = ("exact_match", "normalized_match", "rouge_l", "stopped")


def metric_names(generates: bool, method: str = "sft") -> tuple[str, ...]:
    """Returns the names of the numbers by which the best checkpoint can be chosen.

    Args:
        generates: Whether evaluations generate answers too.
        method: What is learnt, `sft` or `dpo`.
    """
    return (*_GIVEN[method], *(_GENERATED if generates else ()))


def is_generated(name: str) -> bool:
    """Returns whether a metric needs answers to be generated."""
    return name in _GENERATED


def greater_is_better(name: str) -> bool:
    """Returns whether a greater value of this metric is better."""
    return name not in _LESS_IS_BETTER


def check_metric_name(name: str, generates: bool, method: str = "sft") -> None:
    """Checks that `metric_for_best_model` is a metric of the evaluations.

    Raises:
        UserError: There is no such metric; the message lists those there are.
    """
    allowed = metric_names(generates, method)
    if name not in allowed:
        needs = " where answers are not generated" if name in _GENERATED else ""
        needs = needs or (f" with --method={method}" if method != "sft" else "")
        raise UserError(
            f"--metric_for_best_model={name}: no such metric of a language model{needs}. "
            f"Allowed are {', '.join(allowed)}."
        )


def loss_metrics(
    log_probabilities: np.ndarray, tokens: np.ndarray, hits: np.ndarray, text_bytes: np.ndarray
) -> dict[str, Any]:
    """Computes the metrics of answers whose right tokens were given.

    Each token counts once, so that long answers count more than short ones.

    Args:
        log_probabilities: Float [n], the sum over the answer tokens of a row, end token included,
            in nats.
        tokens: int [n], the number of these tokens.
        hits: int [n], how many of them were the most probable token.
        text_bytes: int [n], the UTF-8 bytes of the answers' texts.

    Returns:
        `examples` and `answer_tokens`; `loss` (nats a token), `perplexity`, `token_accuracy`; and
        `bits_per_byte`, which unlike the loss compares models of different tokenizers; None if
        all texts are empty.

    Raises:
        UserError: There is no answer token, or a sum is not finite.
    """
    total = int(tokens.sum())
    if not total:
        raise UserError(
            "There are no answer tokens to evaluate. Check the file, --max_seq_length and "
            "--max_eval_samples."
        )
    nats = -float(log_probabilities.sum(dtype=np.float64))
    loss = nats / total
    # The perplexity of a greater loss is no float.
    if not (math.isfinite(loss) and loss < math.log(np.finfo(np.float64).max)):
        rows = int((~np.isfinite(log_probabilities)).sum())
        raise UserError(
            f"The loss is {loss:.4g}, and that of {rows} of {len(tokens)} rows is not finite: the "
            "model has diverged. Train with a lower --learning_rate, or with --precision=float32."
        )
    size = int(text_bytes.sum())
    return {
        "examples": len(tokens),
        "answer_tokens": total,
        "loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": nats / math.log(2) / size if size else None,
        "token_accuracy": int(hits.sum()) / total,
    }


def preference_metrics(
    log_probabilities: np.ndarray, reference: np.ndarray, beta: float
) -> dict[str, Any]:
    """Computes the metrics of pairs of a chosen and a rejected answer.

    A reward is what an answer has gained since the training began: beta times the change of its
    log-probability, in nats.

    Args:
        log_probabilities: Float [n, 2], of the chosen and the rejected answers.
        reference: Float [n, 2], the same before the training.
        beta: See `PreferenceLoss`.

    Returns:
        `examples`; `loss`, see `PreferenceLoss`; `reward_accuracy`, the share of pairs whose chosen
        answer has the greater reward; the means of `reward_margin` (chosen less rejected),
        `reward_chosen`, `reward_rejected`, and of the log-probabilities, `logps_chosen` and
        `logps_rejected`.

    Raises:
        UserError: A log-probability is not finite.
    """
    rows = int((~np.isfinite(log_probabilities)).any(axis=1).sum())
    if rows:
        raise UserError(
            f"The log-probabilities of {rows} of {len(reference)} pairs are not finite: the model "
            "has diverged. Train with a lower --learning_rate, or with --precision=float32."
        )
    rewards = beta * (log_probabilities.astype(np.float64) - reference)
    margins = rewards[:, 0] - rewards[:, 1]
    means = {
        "loss": np.logaddexp(0.0, -margins),
        "reward_accuracy": margins > 0,
        "reward_margin": margins,
        "reward_chosen": rewards[:, 0],
        "reward_rejected": rewards[:, 1],
        "logps_chosen": log_probabilities[:, 0],
        "logps_rejected": log_probabilities[:, 1],
    }
    values = {name: float(np.mean(value, dtype=np.float64)) for name, value in means.items()}
    return {"examples": len(reference), **values}


def warn_of_chosen(metrics: dict[str, Any], beta: float) -> str | None:
    """Returns a warning if the chosen answers have become less probable; None if not.

    The loss looks at the difference to the rejected ones only: a model that makes both improbable
    answers with something third.

    Args:
        metrics: From `preference_metrics`.
        beta: See `PreferenceLoss`.
    """
    change = metrics["reward_chosen"] / beta
    if change >= 0:
        return None
    return (
        f"warning: the chosen answers are less probable than before the training: their "
        f"log-probability has fallen by {-change:.2f} nats on average, to "
        f"{metrics['logps_chosen']:.2f}. A lower --learning_rate, a greater --beta or fewer steps "
        "hold the model to where it began."
    )
