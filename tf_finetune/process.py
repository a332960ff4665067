"""Settings of a process before TensorFlow is imported, and a faster import of it."""

import gc
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Keras imports them where they are installed, for pictures and for its copies of scikit-learn's
# classes: a quarter of the time of its import. No program here uses those.
_NOT_NEEDED = ("cv2", "matplotlib", "sklearn")


def set_up_process() -> None:
    """Chooses Keras's backend and oneDNN, silences TensorFlow's log, makes any text printable."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    prefer_onednn()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # A missing GPU is logged as an error.
    for stream in (sys.stdout, sys.stderr):  # Data may hold characters their encoding lacks.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def prefer_onednn() -> None:
    """Chooses oneDNN, where the user has not chosen, for a TensorFlow that is imported later."""
    if platform.machine() in ("x86_64", "AMD64"):
        # TensorFlow leaves it off where a processor has AVX2 alone; docs/performance.md has times.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def own_environment() -> dict[str, str]:
    """Returns the environment of a process of Python that is to import this package."""
    path = str(Path(__file__).resolve().parents[1])
    searched = os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": searched}


@contextmanager
def uncollected_imports(freeze: bool = False) -> Iterator[None]:
    """Pauses the garbage collector while the block imports TensorFlow, which makes it faster.

    If TensorFlow is imported already, the block changes nothing.

    Args:
        freeze: Exempt every object alive after the block from collection (`gc.freeze`), and leave
            out what Keras imports for uses that no program here has. For use at program start,
            where nearly all objects belong to modules. docs/performance.md has the times.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    left_out = [name for name in _NOT_NEEDED if freeze and name not in sys.modules]
    for name in left_out:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say: not installed.
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]
        gc.freeze()
        if not freeze:
            gc.unfreeze()  # Moves all objects to the oldest generation without a collection.
        gc.enable()
