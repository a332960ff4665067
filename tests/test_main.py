"""The commands that an installed package has."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tf_finetune.__main__ import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
# On the PATH, where other programs are too, a command may need a longer name.
SCRIPTS = {name: name for name in COMMANDS} | {
    name: f"{name}_runs" for name in ("compare", "sweep", "report", "estimate")
}


def test_the_package_lists_its_commands_without_tensorflow():
    program = "import sys\nfrom tf_finetune.__main__ import main\nassert main() == 0"
    program += "\nprint('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1:2]] == list(COMMANDS)
    assert lines[-1] == "False"


def python_m(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tf_finetune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_is_the_list():
    listed = python_m()
    assert listed.returncode == 0 and listed.stdout.startswith("run_classifier ")
    for word in ("--help", "-h", "help"):
        assert python_m(word).stdout == listed.stdout


def test_the_package_runs_a_command_by_its_name():
    done = python_m("run_classifier", "--help")
    assert done.returncode == 0 and "--train_batch_size" in done.stdout
    done = python_m("run_classifier", "--lr=1")
    assert done.returncode == 2 and "Here it is --learning_rate" in done.stderr
    done = python_m("compare", "nowhere")
    assert done.returncode == 2 and "nowhere holds no run" in done.stderr
    assert "usage: python -m tf_finetune.formats.convert" in python_m("export_hub_encoder").stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("run_clasifier", "Did you mean run_classifier?"),
        ("--model_dir=out", "There are run_classifier,"),
        ("train", "There are run_classifier,"),
    ],
)
def test_another_command_is_refused(name, hint):
    done = python_m(name)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"error: {name}: no such command. ") and hint in done.stderr


def test_setup_makes_a_console_script_of_each():
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    scripts = config["options.entry_points"]["console_scripts"].split("\n")
    pairs = dict(line.split(" = ") for line in scripts if line)
    assert pairs == {SCRIPTS[name]: f"{module}:main" for name, module in COMMANDS.items()}


@pytest.mark.parametrize("name", SCRIPTS.values())
def test_each_is_on_the_path_and_answers(name):
    command = shutil.which(name, path=str(Path(sys.executable).parent))
    assert command, "pip install --editable . makes it"
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr
    assert "sage:" in done.stdout or "error:" in done.stderr
