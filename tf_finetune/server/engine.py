"""`Engine`: one thread that owns TensorFlow and answers all requests."""

import asyncio
import queue
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from tf_finetune.errors import UserError
from tf_finetune.generation.answer_settings import AnswerSettings
from tf_finetune.generation.turns import most_of_one
from tf_finetune.server.models import ServedModel

# Has a function called in the engine's thread, soon.
Call: TypeAlias = Callable[[Callable[[], None]], None]
# Seconds within which those who ask an idle engine are taken for asking together: the prompts of
# all are read at once, and no first token waits for two readings.
GATHERING = 0.005
# Messages, a text, or token ids.
Prompt = Sequence[Mapping[str, Any]] | str | Sequence[int]


@dataclass(frozen=True)
class Inquiry:
    """Prompts, and how a model is to answer them; see `Ask`.

    Attributes:
        model: The model.
        prompts: What is asked; all of one kind.
        n: How many answers each prompt gets.
        max_tokens: The most tokens of an answer; None: as many as there is room for.
        settings: How the tokens of an answer are chosen.
        logprobs: How many of the most probable tokens are told with each; None: nothing is told.
    """

    model: ServedModel
    prompts: Sequence[Prompt]
    n: int = 1
    max_tokens: int | None = None
    settings: AnswerSettings = field(default_factory=AnswerSettings)
    logprobs: int | None = None

    @property
    def count(self) -> int:
        """How many answers are asked for."""
        return len(self.prompts) * self.n


@dataclass(frozen=True)
class TokenText:
    """A token of an answer, as text.

    Attributes:
        content: The token in UTF-8; it may be a part of a character.
        logprob: The logarithm of its probability.
        top: The most probable tokens in its place, with theirs.
    """

    content: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True)
class Piece:
    """What an answer goes on with.

    Attributes:
        index: The number of the answer: those to the first prompt come first.
        text: The text.
        tokens: Those of them that have come, where log-probabilities were asked for.
        reason: Why it ends with this, `stop` or `length`; empty: it goes on.
        count: How many tokens the answer has so far.
    """

    index: int
    text: str
    tokens: tuple[TokenText, ...] = ()
    reason: str = ""
    count: int = 0


class Failed(Exception):
    """The engine has failed at a request."""


class Stream:
    """The answers to an inquiry, which come piece by piece.

    A reader may be slow: what waits for it is no more than its answers.

    Attributes:
        inquiry: What was asked.
        is_closed: Whether nobody reads it any more.
        left: How many answers have not been read to their end.
    """

    def __init__(self, inquiry: Inquiry, close: Callable[["Stream"], None]) -> None:
        """Is called by `Engine.submit`, in the event loop of the reader."""
        self.inquiry = inquiry
        self.is_closed = False
        self.left = inquiry.count
        self._close, self._loop = close, asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        self._prompt_tokens: asyncio.Future[int] = self._loop.create_future()

    async def begin(self) -> int:
        """Waits until the prompts are taken; returns their tokens.

        Raises:
            UserError: A prompt or the model is refused.
            Failed: The engine has failed.
        """
        return await self._prompt_tokens

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while self.left:
            piece = await self._pieces.get()
            if isinstance(piece, Exception):
                raise piece
            self.left -= bool(piece.reason)
            yield piece

    def close(self) -> None:
        """Ends the answers, if they have not ended: nobody reads on."""
        if not self.is_closed:
            self.is_closed = True
            self._close(self)

    # For the engine's thread.

    def begun(self, prompt_tokens: int) -> None:
        """Tells the reader how many tokens the prompts have."""
        self._call(_resolve, self._prompt_tokens, prompt_tokens)

    def push(self, piece: Piece) -> None:
        """Gives the reader a piece."""
        self._call(self._pieces.put_nowait, piece)

    def fail(self, error: Exception) -> None:
        """Tells the reader that there is no more, and why."""
        self._call(_resolve, self._prompt_tokens, error)
        self._call(self._pieces.put_nowait, error)

    def _call(self, function: Callable[..., Any], *values: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:  # The server has ended.
            self.is_closed = True


class Worker(Protocol):
    """What answers, in the engine's thread; it alone knows TensorFlow."""

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to answer."""

    def begin(self, stream: Stream) -> None:
        """Takes an inquiry."""

    def drop(self, stream: Stream) -> None:
        """Forgets the answers that a reader does not wait for any more."""

    def step(self) -> None:
        """Goes on with all answers by a token."""

    def close(self) -> None:
        """Ends what it does in other threads."""


class Engine:
    """Answers inquiries; those that arrive together are answered together.

    TensorFlow is loaded with the first one.
    """

    def __init__(self, make: Callable[[Call], Worker], most_waiting: int = 256) -> None:
        """Starts nothing yet.

        Args:
            make: Makes what answers; it is called once, in the engine's own thread, and gets what
                has a function called there.
            most_waiting: The most answers that are asked for at a time; further ones are refused.
        """
        self._make, self._most = make, most_waiting
        self._inbox: queue.SimpleQueue[Callable[[Worker], None] | None] = queue.SimpleQueue()
        self._open: set[Stream] = set()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many answers have been asked for and not been read to their end."""
        return sum(stream.left for stream in self._open)

    def submit(self, inquiry: Inquiry) -> Stream | None:
        """Asks for answers; who asks closes the stream. It is called in an event loop.

        Returns:
            The answers; None: too many wait already.

        Raises:
            UserError: One request may not ask for so many.
        """
        if inquiry.count > (most := most_of_one(self._most)):
            raise UserError(
                f"The request asks for {inquiry.count:,} answers (prompts times n); one request "
                f"may ask for {most:,}, three quarters of --max_waiting={self._most}. Ask for them "
                "in several requests."
            )
        if self.waiting + inquiry.count > self._most:
            return None
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
            self._thread.start()
        stream = Stream(inquiry, self._closed)
        self._open.add(stream)
        self._inbox.put(lambda worker: worker.begin(stream))
        return stream

    def stop(self) -> None:
        """Ends the thread after its step; answers that have not ended fail."""
        if thread := self._thread:
            self._inbox.put(None)
            thread.join()

    def _closed(self, stream: Stream) -> None:
        self._open.discard(stream)
        self._inbox.put(lambda worker: worker.drop(stream))

    def _work(self) -> None:
        try:
            worker = self._make(lambda task: self._inbox.put(lambda _: task()))
        except Exception as error:
            self._refuse_all(as_told(error))
            return
        pause = 0.0
        while True:
            is_idle = worker.is_idle
            pause = GATHERING if is_idle else pause
            try:
                task = self._inbox.get(timeout=None if is_idle else pause)
            except queue.Empty:
                pause = 0.0
                worker.step()
                continue
            if task is None:
                break
            try:
                task(worker)
            except Exception as error:  # The next request may be answered.
                as_told(error)
        self._refuse_all(Failed("The server is being stopped."))
        worker.close()

    def _refuse_all(self, error: Exception) -> None:
        self._thread = None  # The next request tries again.
        for stream in list(self._open):
            stream.fail(error)


def as_told(error: Exception) -> Exception:
    """Writes an unexpected error to the log; returns what the client is told."""
    if isinstance(error, UserError):
        return error
    traceback.print_exception(error, file=sys.stderr)
    return Failed("The server failed at this request; its log says why.")


def _resolve(future: "asyncio.Future[int]", result: int | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
        future.exception()  # Nobody may wait for it.
    else:
        future.set_result(result)
