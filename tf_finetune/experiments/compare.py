"""Mean and spread of the metrics of several runs, e.g. of one config with several seeds.

    python -m tf_finetune.experiments.compare out/mrpc-1 out/mrpc-2 out/mrpc-3

Reads `test` (else `eval`) of each metrics.json and prints a line per metric.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from tf_finetune.errors import UserError
from tf_finetune.runs.paths import expand_path


def read(model_dir: str) -> dict[str, float]:
    """Returns a run's numbers, those of training included."""
    folder = Path(expand_path(model_dir, "model_dir"))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    results = metrics.get("test") or metrics["eval"]
    numbers = {name: value for name, value in results.items() if isinstance(value, float)}
    return numbers | {"examples_per_second": metrics["train"]["examples_per_second"]}


def main(model_dirs: Sequence[str] | None = None) -> int:
    """Prints the table.

    Args:
        model_dirs: The runs' folders; None: the process' arguments.

    Returns:
        The exit status: 0, or 2 for a folder that holds no results.
    """
    parser = argparse.ArgumentParser(prog="compare_runs", description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", nargs="+", help="folders of runs that were evaluated")
    folders = parser.parse_args(model_dirs).model_dir
    try:
        runs = [read(folder) for folder in folders]
    except (UserError, OSError, LookupError, ValueError) as error:
        print(f"error: no results of a run: {error}", file=sys.stderr)
        return 2
    names = list(runs[0])
    for name in names:
        values = [run[name] for run in runs]
        each = " ".join(f"{value:.4f}" for value in values)
        print(f"{name:<22} mean {statistics.fmean(values):9.4f}   {each}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
