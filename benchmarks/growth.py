r"""How a training step grows with the length of the texts, their number, and the encoder's size.

    python -m benchmarks.growth --output_dir=docs

Random weights and full-length random ids under the default settings; a point is the median step of
some seconds, compiled before. Writes one plot for each curve and prints the numbers as tables.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
import tensorflow as tf

from benchmarks.ceilings import ceiling
from benchmarks.flops import training_flops
from tf_finetune import Runtime, RuntimeConfig, build_optimizer, make_runtime
from tf_finetune.classification.losses import LogitsLoss
from tf_finetune.formats.saved_model import TOKEN_INPUTS
from tf_finetune.models.bert import BertEncoder
from tf_finetune.training.step import make_train_loop

VOCABULARY_SIZE = 30522
SECONDS = 5.0
MIN_STEPS = 3


@dataclass(frozen=True)
class Point:
    """A step: the encoder's shape and the batch's. The defaults are all-MiniLM-L6-v2's."""

    num_layers: int = 6
    hidden_size: int = 384
    num_heads: int = 12
    batch_size: int = 32
    length: int = 64

    @property
    def encoder(self) -> str:
        """The encoder's size, as an axis shows it."""
        return f"{self.num_layers} x {self.hidden_size}"


# The attribute along an axis to its points; the last encoder is BERT-base's shape.
CURVES: dict[str, list[Point]] = {
    "length": [Point(length=n) for n in (16, 32, 64, 128, 256, 512)],
    "batch_size": [Point(batch_size=n) for n in (1, 4, 16, 32, 64, 128, 256)],
    "encoder": [
        *(Point(num_layers=n) for n in (2, 4, 6, 12)),
        *(Point(num_layers=n, hidden_size=768) for n in (6, 12)),
    ],
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", type=Path, default=Path("out/benchmark"))
    parser.add_argument("--curves", default=",".join(CURVES))
    parser.add_argument("--max_seconds", type=float, default=SECONDS, help="of each point")
    arguments = parser.parse_args(argv)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    runtime = make_runtime(RuntimeConfig(seed=1, distribution_strategy="one_device"))
    highest = ceiling(tf.bfloat16)
    for axis in arguments.curves.split(","):
        points = CURVES[axis]
        places = [getattr(point, axis) for point in points]
        print(f"\n| {axis} | step, ms | examples/s | share of the bfloat16 ceiling |")
        print("| --- | --- | --- | --- |")
        rates, shares = [], []
        for place, point in zip(places, points, strict=True):
            batch = make_batch(point.batch_size, point.length)
            seconds = time_step(make_model(point), batch, runtime, arguments.max_seconds)
            rates.append(point.batch_size / seconds)
            shares.append(step_flops(point) / seconds / highest)
            print(f"| {place} | {1e3 * seconds:.1f} | {rates[-1]:.1f} | {shares[-1]:.2f} |")
        plot(arguments.output_dir / f"growth_{axis}.svg", axis, places, rates, shares)


def time_step(model: keras.Model, batch: Any, runtime: Runtime, max_seconds: float) -> float:
    """Returns the median seconds of an optimizer step."""
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    loop = make_train_loop(model, runtime)
    loop(batches, tf.constant(2))
    seconds: list[float] = []
    while len(seconds) < MIN_STEPS or sum(seconds) < max_seconds:
        started = time.perf_counter()
        losses, *_ = loop(batches, tf.constant(1))
        losses.numpy()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def make_model(point: Point) -> keras.Model:
    """Makes a classifier of an encoder's shape, with random weights, ready to be trained."""
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in TOKEN_INPUTS}
    network = BertEncoder(
        VOCABULARY_SIZE,
        point.num_layers,
        point.num_heads,
        point.hidden_size,
        4 * point.hidden_size,
    )
    logits = keras.layers.Dense(2, dtype="float32")(network(inputs)["pooled_output"])
    model = keras.Model(inputs, logits)
    model.compile(build_optimizer(total_steps=1000), LogitsLoss("single_label"))
    model.optimizer.build(model.trainable_variables)
    return model


def make_batch(batch_size: int, length: int) -> tuple[dict[str, np.ndarray], Any, Any]:
    """Makes features, labels and weights; few words are frequent and most are rare, as in text."""
    random = np.random.default_rng(0).random((batch_size, length))
    ids = (VOCABULARY_SIZE * random**4).astype(np.int32)
    features = dict(zip(TOKEN_INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))
    return features, np.zeros(batch_size, np.int32), np.ones(batch_size, np.float32)


def step_flops(point: Point) -> float:
    """Returns the floating-point operations of a step; see `flops.py`."""
    lengths = np.full(point.batch_size, point.length)
    width = point.hidden_size
    return training_flops(lengths, point.num_layers, width, 4 * width)


def plot(
    path: Path,
    axis: str,
    places: list[int] | list[str],
    rates: list[float],
    shares: list[float],
    unit: str = "examples/s",
) -> None:
    """Draws the rates and, dashed, the share of the ceiling."""
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, left = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    labels = [str(place) for place in places]
    left.plot(labels, rates, marker="o")
    left.set(yscale="log", xlabel=axis.replace("_", " "), ylabel=unit)
    right = left.twinx()
    right.plot(labels, shares, linestyle="--", color="gray")
    right.set(ylim=(0, 1), ylabel="share of the bfloat16 ceiling (dashed)")
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
