"""The training steps of an encoder that every contender runs, and the clock they are timed with."""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

LABELS = ("no", "yes")
PRECISIONS = ("bfloat16", "float32")
LEARNING_RATE = 5e-5
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
# The ids below are special tokens'.
_FIRST_WORD = 5


@dataclass(frozen=True)
class Batch:
    """Random texts: `ids` and `mask`, int32 [batch, length]; `labels`, int32 [batch]."""

    ids: np.ndarray
    mask: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Steps:
    """What is trained, and for how long.

    Attributes:
        directory: The encoder in Hugging Face's format.
        batch_size: Texts of a step.
        length: Their length in tokens, padding included.
        num_steps: Steps on texts of this length, after the first step; as many on padded ones.
        precision: `bfloat16`, mixed, or `float32`.
    """

    directory: Path
    batch_size: int
    length: int
    num_steps: int
    precision: str = "bfloat16"

    @property
    def config(self) -> dict[str, Any]:
        """The content of the directory's config.json."""
        return json.loads((self.directory / "config.json").read_text(encoding="utf-8"))

    @property
    def total(self) -> int:
        """All steps."""
        return 1 + 2 * self.num_steps

    def batches(self) -> Iterator[Batch]:
        """Yields a batch for each step; of the padded ones a quarter to all of a row is text."""
        config, random = self.config, np.random.default_rng(0)
        words = config["vocab_size"] - _FIRST_WORD
        for step in range(self.total):
            lengths = np.full(self.batch_size, self.length)
            if step > self.num_steps:
                lengths = random.integers(self.length // 4, self.length + 1, self.batch_size)
            mask = np.arange(self.length) < lengths[:, None]
            # Few words are frequent and most are rare, as in text.
            ids = _FIRST_WORD + (words * random.random(mask.shape) ** 4).astype(np.int32)
            ids = np.where(mask, ids, config.get("pad_token_id") or 0)
            labels = random.integers(0, len(LABELS), self.batch_size)
            yield Batch(*(part.astype(np.int32) for part in (ids, mask, labels)))


def parse_steps(description: str | None) -> tuple[str, Steps]:
    """Reads a contender's command line.

    Args:
        description: The contender's docstring.

    Returns:
        The variant (`--variant`) and the steps.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--variant", default="")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--num_steps", type=int, default=30)
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    arguments = vars(parser.parse_args())
    return arguments.pop("variant"), Steps(**arguments)


class Clock:
    """Is told of the end of each step, and reports."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def step(self) -> None:
        """An optimizer step is done, and its loss is known."""
        self._ends.append(time.time())

    def report(self, steps: Steps, num_parameters: int, loss: float) -> None:
        """Prints the result as the last line of the output.

        Rates are those of the median step, so that what else the machine does counts little.

        Args:
            steps: What was trained.
            num_parameters: Trained numbers, with which contenders show that they train the same.
            loss: Of the last step.
        """
        if len(self._ends) != steps.total:
            raise ValueError(f"{len(self._ends)} steps were done, not {steps.total}")
        seconds = np.diff(self._ends)
        full, padded = seconds[: steps.num_steps], seconds[steps.num_steps :]
        result = {
            "steps_per_second": 1 / statistics.median(full),
            "padded_steps_per_second": 1 / statistics.median(padded),
            "start_to_first_step_seconds": self._ends[0] - psutil.Process().create_time(),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "parameters": num_parameters,
            "loss": loss,
        }
        print("\n" + json.dumps(result), flush=True)
