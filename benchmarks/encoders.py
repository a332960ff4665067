r"""Times a training step of each architecture, ours and the peers', in turn, on equal batches.

    make benchmark_encoders
    make benchmark_encoders BENCHMARK_FLAGS='--shape=base --model_types=bert,albert --rounds=5'

All train a classifier of two labels with AdamW, from random weights of one shape and
on random ids; see `encoder_step.py`. Each contender is a process of its own; a round runs all of
them once, one after the other.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.encoder_step import PRECISIONS
from benchmarks.run import KEEP_MEMORY, Result, medians, run_module, write
from tf_finetune.formats.encoder_families import FAMILIES

ENCODERS_DIR = Path("out/benchmark/encoders")


@dataclass(frozen=True)
class Contender:
    """How a contender is run.

    Attributes:
        module: Its module.
        variant: Its variant.
        environment: Variables of its process.
        lacks: The architectures that it does not have.
    """

    module: str
    variant: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    lacks: tuple[str, ...] = ()


CONTENDERS = {
    "ours": Contender("ours_encoder"),
    "transformers": Contender(
        "transformers_encoder", environment=tuple(sorted(KEEP_MEMORY.items()))
    ),
    "kerashub": Contender("kerashub_encoder", lacks=("mpnet", "modernbert")),
    "transformers_compiled": Contender(
        "transformers_encoder", "compiled", tuple(sorted(KEEP_MEMORY.items()))
    ),
}
DEFAULT_CONTENDERS = ("ours", "transformers", "kerashub")
# Those that `encoder_checkpoint.py` makes; two others are RoBERTa by another name.
MODEL_TYPES = (
    *("bert", "roberta", "distilbert", "electra", "mpnet", "albert"),
    *("deberta-v2", "modernbert"),
)
_PASSED_ON = ("batch_size", "length", "num_steps", "precision")
# The numbers shown, their titles, and whether the ratio of ours to another's is shown.
_COLUMNS = (
    ("steps_per_second", "steps/s", True),
    ("padded_steps_per_second", "steps/s, padded", True),
    ("start_to_first_step_seconds", "first step, s", True),
    ("peak_memory_mib", "peak, MiB", True),
    ("parameters", "parameters", False),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    known = [name for name in MODEL_TYPES if name in FAMILIES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_types", default=",".join(known), help="default: %(default)s")
    parser.add_argument(
        "--contenders",
        default=",".join(DEFAULT_CONTENDERS),
        help=f"of {', '.join(CONTENDERS)}; default: %(default)s",
    )
    parser.add_argument("--shape", default="small", help="small: 6 x 384; base: 12 x 768")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--length", type=int, default=64, help="of each text, in tokens")
    parser.add_argument("--num_steps", type=int, default=30, help="of each kind of batches")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="float32 where the processor has no products of bfloat16; default: %(default)s",
    )
    parser.add_argument("--output", type=Path, default=Path("out/benchmark/encoders.json"))
    arguments = parser.parse_args(argv)
    model_types, contenders = arguments.model_types.split(","), arguments.contenders.split(",")
    for asked, choices in ((model_types, known), (contenders, CONTENDERS)):
        if strange := [name for name in asked if name not in choices]:
            parser.error(f"{strange[0]} is none of {', '.join(choices)}")
    options = [f"--{name}={getattr(arguments, name)}" for name in _PASSED_ON]
    found: dict[str, dict[str, list[Result]]] = {
        kind: {name: [] for name in contenders if kind not in CONTENDERS[name].lacks}
        for kind in model_types
    }
    for number in range(arguments.rounds):
        for kind, results in found.items():
            directory = encoder_dir(kind, arguments.shape)
            for name, rounds in results.items():
                started = time.monotonic()
                contender = CONTENDERS[name]
                command = [f"--variant={contender.variant}", f"--directory={directory}", *options]
                rounds.append(run_module(contender.module, command, dict(contender.environment)))
                print(
                    f"round {number + 1} {kind:10} {name:21} {time.monotonic() - started:6.0f} s "
                    + " ".join(f"{key}={value:.4g}" for key, value in rounds[-1].items()),
                    flush=True,
                )
        settings = {name: getattr(arguments, name) for name in ("shape", *_PASSED_ON)}
        write(arguments.output, {"settings": settings, "encoders": found})
    print(
        f"\n{arguments.shape}, {arguments.batch_size} x {arguments.length} tokens, "
        f"{arguments.precision}, median of {arguments.rounds} rounds; in brackets ours / this\n"
    )
    print(table(found))
    return 0


def encoder_dir(model_type: str, shape: str) -> Path:
    """Returns the directory of an encoder in Hugging Face's format, which is made once."""
    directory = ENCODERS_DIR / f"{model_type}-{shape}"
    if not (directory / "vocab.txt").exists():  # The file that is written last.
        options = [f"--model_type={model_type}", f"--shape={shape}", f"--output_dir={directory}"]
        run_module("encoder_checkpoint", options, {})
    return directory


def table(found: dict[str, dict[str, list[Result]]]) -> str:
    """Returns a Markdown table of the medians, in brackets ours over the contender's."""
    titles = ("encoder", "contender", *(title for _, title, _ in _COLUMNS))
    lines = [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles)]
    for kind, results in found.items():
        ours = medians(results["ours"]) if "ours" in results else {}
        for name, rounds in results.items():
            numbers, cells = medians(rounds), []
            for key, _, compared in _COLUMNS:
                value = numbers[key]
                cell = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
                if compared and ours and name != "ours":
                    cell += f" ({ours[key] / value:.2f})"
                cells.append(cell)
            lines.append(f"| {kind} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
