r"""Times our server and `transformers serve`, in turn, with 1, 4, 16 and 64 clients.

    python -m benchmarks.serve --data_dir=<folder with instructions/> --peer=<bin of its venv>

The peer's environment holds `transformers[serving]` and PyTorch (`benchmarks/requirements.txt` has
the versions). Both serve SmolLM2-135M-Instruct from the same Hugging Face directory and
answer the same questions of people, greedily, with at most 32 tokens, streamed. A server is warmed
up with other questions. Tokens are counted in the answers' texts by the model's tokenizer.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.language_model import encode, model_dir
from benchmarks.run import KEEP_MEMORY, Result, medians, write
from benchmarks.served import Server, ask_all, our_server, serving

CLIENTS = (1, 4, 16, 64)
# Requests of each client.
TURNS = {1: 4, 4: 2, 16: 1, 64: 1}
MAX_TOKENS = 32
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
WARM_UP = 4
CONTENDERS = ("ours", "transformers", "transformers_batching")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with instructions/")
    parser.add_argument("--peer", type=Path, help="bin folder of the peer's environment")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--clients", default=",".join(map(str, CLIENTS)))
    parser.add_argument("--dtype", default="float32", choices=PRECISIONS, help="of both")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out/benchmark/serve.json"))
    arguments = parser.parse_args(argv)
    names = arguments.contenders.split(",")
    if any(name != "ours" for name in names) and arguments.peer is None:
        parser.error("--peer is missing")
    questions = read_questions(arguments.data_dir / "instructions" / "general.jsonl")
    levels = [int(level) for level in arguments.clients.split(",")]
    folder_of_model = str(Path(model_dir()).absolute())
    found: dict[str, list[Result]] = {name: [] for name in names}
    for number in range(arguments.rounds):
        for name, rounds in found.items():
            with tempfile.TemporaryDirectory() as folder:
                # The peer's models are named by their folders.
                model = "smollm2" if name == "ours" else folder_of_model
                command = _command(name, folder_of_model, arguments, Path(folder))
                environment = {} if name == "ours" else {**KEEP_MEMORY, "HF_HUB_OFFLINE": "1"}
                with serving(command, environment, Path(folder) / "log") as server:
                    rounds.append(measured(server, model, questions, levels))
            numbers = " ".join(f"{key}={value:.4g}" for key, value in rounds[-1].items())
            print(f"round {number + 1} {name} {numbers}", flush=True)
        write(arguments.output, found)
    print(table(found, levels))
    return 0


def read_questions(path: Path) -> list[str]:
    """Returns the first turns of conversations, short ones, in their order."""
    with path.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["messages"][0]["content"] for line in lines]
    return [text for text in texts if len(text) < 400]


def measured(server: Server, model: str, questions: Sequence[str], levels: Sequence[int]) -> Result:
    """Asks a server with so many clients at a time, one level after the other."""
    rest = iter(questions)

    def bodies(count: int) -> list[dict[str, Any]]:
        return [_body(model, next(rest)) for _ in range(count)]

    ask_all(server, [bodies(1) for _ in range(WARM_UP)])
    found: Result = {}
    for level in levels:
        answers, seconds = ask_all(server, [bodies(TURNS[level]) for _ in range(level)])
        tokens = sum(map(len, encode([answer.text for answer in answers])))
        first = statistics.median(answer.first for answer in answers)
        found[f"{level}_tokens_per_second"] = tokens / seconds
        found[f"{level}_first_token_ms"] = 1000 * first
        found[f"{level}_tokens_per_answer"] = tokens / len(answers)
    return {**found, "peak_memory_mib": server.peak_memory_mib}


def table(found: dict[str, list[Result]], levels: Sequence[int]) -> str:
    """Returns a Markdown table: tokens/s, and the median milliseconds to the first token."""
    lines = [f"| clients | {' | '.join(map(str, levels))} | peak memory |"]
    lines.append("| --- |" + " --- |" * (len(levels) + 1))
    for name, rounds in found.items():
        one = medians(rounds)
        cells = [
            f"{one[f'{level}_tokens_per_second']:.0f} tokens/s, "
            f"{one[f'{level}_first_token_ms']:,.0f} ms"
            for level in levels
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {one['peak_memory_mib']:,.0f} MiB |")
    return "\n".join(lines)


def _command(name: str, model: str, arguments: argparse.Namespace, folder: Path) -> list[str]:
    dtype = arguments.dtype
    if name == "ours":
        return our_server(folder / "data", f"smollm2={model}", f"--precision={PRECISIONS[dtype]}")
    batching = ["--continuous-batching"] if name == "transformers_batching" else []
    program = [str(arguments.peer / "transformers"), "serve", model]
    return [*program, "--device=cpu", f"--dtype={dtype}", *batching]


def _body(model: str, question: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}


if __name__ == "__main__":
    sys.exit(main())
