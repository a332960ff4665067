import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tf_finetune.errors import UserError
from tf_finetune.runs.lock import locked
from tf_finetune.runs.model_dir import ModelDir

REPOSITORY = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from tf_finetune.runs.lock import locked
from tf_finetune.runs.model_dir import ModelDir
with locked(ModelDir(sys.argv[1])):
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
        with refused, locked(ModelDir(folder)):
            pass
        assert os.path.isdir(folder)
        first.send_signal(signal.SIGKILL)
        first.wait()
        # The lock was the process's own: nothing has to be removed.
        with locked(ModelDir(folder)):
            Path(folder, "result").touch()
    assert os.listdir(folder) == ["result"]


def test_a_folder_in_which_nothing_was_written_does_not_stay(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(ModelDir(str(tmp_path / "out"))):
        raise ZeroDivisionError
    assert not (tmp_path / "out").exists()


def test_only_leftovers_of_runs_are_removed(tmp_path):
    """Files that an editor keeps beside a result are not ours."""
    for name in (".config.json.abcd1234", ".labels.txt.swp", ".train.cache", "labels.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / ".export.abc_1234").mkdir()
    with locked(ModelDir(str(tmp_path))):
        pass
    assert sorted(os.listdir(tmp_path)) == [".labels.txt.swp", ".train.cache", "labels.txt"]


def test_a_version_that_was_being_replaced_is_put_back(tmp_path):
    for name in (".2.old.abcd1234/2", ".2.efgh5678", ".3.old.abcd1234/3", "3", ".4", ".4.swp"):
        (tmp_path / "export" / name).mkdir(parents=True)
    (tmp_path / "export/.2.old.abcd1234/2/saved_model.pb").write_text("good")
    with locked(ModelDir(str(tmp_path))):
        pass
    assert sorted(os.listdir(tmp_path / "export")) == [".4", ".4.swp", "2", "3"]
    assert (tmp_path / "export/2/saved_model.pb").read_text() == "good"


def test_an_export_that_was_being_replaced_is_put_back(tmp_path):
    """Killed between the two renames of `replaced_directory`."""
    for name in (".export.old.abcd1234/export", ".export.efgh5678"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".export.old.abcd1234/export/saved_model.pb").write_text("good")
    with locked(ModelDir(str(tmp_path))):
        pass
    assert os.listdir(tmp_path) == ["export"]
    assert (tmp_path / "export/saved_model.pb").read_text() == "good"
