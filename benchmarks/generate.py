r"""Times ours and the peers on a language model, in turn, and prints medians and ratios.

    make benchmark_generate BENCHMARK_FLAGS='--data_dir=<folder> --max_train_samples=512'

All fine-tune SmolLM2-135M-Instruct on the first rows of snips, one epoch, and decode greedily; see
`dialogues.py` and `decoding.py`. Each contender is a process of its own; a round runs all of them
once, one after the other.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.decoding import BATCHES
from benchmarks.dialogues import TASK
from benchmarks.language_model import model_dir
from benchmarks.run import KEEP_MEMORY, Result, medians, run_module, write

# Name on the command line to module, mode and variant.
CONTENDERS = {
    "ours_lora": ("ours_generator", "train", "lora"),
    "trl_lora": ("trl_sft", "train", "lora"),
    "kerashub_lora": ("kerashub_lm", "train", "lora"),
    "ours_full": ("ours_generator", "train", "full"),
    "trl_full": ("trl_sft", "train", "full"),
    "ours_decode": ("ours_generator", "decode", ""),
    "transformers_float32": ("transformers_generate", "decode", "float32"),
    "transformers_bfloat16": ("transformers_generate", "decode", "bfloat16"),
    "transformers_float32_static": ("transformers_generate", "decode", "float32_static"),
    "transformers_bfloat16_static": ("transformers_generate", "decode", "bfloat16_static"),
    "kerashub_decode": ("kerashub_lm", "decode", "bfloat16"),
    "ours_tuned": ("ours_generator", "decode", "tuned"),
    "transformers_tuned": ("transformers_generate", "decode", "tuned_bfloat16"),
    "transformers_tuned_lookup": ("transformers_generate", "decode", "tuned_bfloat16_lookup"),
}
ENVIRONMENTS = {"trl_sft": KEEP_MEMORY, "transformers_generate": KEEP_MEMORY}


@dataclass(frozen=True)
class Bar:
    """What ours aims at beside its peers.

    Attributes:
        label: What is compared.
        number: Its name in the results.
        ours: Our contender.
        peers: Theirs.
        ratio: The bar for ours / theirs.
        at_most: Whether the ratio should be no greater, in place of no smaller.
    """

    label: str
    number: str
    ours: str
    peers: tuple[str, ...]
    ratio: float
    at_most: bool = False


_DECODERS = tuple(
    name
    for name, (_, mode, variant) in CONTENDERS.items()
    if mode == "decode" and name != "ours_decode" and not variant.startswith("tuned")
)
_TUNED = ("transformers_tuned", "transformers_tuned_lookup")
BARS = (
    *(
        Bar(f"{label}, answer tokens/s{scope}", number, ours, peers, ratio)
        for label, ours, peers, ratio in (
            ("LoRA", "ours_lora", ("trl_lora", "kerashub_lora"), 1.5),
            ("all weights", "ours_full", ("trl_full",), 1.4),
        )
        for scope, number in (
            ("", "answer_tokens_per_second"),
            (", from the process' start", "process_answer_tokens_per_second"),
            (", after the first step", "steady_answer_tokens_per_second"),
        )
    ),
    *(
        Bar(f"{method}, {label}", number, f"ours_{method}", peers, ratio, at_most=True)
        for method, peers in (("lora", ("trl_lora", "kerashub_lora")), ("full", ("trl_full",)))
        for label, number, ratio in (
            ("start to first step, s", "start_to_first_step_seconds", 1.5),
            ("peak memory, MiB", "peak_memory_mib", 1.0),
        )
    ),
    *(
        Bar(
            f"greedy, batch {n}, tokens/s",
            f"batch_{n}_tokens_per_second",
            "ours_decode",
            _DECODERS,
            1.5,
        )
        for n in BATCHES
    ),
    *(
        Bar(
            f"answers of a tuned model, batch {n}, tokens/s",
            f"answers_{n}_tokens_per_second",
            "ours_tuned",
            _TUNED,
            1.5,
        )
        for n in BATCHES
    ),
    Bar("first token, 200 tokens, ms", "first_token_ms", "ours_decode", _DECODERS, 1.0, True),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help=f"folder with {TASK}/")
    parser.add_argument("--contenders", help="default: all")
    parser.add_argument("--tuned_dir", type=Path, help="a Hugging Face directory of ours")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_train_samples", type=int, default=512)
    parser.add_argument("--max_predict_samples", type=int, default=0, help="for the exact match")
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--output", type=Path, default=Path("out/benchmark/generate.json"))
    arguments = parser.parse_args(argv)
    model_dir()
    names = ["data_dir", "max_train_samples", "max_predict_samples", "max_steps"]
    contenders = list(CONTENDERS)
    if arguments.tuned_dir:
        names.append("tuned_dir")
    else:
        contenders = [name for name in contenders if "tuned" not in name]
    if arguments.contenders:
        contenders = arguments.contenders.split(",")
    options = [f"--{name}={getattr(arguments, name)}" for name in names]
    found: dict[str, list[Result]] = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name, rounds in found.items():
            module, mode, variant = CONTENDERS[name]
            started = time.monotonic()
            command = [mode, f"--variant={variant}", *options]
            rounds.append(run_module(module, command, ENVIRONMENTS.get(module, {})))
            print(
                f"round {number + 1} {name:28} {time.monotonic() - started:6.0f} s "
                + " ".join(f"{key}={value:.4g}" for key, value in rounds[-1].items()),
                flush=True,
            )
        write(arguments.output, {TASK: found, "ratios": ratios(found)})
    print(f"\n{TASK}, median of {arguments.rounds} rounds (lowest to highest)\n")
    print(numbers_table(found))
    print()
    print(ratios_table(ratios(found)))
    return 0


def ratios(found: dict[str, list[Result]]) -> list[dict[str, Any]]:
    """Returns ours / theirs of each bar and peer that were measured."""
    medians_of = {name: medians(rounds) for name, rounds in found.items() if rounds}
    lines = []
    for bar in BARS:
        for peer in bar.peers:
            if bar.ours not in medians_of or peer not in medians_of:
                continue
            ours, theirs = medians_of[bar.ours][bar.number], medians_of[peer][bar.number]
            ratio = ours / theirs if theirs else 0.0
            lines.append(
                {
                    "compared": bar.label,
                    "peer": peer,
                    "ours": ours,
                    "theirs": theirs,
                    "ratio": ratio,
                    "bar": bar.ratio,
                    "at_most": bar.at_most,
                    "reached": ratio <= bar.ratio if bar.at_most else ratio >= bar.ratio,
                }
            )
    return lines


def ratios_table(lines: Sequence[dict[str, Any]]) -> str:
    """Returns a Markdown table of what `ratios` found."""
    table = _head("compared", "peer", "ours", "theirs", "ours / theirs", "bar", "reached")
    for line in lines:
        sign, reached = "<=" if line["at_most"] else ">=", "yes" if line["reached"] else "no"
        table.append(
            f"| {line['compared']} | {line['peer']} | {line['ours']:.4g} | {line['theirs']:.4g} "
            f"| {line['ratio']:.2f} | {sign} {line['bar']} | {reached} |"
        )
    return "\n".join(table)


def numbers_table(found: dict[str, list[Result]]) -> str:
    """Returns a Markdown table of medians and spread."""
    table = _head("contender", "number", "median", "lowest to highest")
    for name, rounds in found.items():
        for key, value in medians(rounds).items():
            values = [one[key] for one in rounds]
            spread = f"{min(values):.4g} to {max(values):.4g}"
            table.append(f"| {name} | {key} | {value:.4g} | {spread} |")
    return "\n".join(table)


def _head(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]


if __name__ == "__main__":
    sys.exit(main())
