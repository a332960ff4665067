"""The model before its training: the nearest class mean of the encoder's embeddings."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np

from tf_finetune.classification.config import Config
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem

# Of more rows a sample is embedded.
MOST_ROWS = 2_000


def embed(config: Config, problem: Problem, splits: Sequence[Examples]) -> list[np.ndarray]:
    """Returns the embeddings of rows by the encoder as it was before the run, float [n, hidden].

    Args:
        config: The run's configuration: its encoder, pooling and lengths.
        problem: The run's.
        splits: The rows.

    Raises:
        UserError: The encoder cannot be loaded.
    """
    import keras

    from tf_finetune.classification.classifier import build_classifier
    from tf_finetune.classification.load import load_run_encoder
    from tf_finetune.classification.predict import predict_rows
    from tf_finetune.runs.lora_config import LoraConfig
    from tf_finetune.runs.settings import replaced
    from tf_finetune.runtime.hardware import make_runtime
    from tf_finetune.training.forward import make_forward

    plain = replaced(config, head="linear", freeze="none", class_weights="none")
    with contextlib.redirect_stdout(io.StringIO()):
        runtime = make_runtime(plain.runtime)
        encoder = load_run_encoder(plain.encoder, LoraConfig())
        if encoder.has_new_pooler and plain.encoder.pooling == "pooled":
            # Random weights would say nothing of the encoder.
            plain = replaced(plain, pooling="mean")
        classifier = build_classifier(
            encoder,
            problem,
            plain.encoder,
            max_seq_length=config.data.max_seq_length,
            runtime=runtime,
        )
    pooled = classifier.model.get_layer("pooling").output
    outputs = keras.layers.Activation("linear", dtype="float32")(pooled)
    forward = make_forward(keras.Model(classifier.model.inputs, outputs), runtime)
    size = config.data.predict_batch_size
    return [predict_rows(forward, classifier.tokenize(rows), size) for rows in splits]


def nearest_mean(
    train: np.ndarray, labels: np.ndarray, rows: np.ndarray, problem: Problem
) -> np.ndarray:
    """Says for each row the class whose training embeddings have the nearest mean.

    Embeddings are scaled to length 1. Of several labels, each is said where the mean of the rows
    that have it is nearer than that of the rows without it; a number is learnt by ridge regression.

    Args:
        train: float [m, hidden].
        labels: Of these rows, as in `Examples`.
        rows: float [n, hidden].
        problem: What is said.

    Returns:
        1 for what is said, else 0, float [n, num_labels]; a regression's numbers, float [n].
    """
    train, rows = (
        part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
        for part in (train.astype(np.float64), rows.astype(np.float64))
    )
    if problem.problem_type == "regression":
        from sklearn.linear_model import Ridge

        return Ridge(alpha=1.0).fit(train, labels).predict(rows)
    if problem.problem_type == "multi_label":
        hot = labels > 0.5
        said = [_distance(train, has, rows) < _distance(train, ~has, rows) for has in hot.T]
        return np.stack(said, axis=1).astype(np.float64)
    distances = [_distance(train, labels == label, rows) for label in range(problem.num_outputs)]
    nearest = np.stack(distances, axis=1).argmin(axis=1)
    return (nearest[:, None] == np.arange(problem.num_outputs)).astype(np.float64)


def _distance(train: np.ndarray, chosen: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns the distance of rows from the mean of some training rows; infinite without any."""
    if not chosen.any():
        return np.full(len(rows), np.inf)
    return np.linalg.norm(rows - train[chosen].mean(axis=0), axis=1)
