"""What a process needs before TensorFlow is imported, and while it is."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def set_up_process() -> None:
    """Chooses Keras's backend, silences TensorFlow, and lets any text be printed."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # It calls it an error to have no GPU.
    for stream in (sys.stdout, sys.stderr):  # Data may hold what a terminal cannot show.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Keeps the garbage collector from what the block imports, then and later.

    Modules last as long as the process: to search TensorFlow's again and again takes 3 s of a run.
    Where TensorFlow is there already, as in a notebook, it leaves all as it is: the collector
    would lose sight of models too.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
