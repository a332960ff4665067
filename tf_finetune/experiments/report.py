"""Reports on runs: how good, where they are wrong, what to try next.

    python -m tf_finetune report out/mrpc

Reads model directories and leaves in each `report.html`, one page without a network, and the same
numbers as `report.json`.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence

from tf_finetune.errors import UserError
from tf_finetune.experiments.classifier_page import classifier_page
from tf_finetune.experiments.classifier_report import report_classifier
from tf_finetune.experiments.command import exit_status
from tf_finetune.experiments.generator_page import generator_page
from tf_finetune.experiments.generator_report import report_generator
from tf_finetune.experiments.run_facts import is_generator
from tf_finetune.files import replaced_file
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import EXTRA, REMEDY, report_files


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the reports.

    Args:
        arguments: The runs' folders and flags; None: the process' arguments.

    Returns:
        The exit status: 0, or 2 for a folder that holds no run.
    """
    parser = argparse.ArgumentParser(prog="report", description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", nargs="+", help="folders of runs")
    parser.add_argument(
        "--slice_columns",
        default="",
        help="columns of the evaluated file by whose values a classifier is scored too, "
        "comma-separated",
    )
    given = parser.parse_args(arguments)
    columns = tuple(name.strip() for name in given.slice_columns.split(",") if name.strip())

    def work() -> None:
        if importlib.util.find_spec(EXTRA) is None:
            raise UserError(REMEDY)
        for folder in given.model_dir:
            print(f"report     {write_report(ModelDir(folder), columns)}", flush=True)

    return exit_status(work)


def write_report(model_dir: ModelDir, slice_columns: Sequence[str] = ()) -> str:
    """Writes `report.html` and `report.json` of one run.

    Args:
        model_dir: Its folder.
        slice_columns: See `report_classifier`.

    Returns:
        The page's path, and its first line.

    Raises:
        UserError: There is no run, or a file of it is damaged.
        OSError: A file cannot be written.
    """
    if is_generator(model_dir):
        report = report_generator(model_dir)
        page = generator_page(report)
    else:
        report = report_classifier(model_dir, slice_columns)
        page = classifier_page(report)
    text = json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    # Texts and paths may hold surrogates, which JSON has as escapes.
    files = report_files(model_dir)
    for path, content in ((files.json, text), (files.html, page)):
        with replaced_file(path) as file:
            file.write(content.encode("utf-8", "backslashreplace"))
    return f"{files.html}: {report['headline']}"


if __name__ == "__main__":
    sys.exit(main())
