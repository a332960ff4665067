"""What an answer of a model costs, asked in raw texts as its users ask it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.classification.classifier import Classifier
from tf_finetune.classification.export import text_logits
from tf_finetune.classification.metrics import compute_metrics, greater_is_better
from tf_finetune.classification.model import merge_adapters
from tf_finetune.data.labelled import Examples
from tf_finetune.data.problem import Problem
from tf_finetune.models.precision import float32_compute
from tf_finetune.runs.model_dir import ModelDir

# The rows that are asked alone for their time, and those of a batch.
LATENCY_ROWS, BATCH_ROWS = 100, 32
# Of the models themselves so many rows tell the speed.
SPEED_ROWS = 500

Ask = Callable[[Sequence[Any]], np.ndarray]
"""Takes texts, or pairs of texts; returns their logits."""


@dataclass(frozen=True)
class Price:
    """What a model does on the evaluation data.

    Attributes:
        score: The metric by which the run's best weights were chosen.
        rows_per_second: Of many rows in batches of 32, alike long ones together.
        milliseconds: The median time of one row alone.
        megabytes: The size of its weights in float32, 10^6 bytes.
        weights: Their number.
    """

    score: float
    rows_per_second: float
    milliseconds: float
    megabytes: float
    weights: int


def rows_of(examples: Examples) -> list[Any]:
    """Returns the text, or the pair of texts, of each row."""
    columns = examples.texts
    return list(zip(*columns, strict=True)) if len(columns) > 1 else [*columns[0]]


def measure_speed(ask: Ask, rows: Sequence[Any]) -> tuple[np.ndarray, float, float]:
    """Asks all rows, then some alone; returns the logits, rows a second, and ms of one row."""
    ask(rows[:BATCH_ROWS])  # The first ones make programs.
    ask(rows[:1])
    started = time.perf_counter()
    logits = ask(rows)
    seconds, times = time.perf_counter() - started, []
    for row in rows[:LATENCY_ROWS]:
        started = time.perf_counter()
        ask([row])
        times.append(time.perf_counter() - started)
    return logits, len(rows) / seconds, 1e3 * float(np.median(times))


def price_of(
    classifier: Classifier,
    examples: Examples,
    metric: str,
    *,
    logits: np.ndarray | None = None,
    problem: Problem | None = None,
) -> Price:
    """Measures a model in float32, adapters merged in, as its SavedModel computes.

    Args:
        classifier: The model.
        examples: Labelled rows; the first tell the speed, all of them the score.
        metric: The name of the score.
        logits: The model's of these rows, if they are known.
        problem: What the labels are, if their order is not the model's; `logits` have it.
    """
    model = merge_adapters(classifier.model, classifier.encoder, classifier.problem)
    spec = [tf.TensorSpec([None], tf.string) for _ in classifier.problem.text_columns]
    text, length = classifier.encoder.preprocessor, classifier.max_seq_length

    @tf.function(input_signature=spec, autograph=False)
    def run(*segments: tf.Tensor) -> tf.Tensor:
        return text_logits(model, text, segments, length, classifier.config.long_text)

    def ask(rows: Sequence[Any]) -> np.ndarray:
        order = sorted(range(len(rows)), key=lambda number: len("".join(rows[number])))
        found = np.zeros((len(rows), classifier.problem.num_outputs), np.float32)
        for start in range(0, len(rows), BATCH_ROWS):
            part = order[start : start + BATCH_ROWS]
            texts = [rows[number] for number in part]
            columns = zip(*texts, strict=True) if len(spec) > 1 else [texts]
            found[part] = run(*(tf.constant(list(column)) for column in columns)).numpy()
        return found

    with float32_compute(model):
        _, speed, milliseconds = measure_speed(ask, rows_of(examples.first(SPEED_ROWS)))
    if logits is None:
        logits = classifier.logits(classifier.tokenize(examples))
    assert examples.labels is not None
    scores = compute_metrics(logits, examples.labels, problem or classifier.problem)
    weights = sum(int(np.prod(weight.shape)) for weight in model.weights)
    return Price(scores[metric], speed, milliseconds, 4 * weights / 1e6, weights)


def save_prices(
    model_dir: ModelDir, own: Price, teacher: Price | None, metric: str
) -> dict[str, dict[str, Any]]:
    """Adds prices to a run's results, with the points that each model loses against its own.

    Args:
        model_dir: The run's folder.
        own: The model's.
        teacher: Its teacher's; None: an earlier call's stays.
        metric: The name of the score.

    Returns:
        The results' `prices`: by `teacher` and `model`, each as a JSON object.
    """
    sign = 1 if greater_is_better(metric) else -1
    found = dict(model_dir.load_metrics().get("prices", {}))
    for name, price in (("teacher", teacher), ("model", own)):
        if price is not None:
            loss = 100 * sign * (own.score - price.score)
            found[name] = {**asdict(price), "quantization": "float32", "loss": loss}
    model_dir.save_metrics({"prices": found})
    return found


def price_table(metric: str, prices: Mapping[str, Mapping[str, Any]]) -> str:
    """Writes a Markdown table of `save_prices`."""
    lines = [f"| | {metric} | rows/s | ms a row | MB | weights |", "| --- " * 6 + "|"]
    lines += [
        f"| {name}, float32 | {one['score']:.4f} | {one['rows_per_second']:.0f} | "
        f"{one['milliseconds']:.1f} | {one['megabytes']:.1f} | {one['weights']:,} |"
        for name, one in prices.items()
    ]
    return "\n".join(lines)
