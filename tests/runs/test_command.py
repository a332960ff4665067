"""A second program on the shared sections: flags, help, lock and exit statuses come with them."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from tf_finetune.errors import UserError
from tf_finetune.runs.command import Command
from tf_finetune.runs.config import DataConfig, RunConfig, RuntimeConfig
from tf_finetune.runs.report_config import ReportConfig

@dataclass(frozen=True)
class Config:
    program: ClassVar[str] = "run_lines.py"
    data: DataConfig = DataConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    run: RunConfig = RunConfig()
    report: ReportConfig = ReportConfig()

def prepare(config, given):
    if not config.data.train_file:
        raise UserError("--train_file is missing.")
    return sorted(given), Path(config.data.train_file).read_text().count("\\n")

def count(prepared):
    print(*prepared, "tensorflow" in sys.modules)
    return 3

sys.exit(Command(Config, prepare, lambda: count).main(sys.argv))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "run_lines.py"
    path.write_text(PROGRAM)
    (tmp_path / "lines.txt").write_text("a\nb\n")
    return path


def run(program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(program), *arguments]
    return subprocess.run(command, cwd=program.parent, capture_output=True, text=True, check=False)


def test_it_parses_prepares_and_runs(program):
    done = run(program, "--train_file=lines.txt", "--seed=7", "--model_dir=out")
    assert done.stdout == "['model_dir', 'seed', 'train_file'] 2 False\n"
    assert done.returncode == 3 and done.stderr == ""
    # A folder that the run left empty is not left behind.
    assert not (program.parent / "out").exists()


def test_its_help_has_the_shared_flags_and_no_labels(program):
    done = run(program, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: python run_lines.py ")
    assert "--train_file" in done.stdout and "--precision" in done.stdout
    assert "label" not in done.stdout.replace("labelled", "") and "--encoder" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--train_file is missing."),
        (["--sed=7"], "--sed: no such flag. Did you mean --seed"),
        (["--seed=-1"], "--seed=-1: must be >= 0"),
        (["--train_file=nowhere.txt"], "nowhere.txt"),
        (["--train_file=lines.txt", "--model_dir=lines.txt"], "lines.txt: cannot be written"),
    ],
)
def test_bad_input_exits_with_2(program, arguments, complaint):
    done = run(program, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and complaint in done.stderr
    assert "Traceback" not in done.stderr
