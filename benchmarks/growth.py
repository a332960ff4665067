r"""How a training step grows with the length of the texts, their number, and the encoder's size.

    python -m benchmarks.growth --output_dir=docs

Random weights and full-length random ids under the default settings; a point is the median step of
some seconds, compiled before. Writes one plot for each curve and prints the numbers as tables.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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


class Step(Protocol):
    """A training step to be timed."""

    @property
    def amount(self) -> int:
        """What is counted of it, such as its texts."""

    @property
    def flops(self) -> float:
        """Its floating-point operations."""

    def make_model(self) -> keras.Model:
        """Makes the model, ready to be trained."""

    def make_batch(self) -> tuple[Any, Any, Any]:
        """Makes features, labels and weights."""


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

    @property
    def amount(self) -> int:
        """The texts of a step."""
        return self.batch_size

    @property
    def flops(self) -> float:
        """The floating-point operations of a step; see `flops.py`."""
        lengths = np.full(self.batch_size, self.length)
        width = self.hidden_size
        return training_flops(lengths, self.num_layers, width, 4 * width)

    def make_model(self) -> keras.Model:
        """Makes a classifier of an encoder's shape, with random weights, ready to be trained."""
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in TOKEN_INPUTS}
        network = BertEncoder(
            VOCABULARY_SIZE,
            self.num_layers,
            self.num_heads,
            self.hidden_size,
            4 * self.hidden_size,
        )
        logits = keras.layers.Dense(2, dtype="float32")(network(inputs)["pooled_output"])
        model = keras.Model(inputs, logits)
        model.compile(build_optimizer(total_steps=1000), LogitsLoss("single_label"))
        model.optimizer.build(model.trainable_variables)
        return model

    def make_batch(self) -> tuple[dict[str, np.ndarray], Any, Any]:
        """Makes features, labels and weights; few words are frequent and most rare, as in text."""
        random = np.random.default_rng(0).random((self.batch_size, self.length))
        ids = (VOCABULARY_SIZE * random**4).astype(np.int32)
        features = dict(
            zip(TOKEN_INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True)
        )
        return features, np.zeros(self.batch_size, np.int32), np.ones(self.batch_size, np.float32)


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
    draw_curves(CURVES, "growth", "examples/s", __doc__, argv)


def draw_curves(
    curves: Mapping[str, Sequence[Step]],
    name: str,
    unit: str,
    description: str | None,
    argv: Sequence[str] | None = None,
) -> None:
    """Runs the command of some curves: times all points, prints tables and writes plots.

    Args:
        curves: The attribute along an axis to its points.
        name: With what the plots' names begin.
        unit: Of `Step.amount`, in a second.
        description: Of the command.
        argv: Its arguments.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", type=Path, default=Path("out/benchmark"))
    parser.add_argument("--curves", default=",".join(curves))
    parser.add_argument("--max_seconds", type=float, default=SECONDS, help="of each point")
    arguments = parser.parse_args(argv)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    runtime = make_runtime(RuntimeConfig(seed=1, distribution_strategy="one_device"))
    highest = ceiling(tf.bfloat16)
    print(f"bfloat16 ceiling: {highest / 1e12:.2f} TFLOP/s")
    for axis in arguments.curves.split(","):
        places = [getattr(point, axis) for point in curves[axis]]
        print(f"\n| {axis} | step, ms | {unit} | share of the bfloat16 ceiling |")
        print("| --- | --- | --- | --- |")
        rates, shares = [], []
        for place, point in zip(places, curves[axis], strict=True):
            seconds = time_step(point, runtime, arguments.max_seconds)
            rates.append(point.amount / seconds)
            shares.append(point.flops / seconds / highest)
            print(f"| {place} | {1e3 * seconds:.1f} | {rates[-1]:.1f} | {shares[-1]:.2f} |")
        path = arguments.output_dir / f"{name}_{axis}.svg"
        plot(path, axis, places, rates, shares, unit)


def time_step(point: Step, runtime: Runtime, max_seconds: float) -> float:
    """Returns the median seconds of an optimizer step."""
    model = point.make_model()
    batches = iter(tf.data.Dataset.from_tensors(point.make_batch()).repeat())
    loop = make_train_loop(model, runtime)
    loop(batches, tf.constant(2))
    seconds: list[float] = []
    while len(seconds) < MIN_STEPS or sum(seconds) < max_seconds:
        started = time.perf_counter()
        losses, *_ = loop(batches, tf.constant(1))
        losses.numpy()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def plot(
    path: Path,
    axis: str,
    places: list[int] | list[str],
    rates: list[float],
    shares: list[float],
    unit: str,
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
