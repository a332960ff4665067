"""Mean and spread of the metrics of several runs, e.g. of one config with several seeds.

    python examples/summarize_runs.py out/mrpc-1 out/mrpc-2 out/mrpc-3

Reads `test` (else `eval`) of each metrics.json and prints a line per metric.
"""

import json
import statistics
import sys
from pathlib import Path


def read(model_dir: str) -> dict[str, float]:
    """Returns a run's numbers, those of training included."""
    metrics = json.loads((Path(model_dir) / "metrics.json").read_text(encoding="utf-8"))
    results = metrics.get("test") or metrics["eval"]
    numbers = {name: value for name, value in results.items() if isinstance(value, float)}
    return numbers | {"examples_per_second": metrics["train"]["examples_per_second"]}


def main(model_dirs: list[str]) -> int:
    """Prints the table; exit status 2 without arguments or for a folder that is no model's."""
    try:
        runs = [read(model_dir) for model_dir in model_dirs]
        names = list(runs[0])
    except (OSError, LookupError, ValueError) as error:
        print(f"error: {error}\n{__doc__}", file=sys.stderr)
        return 2
    for name in names:
        values = [run[name] for run in runs]
        each = " ".join(f"{value:.4f}" for value in values)
        print(f"{name:<22} mean {statistics.fmean(values):9.4f}   {each}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
