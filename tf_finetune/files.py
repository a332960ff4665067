"""Files on this machine and on TensorFlow's file systems (`gs://`), with atomic writes.

Local files need the standard library only, so that a run's errors can be reported before TensorFlow
is imported.
"""

import atexit
import errno
import glob
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

# The buffer of a remote file, in bytes.
REMOTE_BUFFER = 1 << 20


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is on one of TensorFlow's file systems, such as `gs://bucket/file`."""
    return "://" in os.fspath(path)


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file to be read as bytes.

    Raises:
        OSError: It cannot be read; for a remote file the first read raises it.
    """
    if is_remote(path):
        return cast(BinaryIO, io.BufferedReader(_RemoteFile(os.fspath(path), "rb"), REMOTE_BUFFER))
    return open(path, "rb")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Returns the whole content of a file."""
    with open_file(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Whether a path exists; a broken symbolic link exists too."""
    if not is_remote(path):
        return os.path.lexists(path)
    with open_gfile() as gfile:
        return gfile.exists(path)


def is_file(path: str) -> bool:
    """Whether a path is a file."""
    if not is_remote(path):
        return os.path.isfile(path)
    with open_gfile() as gfile:
        return gfile.exists(path) and not gfile.isdir(path)


def is_dir(path: str) -> bool:
    """Whether a path is a folder."""
    if not is_remote(path):
        return os.path.isdir(path)
    with open_gfile() as gfile:
        return gfile.isdir(path)


def list_dir(path: str) -> list[str]:
    """Returns the names in a folder, sorted; an empty list if there is no folder."""
    if not is_dir(path):
        return []
    if not is_remote(path):
        return sorted(os.listdir(path))
    with open_gfile() as gfile:
        return sorted(name.rstrip("/") for name in gfile.listdir(path))


def glob_files(pattern: str) -> list[str]:
    """Returns the files that match a glob pattern, sorted."""
    if not is_remote(pattern):
        return sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    with open_gfile() as gfile:
        return sorted(path for path in gfile.glob(pattern) if not gfile.isdir(path))


def file_size(path: str) -> int:
    """Returns a file's size in bytes."""
    if not is_remote(path):
        return os.path.getsize(path)
    with open_gfile() as gfile:
        return int(gfile.stat(path).length)


def file_version(path: str) -> tuple[int, int]:
    """Returns a file's size and modification time, which differ once the file has changed."""
    if not is_remote(path):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    with open_gfile() as gfile:
        found = gfile.stat(path)
    return int(found.length), int(found.mtime_nsec)


def make_dirs(path: str) -> None:
    """Makes a folder and its parents, those that are missing."""
    if not is_remote(path):
        os.makedirs(path, exist_ok=True)
        return
    with open_gfile() as gfile:
        gfile.makedirs(path)


def remove(path: str) -> None:
    """Removes a file, a link or a whole folder, if it exists."""
    if not exists(path):
        return
    if is_remote(path):
        with open_gfile() as gfile:
            (gfile.rmtree if gfile.isdir(path) else gfile.remove)(path)
    elif os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def local_copy(directory: str) -> Path:
    """Copies a remote folder to a temporary one, which is removed when the process ends."""
    target = Path(tempfile.mkdtemp(prefix="tf_finetune."))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    with open_gfile() as gfile:
        for folder, _, names in gfile.walk(directory):
            below = target / os.path.relpath(folder, directory)
            below.mkdir(exist_ok=True)
            for name in names:
                gfile.copy(os.path.join(folder, name), str(below / name))
    return target


@contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Writes a file atomically: yields a temporary file that becomes `path` at the block's end.

    Args:
        path: The file to write; its folder is made if it is missing.

    Yields:
        The temporary file. If the block raises, it is removed and `path` is unchanged.
    """
    folder, name = os.path.split(os.fspath(path))
    folder = folder or "."
    make_dirs(folder)
    if is_remote(path):
        temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}")
        file: Any = io.BufferedWriter(_RemoteFile(temporary, "wb"), REMOTE_BUFFER)
    else:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
        # mkstemp makes the file private; a result file gets the permissions any new file gets.
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(handle, 0o666 & ~umask)
        file = os.fdopen(handle, "wb")
    try:
        with file:
            yield cast(BinaryIO, file)
            file.flush()
            if not is_remote(path):
                os.fsync(file.fileno())
        if is_remote(path):
            with open_gfile() as gfile:
                gfile.rename(temporary, os.fspath(path), overwrite=True)
        else:
            os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file of `text` (UTF-8) atomically; see `replaced_file`."""
    with replaced_file(path) as file:
        file.write(text.encode())


def append_text(path: str, text: str) -> None:
    """Adds `text` (UTF-8) to the end of a file, which is made if it is missing."""
    if not is_remote(path):
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
        return
    with open_gfile() as gfile, gfile.GFile(path, "a") as file:
        file.write(text)


@contextmanager
def replaced_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Writes a folder atomically: yields an empty local one that becomes `path` at the block's end.

    Args:
        path: The directory to write; an existing one is replaced when the block ends. Uploads to a
            remote one are not atomic, but end with `saved_model.pb`: without it no program takes a
            partial upload for a SavedModel.

    Yields:
        The temporary directory to fill. If the block raises, it is removed and `path` is unchanged.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="tf_finetune.") as folder:
            yield Path(folder)
            _upload(folder, os.fspath(path))
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        temporary.chmod(0o755)
        yield temporary
        if target.exists():
            discarded = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
            os.replace(target, discarded / target.name)
            os.replace(temporary, target)
            shutil.rmtree(discarded)
        else:
            os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _upload(folder: str, target: str) -> None:
    remove(os.path.join(target, "saved_model.pb"))
    remove(target)
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    for file in sorted(files, key=lambda file: file.name == "saved_model.pb"):
        path = os.path.join(target, file.relative_to(folder).as_posix())
        make_dirs(os.path.dirname(path))
        with open_gfile() as gfile:
            gfile.copy(str(file), path, overwrite=True)


class _RemoteFile(io.RawIOBase):
    """A `tf.io.gfile.GFile` as the raw binary file that gzip, NumPy and Arrow expect."""

    def __init__(self, path: str, mode: str) -> None:
        with open_gfile() as gfile:
            self._file = gfile.GFile(path, mode)
        self._reads = "r" in mode
        if not self._reads:
            self.write(b"")  # GFile makes a file at its first write: an empty one needs it too.

    def readable(self) -> bool:
        return self._reads

    def writable(self) -> bool:
        return not self._reads

    def seekable(self) -> bool:
        return self._reads

    def readinto(self, buffer: Any) -> int:
        with open_gfile():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with open_gfile():
            self._file.seek(offset, whence)
            return int(self._file.tell())

    def tell(self) -> int:
        if not self._reads:
            raise io.UnsupportedOperation("tell")
        with open_gfile():
            return int(self._file.tell())

    def write(self, data: Any) -> int:
        with open_gfile():
            self._file.write(bytes(data))
        return len(data)

    def close(self) -> None:
        if not self.closed:
            with open_gfile():
                self._file.close()
        super().close()


@contextmanager
def open_gfile() -> Iterator[Any]:
    """Yields `tf.io.gfile`; its errors are raised as `OSError`, as for local files."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, error.message) from None
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message) from None
