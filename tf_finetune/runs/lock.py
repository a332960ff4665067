"""One run at a time in a model directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tf_finetune.errors import UserError
from tf_finetune.files import is_remote, make_dirs, remove, replaced_file
from tf_finetune.runs.model_dir import ModelDir


@contextmanager
def locked(model_dir: ModelDir) -> Iterator[None]:
    """Keeps other runs out of a model directory while the block runs.

    The lock (flock) is on the folder itself and ends with the process, even a killed one: there is
    no lock file to leave behind. Remote file systems (`gs://`) have no locks.

    Args:
        model_dir: The folder. It is made if it is missing, and removed at the end if it is empty.

    Raises:
        UserError: Another run holds the lock, or the folder cannot be written.
    """
    _make_writable(model_dir.path)
    if is_remote(model_dir.path):
        model_dir.remove_leftovers()
        yield
        return
    path = Path(model_dir.path)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise UserError(
            f"--model_dir={model_dir}: another run is at work in this folder. Wait for its end, or "
            "choose another folder."
        ) from None
    except OSError:
        pass  # Some network file systems have no locks.
    try:
        model_dir.remove_leftovers()
        yield
    finally:
        with contextlib.suppress(OSError):  # Most often: it is not empty.
            path.rmdir()
        os.close(folder)


def _make_writable(model_dir: str) -> None:
    """Makes the model directory and checks that files can be written in it."""
    if set(model_dir) & set("*?[]"):
        raise UserError(
            f"--model_dir={model_dir}: TensorFlow takes *, ?, [ and ] for a pattern and could not "
            "read the checkpoints. Choose another name."
        )
    try:
        make_dirs(model_dir)
        test = os.path.join(model_dir, ".config.json.writable")
        with replaced_file(test):
            pass
        remove(test)
    except OSError as error:
        raise UserError(
            f"--model_dir={model_dir}: cannot be written: {error.strerror}. Choose another folder."
        ) from None
