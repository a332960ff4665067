r"""How a generator's training step grows: with length, batch, the adapters' rank, and the decoder.

    python -m benchmarks.growth_generator --output_dir=docs

Zeros for weights and random ids, all rows of full length, two fifths of their tokens answers, under
the default settings; a point is the median step of some seconds, compiled before. Writes one plot
for each curve and prints the numbers as tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from benchmarks.growth import draw_curves
from tf_finetune import build_optimizer
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

    @property
    def amount(self) -> int:
        """The tokens of a step."""
        return self.batch_size * self.length

    def make_model(self) -> keras.Model:
        """Makes a language model of the decoder's shape, ready to be trained."""
        config = LlamaConfig(
            VOCAB_SIZE,
            self.hidden_size,
            self.intermediate_size,
            self.num_layers,
            self.hidden_size // HEAD_DIM,
            self.num_kv_heads,
            HEAD_DIM,
        )
        policy = keras.config.dtype_policy()
        dtype = policy.compute_dtype if self.rank else policy
        lora = Lora(self.rank, 2.0 * self.rank) if self.rank else None
        decoder = LlamaDecoder(config, lora=lora, dtype=dtype)
        decoder.build()
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES}
        model = keras.Model(inputs, AnswerHead(decoder)(decoder(inputs), inputs["targets"]))
        model.compile(build_optimizer(total_steps=1000), TargetLoss())
        model.optimizer.build(model.trainable_variables)
        return model

    def make_batch(self) -> tuple[dict[str, np.ndarray], Any, Any]:
        """Makes features, targets and weights."""
        shape = self.batch_size, self.length
        ids = np.random.default_rng(0).integers(0, VOCAB_SIZE, shape, np.int32)
        places = np.broadcast_to(np.arange(self.length, dtype=np.int32), shape)
        targets = np.where(places >= self.length - self.answer_tokens, ids, -1)
        values = ids, np.ones_like(ids), places, targets
        features = dict(zip(FEATURES, values, strict=True))
        return features, targets, (targets >= 0).astype(np.float32)


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
    draw_curves(CURVES, "growth_generator", "tokens/s", __doc__, argv)


if __name__ == "__main__":
    main()
