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
def uncollected_imports(freeze: bool = False) -> Iterator[None]:
    """Pauses the garbage collector while the block imports TensorFlow: a quarter of that time.

    If TensorFlow is imported already, the block changes nothing.

    Args:
        freeze: Exempt every object alive after the block from collection (`gc.freeze`). For use at
            program start, where nearly all objects belong to modules; it saves two seconds more of
            a short run.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if not freeze:
            gc.unfreeze()  # Into the oldest generation, unsearched.
        gc.enable()
