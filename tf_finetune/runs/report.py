"""The files of a report, how a run starts it at its end, and how it is estimated instead."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tf_finetune.files import exists
from tf_finetune.process import own_environment
from tf_finetune.runs.model_dir import ModelDir

# What draws the figures.
EXTRA = "matplotlib"
REMEDY = f"{EXTRA} is not installed: pip install 'tf-finetune[report]'"


class ReportFiles(NamedTuple):
    """What a run leaves for its report, and what that writes.

    Attributes:
        facts: What is known of the training's data, as JSON.
        evaluated: What the model said of the rows of the last evaluation, one JSON object a line.
        json: The report's numbers.
        html: The report as a page.
    """

    facts: str
    evaluated: str
    json: str
    html: str


def report_files(model_dir: ModelDir) -> ReportFiles:
    """Returns the paths of the files of a run's report."""
    names = ("data.json", "evaluated.jsonl", "report.json", "report.html")
    return ReportFiles(*(os.path.join(model_dir.path, name) for name in names))


def start_report(model_dir: str, slice_columns: Sequence[str] = ()) -> None:
    """Writes the report of a run, by the command that does it for any model directory.

    It is a process of its own, because it reads folders alone and stands above all wings; its
    failure does not fail the run.

    Args:
        model_dir: The folder of the run.
        slice_columns: Columns of the data by whose values it gives scores.
    """
    if not exists(ModelDir(model_dir).config):
        return  # A checkpoint of others was evaluated; no run of ours has made it.
    if importlib.util.find_spec(EXTRA) is None:
        print(f"report     not written: {REMEDY}")
        return
    flags = [f"--slice_columns={','.join(slice_columns)}"] if slice_columns else []
    # The accelerators stay with this process.
    _run(["report", *flags, "--", model_dir], {"CUDA_VISIBLE_DEVICES": "-1"})


def estimate_run(program: str, flags: Sequence[str]) -> int:
    """Tells what a run would take, by the command that does it for any program.

    Args:
        program: The program's file.
        flags: Those of the run.

    Returns:
        The exit status.
    """
    return _run(["estimate", program.removesuffix(".py"), *flags], {})


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs one of our commands and returns its exit status."""
    sys.stdout.flush()
    # One that takes its cluster from TF_CONFIG would wait for the other workers.
    kept = {name: value for name, value in own_environment().items() if name != "TF_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-m", "tf_finetune", *arguments],
        env={**kept, **environment},
        check=False,
    )
    return done.returncode
