"""Loads models beside the engine's thread, which goes on with other answers meanwhile."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import keras

from tf_finetune.server.engine import Call, Stream, as_told
from tf_finetune.server.loaded import Loaded, Model, Steps, key_of


class Loading:
    """Loads one model at a time, and each once for all who wait for it.

    What takes long runs in a thread of its own; what is in memory is changed in the engine's alone.
    """

    def __init__(self, loaded: Loaded, call: Call, begin: Callable[[Model, Stream], None]) -> None:
        """Is called in the engine's thread, whose dtype policy models are loaded with.

        Args:
            loaded: The models in memory.
            call: Has a function called in the engine's thread.
            begin: Takes an inquiry, with its model.
        """
        self._loaded, self._call, self._begin = loaded, call, begin
        # Keras keeps a policy for each thread.
        policy = keras.config.dtype_policy()
        self._thread = ThreadPoolExecutor(
            1, "loading", partial(keras.config.set_dtype_policy, policy)
        )
        self._waiting: list[Stream] = []
        self._is_at_work = False

    def add(self, stream: Stream) -> None:
        """Lets an inquiry wait for its model, which is not in memory."""
        self._waiting.append(stream)
        if not self._is_at_work:
            self._start()

    def drop(self, stream: Stream) -> None:
        """Forgets an inquiry."""
        if stream in self._waiting:
            self._waiting.remove(stream)

    def close(self) -> None:
        """Ends the thread; what it is reading is read to its end."""
        self._thread.shutdown(cancel_futures=True)

    def _start(self) -> None:
        """Loads the model of the inquiry that has waited longest."""
        if self._waiting:
            self._is_at_work = True
            model = self._waiting[0].inquiry.model
            self._go_on(key_of(model), self._loaded.load(model), None)

    def _go_on(self, key: str, steps: Steps, done: "Future[Any] | None") -> None:
        """Takes the result of a step, and has the next one made."""
        try:
            if done is None:
                step = next(steps)
            elif error := done.exception():
                step = steps.throw(error)
            else:
                step = steps.send(done.result())
        except StopIteration as end:
            self._end(key, end.value)
        except Exception as error:
            self._end(key, as_told(error))
        else:
            self._thread.submit(step).add_done_callback(
                lambda done: self._call(lambda: self._go_on(key, steps, done))
            )

    def _end(self, key: str, found: Model | Exception) -> None:
        """Gives a model, or why there is none, to all who wait for it; loads the next one."""
        waited = [stream for stream in self._waiting if key_of(stream.inquiry.model) == key]
        self._waiting = [stream for stream in self._waiting if stream not in waited]
        for stream in waited:
            if isinstance(found, Exception):
                stream.fail(found)
            else:
                self._begin(found, stream)
        self._is_at_work = False
        self._start()
