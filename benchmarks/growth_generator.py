r"""How a generator's training step grows: with length, batch, the adapters' rank, and the decoder.

    python -m benchmarks.growth_generator --output_dir=docs

Zeros for weights and random ids, all rows of full length, two fifths of their tokens answers, under
the default settings; a point is the median step of some seconds, compiled before. Writes one plot
for each curve and prints the numbers as tables.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.ceilings import ceiling
from benchmarks.growth import SECONDS, plot, time_step
from tf_finetune import RuntimeConfig, build_optimizer, make_runtime
from tf_finetune.generation.network import FEATURES, TargetLoss
from tf_finetune.models.language_head import AnswerHead
from tf_finetune.models.llama import LlamaDecoder
from tf_finetune.models.llama_config import LlamaConfig
from tf_finetune.models.lora import Lora

VOCAB_SIZE = 49152
HEAD_DIM = 64


@dataclass(frozen=True)
class Point:
    """A step: the decoder's shape, the batch's and the rank. The defaults are SmolLM2-135M's."""

    num_layers: int = 30
    hidden_size: int = 576
    intermediate_size: int = 1536
    num_kv_heads: int = 3
    batch_size: int = 16
    length: int = 80
    rank: int = 16

    @property
    def decoder(self) -> str:
        """The decoder's size, as an axis shows it."""
        return f"{self.num_layers} x {self.hidden_size}"

    @property
    def answer_tokens(self) -> int:
        """Those of a row."""
        return self.length * 2 // 5

    @property
    def flops(self) -> float:
        """The floating-point operations of a step.

        2 for each multiplication with an addition; a backward pass is twice a forward one where
        weights are trained, and as much as one where they are frozen. The head counts for answers
        alone; adapters, embeddings and norms do not count.
        """
        width, keys = self.hidden_size, self.num_kv_heads * HEAD_DIM
        weights = 2 * width * width + 2 * width * keys + 3 * width * self.intermediate_size
        passes = 2 if self.rank else 3
        a_token = passes * 2 * self.num_layers * weights
        a_token += 3 * 4 * self.num_layers * self.length * width
        answers = passes * 2 * self.answer_tokens * width * VOCAB_SIZE
        return float(self.batch_size * (self.length * a_token + answers))


# The attribute along an axis to its points. Rank 0 trains all weights; the last decoder is
# SmolLM2-360M's shape.
CURVES: dict[str, list[Point]] = {
    "length": [Point(length=n, batch_size=8) for n in (32, 64, 128, 256, 512)],
    "batch_size": [Point(batch_size=n) for n in (1, 4, 16, 32)],
    "rank": [Point(rank=n) for n in (0, 4, 16, 64)],
    "decoder": [
        *(Point(num_layers=n) for n in (10, 30)),
        Point(num_layers=32, hidden_size=960, intermediate_size=2560, num_kv_heads=5),
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
    print(f"bfloat16 ceiling: {highest / 1e12:.2f} TFLOP/s")
    for axis in arguments.curves.split(","):
        places = [getattr(point, axis) for point in CURVES[axis]]
        print(f"\n| {axis} | step, ms | tokens/s | share of the bfloat16 ceiling |")
        print("| --- | --- | --- | --- |")
        rates, shares = [], []
        for place, point in zip(places, CURVES[axis], strict=True):
            batch = make_batch(point)
            seconds = time_step(make_model(point), batch, runtime, arguments.max_seconds)
            rates.append(point.batch_size * point.length / seconds)
            shares.append(point.flops / seconds / highest)
            print(f"| {place} | {1e3 * seconds:.0f} | {rates[-1]:.0f} | {shares[-1]:.2f} |")
        path = arguments.output_dir / f"growth_generator_{axis}.svg"
        plot(path, axis, places, rates, shares, "tokens/s")


def make_model(point: Point) -> keras.Model:
    """Makes a language model of the decoder's shape, ready to be trained."""
    config = LlamaConfig(
        VOCAB_SIZE,
        point.hidden_size,
        point.intermediate_size,
        point.num_layers,
        point.hidden_size // HEAD_DIM,
        point.num_kv_heads,
        HEAD_DIM,
    )
    policy = keras.config.dtype_policy()
    dtype = policy.compute_dtype if point.rank else policy
    lora = Lora(point.rank, 2.0 * point.rank) if point.rank else None
    decoder = LlamaDecoder(config, lora=lora, dtype=dtype)
    decoder.build()
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES}
    model = keras.Model(inputs, AnswerHead(decoder)(decoder(inputs), inputs["targets"]))
    model.compile(build_optimizer(total_steps=1000), TargetLoss())
    model.optimizer.build(model.trainable_variables)
    return model


def make_batch(point: Point) -> tuple[dict[str, np.ndarray], Any, Any]:
    """Makes features, targets and weights."""
    shape = point.batch_size, point.length
    ids = np.random.default_rng(0).integers(0, VOCAB_SIZE, shape, np.int32)
    places = np.broadcast_to(np.arange(point.length, dtype=np.int32), shape)
    targets = np.where(places >= point.length - point.answer_tokens, ids, -1)
    values = ids, np.ones_like(ids), places, targets
    features = dict(zip(FEATURES, values, strict=True))
    return features, targets, (targets >= 0).astype(np.float32)


if __name__ == "__main__":
    main()
