"""`TrainState`: the progress of a training, and its cost."""

import math
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class TrainState:
    """The progress of a training and its cost; saved with every checkpoint.

    Attributes:
        step: Optimizer steps done.
        seconds: Time of all steps, from making the batches' iterator on, tracing and compiling
            included, evaluation and checkpoints left out.
        examples: Rows with a weight that were trained on, however many targets a row has; a piece
            of a text counts as its share of it.
        targets: What was learnt of them: one a row, or the tokens of the answers.
        tokens: The tokens of these rows, padding left out.
        first_step_seconds: Time of the last process' first step, with tracing and compiling.
        steady_seconds: As `seconds`, without the first step of each process.
        steady_examples: Examples of those seconds.
        steady_targets: Targets of those seconds.
        peak_memory: The most memory that a process of the training held on the host, in bytes.
        best_value: The metric's best value so far.
        best_step: The step of that evaluation.
        stale: The number of evaluations since then.
        stopped_early: Whether early stopping ended the training.
    """

    step: int = 0
    seconds: float = 0.0
    examples: float = 0
    targets: int = 0
    tokens: int = 0
    first_step_seconds: float = 0.0
    steady_seconds: float = 0.0
    steady_examples: float = 0
    steady_targets: int = 0
    peak_memory: int = 0
    best_value: float | None = None
    best_step: int = 0
    stale: int = 0
    stopped_early: bool = False

    def add(self, steps: int, counts: Mapping[str, float], seconds: float, first: bool) -> None:
        """Adds steps that were done.

        Args:
            steps: How many.
            counts: Their `examples`, `targets` and `tokens`.
            seconds: Their time.
            first: Whether they are the first of this process.
        """
        self.step += steps
        self.seconds += seconds
        self.examples += float(counts["examples"])
        self.targets += int(counts["targets"])
        self.tokens += int(counts["tokens"])
        self.peak_memory = max(self.peak_memory, _peak_memory())
        if first:
            self.first_step_seconds = seconds
        else:
            self.steady_seconds += seconds
            self.steady_examples += float(counts["examples"])
            self.steady_targets += int(counts["targets"])

    def improved(self, value: float | None, greater_is_better: bool) -> bool:
        """Records an evaluation, and returns whether it is the best so far.

        Args:
            value: The metric; None or NaN where it is undefined, which is never better.
            greater_is_better: Whether a greater value is better.
        """
        sign, best = 1 if greater_is_better else -1, self.best_value
        if value is not None and math.isnan(value):
            value = None
        if value is not None and (best is None or sign * value > sign * best):
            self.best_value, self.best_step, self.stale = value, self.step, 0
            return True
        self.stale += 1
        return False

    def summary(self, steps_per_epoch: int) -> dict[str, Any]:
        """Returns the `train` part of metrics.json."""
        return {
            "steps": self.step,
            "epochs": self.step / steps_per_epoch,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "examples_per_second": self.examples / max(self.seconds, 1e-9),
            "steady_examples_per_second": self.steady_examples / max(self.steady_seconds, 1e-9),
            "tokens_per_second": self.tokens / max(self.seconds, 1e-9),
            "targets_per_second": self.targets / max(self.seconds, 1e-9),
            "steady_targets_per_second": self.steady_targets / max(self.steady_seconds, 1e-9),
            "first_step_seconds": self.first_step_seconds,
            "peak_memory_bytes": self.peak_memory,
            "best_step": self.best_step or self.step,
            "stopped_early": self.stopped_early,
        }


def _peak_memory() -> int:
    """Returns the most memory that this process has held, in bytes."""
    # In kilobytes; on macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
