import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tf_finetune.errors import UserError
from tf_finetune.lock import locked

REPOSITORY = Path(__file__).resolve().parents[1]
HOLD = """
import sys, time
from tf_finetune.lock import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path):
    folder = str(tmp_path / "new" / "out")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == "locked\n"
        refused = pytest.raises(UserError, match="new/out: another run is at work in this folder")
        with refused, locked(folder):
            pass
        assert os.path.isdir(folder)
        first.send_signal(signal.SIGKILL)
        first.wait()
        # The lock was the process's own: nothing has to be removed.
        with locked(folder):
            Path(folder, "result").touch()
    assert os.listdir(folder) == ["result"]


def test_a_folder_in_which_nothing_was_written_does_not_stay(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(str(tmp_path / "out")):
        raise ZeroDivisionError
    assert not (tmp_path / "out").exists()
    with locked(None):
        pass
