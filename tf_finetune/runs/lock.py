"""Locks that end with their process, and one run at a time in a model directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tf_finetune.errors import UserError
from tf_finetune.files import is_remote, make_dirs, remove, replaced_file
from tf_finetune.runs.model_dir import ModelDir


def take_lock(path: Path) -> int | None:
    """Takes the lock (flock) of a folder, or of a file, which is made if it is missing.

    Args:
        path: The folder or file.

    Returns:
        A descriptor; the lock is held until it is closed wherever it was handed on, at the latest
        when those processes end. None: somebody else holds the lock.

    Raises:
        OSError: It cannot be opened, or its file system has no locks.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(path, flags, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return handle


@contextmanager
def locked(model_dir: ModelDir) -> Iterator[None]:
    """Keeps other runs out of a model directory while the block runs.

    The lock is on the folder itself: there is no lock file to leave behind. Remote file systems
    (`gs://`) have no locks.

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
    lock = None
    with contextlib.suppress(OSError):  # Some network file systems have no locks.
        lock = take_lock(path)
        if lock is None:
            raise UserError(
                f"--model_dir={model_dir}: another run is at work in this folder. Wait for its "
                "end, or choose another folder."
            )
    try:
        model_dir.remove_leftovers()
        yield
    finally:
        with contextlib.suppress(OSError):  # Most often: it is not empty.
            path.rmdir()
        if lock is not None:
            os.close(lock)


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
