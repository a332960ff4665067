"""A model's metrics on a dataset."""

from typing import Any

import keras
import tensorflow as tf

from tf_finetune.classification.metrics import compute_metrics
from tf_finetune.data.tasks import Problem
from tf_finetune.training.forward import LogitsFn, make_logits_fn, predict_logits

__all__ = ["LogitsFn", "evaluate", "make_logits_fn", "predict_logits"]


def evaluate(
    model: keras.Model | LogitsFn,
    dataset: tf.data.Dataset,
    problem: Problem,
    *,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Computes a model's metrics over all rows of a dataset, each counted once.

    Args:
        model: The model, or its function from `make_logits_fn`: pass that one where the same
            model is evaluated often, or where it lives under a distribution strategy.
        dataset: Batches (features, labels, weights), as of `make_eval_dataset`; rows of weight 0
            fill a batch up and do not count.
        problem: What the model has learnt.
        threshold: See `compute_metrics`.

    Returns:
        See `compute_metrics`. The batch size changes nothing.

    Raises:
        UserError: The dataset is empty, or the model's outputs are not finite.
    """
    logits, labels = predict_logits(model, dataset)
    return compute_metrics(logits, labels, problem, threshold=threshold)
