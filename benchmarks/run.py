r"""Times ours and the peers on the same work, in turn, and prints medians, ratios and spread.

    make benchmark                                    # on the quickstart's data
    make benchmark BENCHMARK_FLAGS='--data_dir=<folder> --tasks=mrpc,banking77'
    make benchmark BENCHMARK_FLAGS='--encoder=<directory in Hugging Face format> --rounds=1'

Each contender is a process of its own; a round runs all of them once, one after the other.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.encoder import HUB_DIR, encoder_dir
from benchmarks.work import LAYOUTS

REPOSITORY = Path(__file__).resolve().parents[1]
# Name on the command line to module, mode and variant.
CONTENDERS = {
    "ours": ("ours", "train", "lifted"),
    "ours_wrapped": ("ours", "train", "wrapped"),
    "hf_best": ("huggingface", "train", "best"),
    "hf": ("huggingface", "train", "default"),
    "kerashub": ("kerashub", "train", ""),
    "tf_recipe": ("tf_recipe", "train", ""),
    "ours_start": ("ours", "start", "lifted"),
    "hf_start": ("huggingface", "start", "best"),
    "ours_predict": ("ours", "predict", ""),
    "hf_predict": ("huggingface", "predict", ""),
    "ours_latency": ("ours", "latency", ""),
    "hf_latency": ("huggingface", "latency", ""),
    "ours_pipeline": ("ours", "pipeline", ""),
    "ceilings": ("ceilings", "", ""),
}
# Those that can train another encoder than the default.
WITH_ENCODER = ("ours", "hf_best", "hf", "ours_start", "hf_start")
# Mode to the contender that the others of the mode are compared with.
REFERENCES = {
    "train": "ours",
    "start": "ours_start",
    "predict": "ours_predict",
    "latency": "ours_latency",
}
# glibc keeps freed memory in place of returning it to the system and asking for it again in every
# step, which makes PyTorch faster here.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
Result = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, help="folder with mrpc/ and banking77/")
    parser.add_argument("--tasks", default="", help=f"of {', '.join(LAYOUTS)}, comma-separated")
    parser.add_argument("--contenders", help="comma-separated; default: all that can")
    parser.add_argument(
        "--encoder",
        type=Path,
        help="a directory in Hugging Face's format, in place of the default encoder; for "
        + ", ".join(WITH_ENCODER),
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num_train_epochs", type=int, default=2)
    parser.add_argument(
        "--max_train_examples", type=int, help="the first of each task, for the slow contenders"
    )
    parser.add_argument("--output", type=Path, default=Path("out/benchmark/results.json"))
    arguments = parser.parse_args(argv)
    tasks = arguments.tasks or ("mrpc,banking77" if arguments.data_dir else "chatterbot")
    data_dir = arguments.data_dir or Path("data")
    choices = tuple(CONTENDERS) if arguments.encoder is None else WITH_ENCODER
    contenders = arguments.contenders.split(",") if arguments.contenders else choices
    if strange := [name for name in contenders if name not in choices]:
        parser.error(f"{strange[0]} is none of {', '.join(choices)}")
    if arguments.encoder is None:
        make_hub_encoder()
    options = [f"--data_dir={data_dir}", f"--num_train_epochs={arguments.num_train_epochs}"]
    if arguments.max_train_examples:
        options.append(f"--max_train_examples={arguments.max_train_examples}")
    if arguments.encoder:
        options.append(f"--encoder={arguments.encoder}")
    results: dict[str, dict[str, list[Result]]] = {
        task: {name: [] for name in contenders} for task in tasks.split(",")
    }
    for number in range(arguments.rounds):
        for task, found in results.items():
            for name, rounds in found.items():
                started = time.monotonic()
                rounds.append(contend(name, task, options))
                print(
                    f"round {number + 1} {task:10} {name:14} {time.monotonic() - started:6.0f} s "
                    + " ".join(f"{key}={value:.4g}" for key, value in rounds[-1].items()),
                    flush=True,
                )
        write(arguments.output, results)
    for found in results.values():
        add_shares(found)
    write(arguments.output, results)
    for task, found in results.items():
        print(f"\n{task}, median of {arguments.rounds} rounds (lowest to highest)\n")
        print(table(found))
    return 0


def make_hub_encoder() -> None:
    """Writes the encoder as a TF Hub SavedModel, once."""
    if not HUB_DIR.exists():
        command = [sys.executable, "-m", "tf_finetune.formats.convert"]
        subprocess.run(
            [*command, f"--hf_dir={encoder_dir()}", f"--output_dir={HUB_DIR}"], check=True
        )


def contend(name: str, task: str, options: Sequence[str]) -> Result:
    """Runs one contender once and returns what it reports."""
    module, mode, variant = CONTENDERS[name]
    arguments = [mode, f"--variant={variant}", f"--task={task}", *options] if mode else []
    return run_module(module, arguments, {})


def run_module(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Result:
    """Runs a contender's module in a process of its own and returns what it reports."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def add_shares(found: dict[str, list[Result]]) -> None:
    """Adds to each training its FLOP/s at the steady rate, and their share of the ceiling."""
    # Every contender is credited with the same arithmetic, which ours counts: see `flops.py`.
    per_example = max((one["flops_per_example"] for one in found.get("ours", ())), default=0.0)
    ceiling = medians(found["ceilings"])["bfloat16"] if found.get("ceilings") else None
    for name, rounds in found.items():
        for one in rounds if CONTENDERS[name][1] == "train" else ():
            one.pop("flops_per_example", None)
            if per_example:
                one["flops_per_second"] = one["steady_examples_per_second"] * per_example
            if per_example and ceiling:
                one["share_of_bfloat16_ceiling"] = one["flops_per_second"] / ceiling


def medians(rounds: Sequence[Result]) -> Result:
    """Returns the median of each number over the rounds."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def table(found: dict[str, list[Result]]) -> str:
    """Returns a Markdown table of medians, spread, and the ratio of ours to each."""
    columns = ("contender", "number", "median", "lowest to highest", "ours / this")
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for name, rounds in found.items():
        reference = REFERENCES.get(CONTENDERS[name][1], "")
        ours = medians(found[reference]) if reference in found else {}
        for key, value in medians(rounds).items():
            values = [one[key] for one in rounds]
            spread = f"{min(values):.4g} to {max(values):.4g}"
            ratio = f"{ours[key] / value:.2f}" if name != reference and ours and value else ""
            lines.append(f"| {name} | {key} | {value:.4g} | {spread} | {ratio} |")
    return "\n".join(lines)


def write(path: Path, results: dict[str, Any]) -> None:
    """Writes everything measured so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.machine(), "python": platform.python_version()}
    text = json.dumps({**machine, "results": results}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
