"""The work that every language-model contender does, and the clock it is timed with."""

import argparse
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.language_model import END, encode, render_prompt

TASK = "snips"
BATCH_SIZE = 16
WARMUP_PROPORTION = 0.05
LORA_RANK = 16
LORA_ALPHA = 32
LEARNING_RATES = {"lora": 5e-4, "full": 5e-5}
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Dialogues:
    """What is trained on and asked.

    Attributes:
        folder: With train.jsonl and test.jsonl.
        train: Conversations, a question and its answer each.
        test: Likewise.
        answer_tokens: Tokens of the training answers, each with its end token. All contenders are
            credited with the same number.
        num_answered: How many of the test questions are answered after the training.
        seed: Of the order and of what is random in the model.
        max_steps: Optimizer steps after which the training ends; -1: one epoch.
        tuned_dir: A Hugging Face directory to answer with.
    """

    folder: Path
    train: list[Messages]
    test: list[Messages]
    answer_tokens: int
    num_answered: int = 0
    seed: int = 1
    max_steps: int = -1
    tuned_dir: Path | None = None

    @property
    def trained_tokens(self) -> int:
        """The answer tokens that the training takes; those of some steps are estimated."""
        steps = -(-len(self.train) // BATCH_SIZE)
        done = steps if self.max_steps < 0 else min(self.max_steps, steps)
        return round(self.answer_tokens * done / steps)


def parse_dialogues(
    description: str | None, modes: Sequence[str] = ("train",)
) -> tuple[str, str, Dialogues]:
    """Reads a contender's command line.

    Args:
        description: The contender's docstring.
        modes: What it can be asked for.

    Returns:
        The mode, the variant (`--variant`) and the work.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--variant", default="")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--max_train_samples", type=int, help="the first of them; default: all")
    parser.add_argument("--max_predict_samples", type=int, default=0)
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tuned_dir", type=Path, help="a tuned model to answer with")
    arguments = parser.parse_args()
    folder = arguments.data_dir / TASK
    train = read_messages(folder / "train.jsonl")[: arguments.max_train_samples]
    work = Dialogues(
        folder,
        train,
        read_messages(folder / "test.jsonl"),
        count_answer_tokens(train),
        arguments.max_predict_samples,
        arguments.seed,
        arguments.max_steps,
        arguments.tuned_dir,
    )
    return arguments.mode, arguments.variant, work


def read_messages(path: Path) -> list[Messages]:
    """Reads the conversations of a JSONL file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def count_answer_tokens(conversations: Sequence[Messages]) -> int:
    """Returns the tokens of the last turns, each with its end token."""
    return sum(len(ids) for ids in encode([m[-1]["content"] + END for m in conversations]))


def prompt_ids(conversations: Sequence[Messages]) -> list[list[int]]:
    """Returns the token ids of conversations up to where their last turns begin."""
    return encode([render_prompt(messages[:-1]) for messages in conversations])


def exact_match(answers: Sequence[str], work: Dialogues) -> float:
    """Returns the share of answers that equal the reference, blanks around them aside."""
    references = [messages[-1]["content"].strip() for messages in work.test[: work.num_answered]]
    hits = [a.strip() == b for a, b in zip(answers, references, strict=True)]
    return sum(hits) / len(hits)


@dataclass
class Training:
    """One training as a contender reports it.

    Attributes:
        seconds: From the call that trains to its end: tokenizing, tracing and compiling included.
        process_seconds: From the start of the process to the trained weights on disk.
        start_to_first_step_seconds: From the start of the process to the first step's end.
        answer_tokens_per_second: Trained answer tokens over `seconds`.
        process_answer_tokens_per_second: Trained answer tokens over `process_seconds`.
        steady_answer_tokens_per_second: Of the steps after the first, over their seconds.
        peak_memory_mib: The largest resident memory of the process until the training's end.
        loss: Nats for each trained token, mean of the last ten steps; 0: not known.
        mean_loss: Likewise, of all steps.
        exact_match: On test rows after the training; 0 without any.
    """

    seconds: float
    process_seconds: float
    start_to_first_step_seconds: float
    answer_tokens_per_second: float
    process_answer_tokens_per_second: float
    steady_answer_tokens_per_second: float
    peak_memory_mib: float
    loss: float = 0.0
    mean_loss: float = 0.0
    exact_match: float = 0.0


class Clock:
    """Is told of the training's start, of each step's end, and of the weights on disk."""

    def __init__(self) -> None:
        self._process = psutil.Process().create_time()
        self._start = self._saved = 0.0
        self._steps: list[float] = []

    def start(self) -> None:
        """The call that trains begins."""
        self._start = time.time()

    def step(self) -> None:
        """An optimizer step is done."""
        self._steps.append(time.time())

    def saved(self) -> None:
        """The trained weights are on disk."""
        self._saved = time.time()

    def training(self, work: Dialogues, batches: Sequence[int]) -> Training:
        """Returns the measurement, the loss left to fill in.

        Args:
            work: What was to be trained on.
            batches: Trained tokens of each step as the contender counts them, which may be more
                than the answers'; only their proportions are used.
        """
        steps = self._steps
        done = work.trained_tokens
        steady = done * sum(batches[1 : len(steps)]) / sum(batches[: len(steps)])
        seconds, whole = steps[-1] - self._start, self._saved - self._process
        return Training(
            seconds=seconds,
            process_seconds=whole,
            start_to_first_step_seconds=steps[0] - self._process,
            answer_tokens_per_second=done / seconds,
            process_answer_tokens_per_second=done / whole,
            steady_answer_tokens_per_second=(
                steady / (steps[-1] - steps[0]) if len(steps) > 1 else 0.0
            ),
            peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )


def report(result: Training | dict[str, Any]) -> None:
    """Prints a contender's result as the last line of its output."""
    print("\n" + json.dumps(asdict(result) if isinstance(result, Training) else result), flush=True)
