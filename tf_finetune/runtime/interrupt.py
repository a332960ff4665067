"""Ctrl-C and SIGTERM: finish the step, save, then stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A signal stopped the training, after a checkpoint.

    Args:
        signum: The signal's number.
        message: The steps that are done, and how to resume.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


class Interruption:
    """The pending signal of a training, if there is one.

    Attributes:
        signum: Its number; None: no signal is pending.
    """

    signum: int | None = None

    @property
    def pending(self) -> bool:
        """Whether a signal is pending."""
        return self.signum is not None

    def stop(self, message: str) -> None:
        """Raises `Interrupted` with a message; a signal to another worker counts as SIGTERM."""
        number = self.signum or signal.SIGTERM
        where = "" if self.pending else " on another worker"
        raise Interrupted(number, f"{signal.Signals(number).name}{where}: {message}")


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Makes the first SIGINT or SIGTERM within the block pending; a second one acts as usual.

    Yields:
        The record to check between steps. Outside the main thread no signal becomes pending.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.getsignal(number) for number in numbers]

    def restore() -> None:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        interruption.signum = number
        restore()

    for number in numbers:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
