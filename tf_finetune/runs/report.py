"""The files of a report, and how a run starts it at its end."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tf_finetune
from tf_finetune.files import exists
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
    failure does not fail the run. The accelerators stay with this process.

    Args:
        model_dir: The folder of the run.
        slice_columns: Columns of the data by whose values it gives scores.
    """
    if not exists(ModelDir(model_dir).config):
        return  # A checkpoint of others was evaluated; no run of ours has made it.
    if importlib.util.find_spec(EXTRA) is None:
        print(f"report     not written: {REMEDY}")
        return
    sys.stdout.flush()
    path = str(Path(tf_finetune.__file__).resolve().parents[1])
    searched = os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH"))))
    # One that takes its cluster from TF_CONFIG would wait for the other workers.
    kept = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    flags = [f"--slice_columns={','.join(slice_columns)}"] if slice_columns else []
    subprocess.run(
        [sys.executable, "-m", "tf_finetune", "report", *flags, "--", model_dir],
        env={**kept, "PYTHONPATH": searched, "CUDA_VISIBLE_DEVICES": "-1"},
        check=False,
    )
