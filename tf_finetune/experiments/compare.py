"""Compares runs: the flags that differ, scores with intervals, paired tests, what they cost.

    python -m tf_finetune compare out/mrpc-1 out/mrpc-2 out/mrpc-3

Reads model directories, prints a table, and leaves it in `compare.html` and `compare.json`. The
best run is chosen by its validation score; runs that differ in the seed alone are summed up too.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.experiments.command import exit_status
from tf_finetune.experiments.outcomes import read_outcome
from tf_finetune.experiments.page import render
from tf_finetune.experiments.run_table import compare_runs
from tf_finetune.experiments.run_table_page import run_table_sections, run_table_text
from tf_finetune.files import replaced_file
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.paths import expand_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the comparison.

    Args:
        arguments: The runs' folders and flags; None: the process' arguments.

    Returns:
        The exit status: 0, or 2 for a folder that holds no run that was evaluated.
    """
    parser = argparse.ArgumentParser(prog="compare", description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", nargs="+", help="folders of runs that were evaluated")
    parser.add_argument("--sort", help="the column to sort by; default: the validation score")
    parser.add_argument(
        "--output_dir", default=".", help="where compare.html and compare.json are written"
    )
    given = parser.parse_args(arguments)

    def work() -> None:
        output_dir = expand_path(given.output_dir, "--output_dir")
        folders = dict.fromkeys(expand_path(name, "model_dir") for name in given.model_dir)
        table = compare_runs([read_outcome(ModelDir(name)) for name in folders], given.sort)
        write_comparison(table, output_dir)

    return exit_status(work)


def write_comparison(table: Mapping[str, Any], output_dir: str) -> None:
    """Prints a comparison and leaves it as `compare.html` and `compare.json`.

    Args:
        table: From `compare_runs`.
        output_dir: The folder.

    Raises:
        OSError: A file cannot be written.
    """
    print(run_table_text(table), flush=True)
    text = json.dumps(table, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    for name, content in (
        ("compare.json", text),
        ("compare.html", render(*run_table_sections(table))),
    ):
        path = os.path.join(output_dir, name)
        with replaced_file(path) as stream:
            stream.write(content.encode("utf-8", "backslashreplace"))
    print(f"\ncomparison {path}")


if __name__ == "__main__":
    sys.exit(main())
