"""The commands that an installed package has."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tf_finetune.__main__ import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]


def test_the_package_lists_its_commands_without_tensorflow():
    program = "import runpy, sys; runpy.run_module('tf_finetune', run_name='__main__')"
    program += "; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1:2]] == list(COMMANDS)
    assert lines[-1] == "False"


def test_setup_makes_a_console_script_of_each():
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    scripts = config["options.entry_points"]["console_scripts"].split("\n")
    pairs = dict(line.split(" = ") for line in scripts if line)
    assert pairs == {name: f"{module}:main" for name, module in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_is_on_the_path_and_answers(name):
    command = shutil.which(name, path=str(Path(sys.executable).parent))
    assert command, "pip install --editable . makes it"
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr
    assert "sage:" in done.stdout or "error:" in done.stderr
