"""Decoding: answers to prompts, token after token."""

import os
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.generation.answer_text import AnswerText
from tf_finetune.generation.answers import Answer
from tf_finetune.generation.decoding_loop import DecodingLoop, State
from tf_finetune.generation.drafts import Drafts
from tf_finetune.generation.sampling import make_sampler, sampler_values, uniforms
from tf_finetune.generation.sampling_config import SamplingConfig
from tf_finetune.text.stream_decoder import StreamDecoder

# The most batches that are decoded side by side.
MOST_STREAMS = 4


class Decoding:
    """Answers prompts, token ids, with a decoder, which may learn on in between.

    On a CPU several batches are decoded side by side: the operations of a single one are too small
    to keep more than a core busy all the time.
    """

    def __init__(self, decoder: Decoder, jit_compile: bool = False) -> None:
        """Traces nothing yet.

        Args:
            decoder: The decoder.
            jit_compile: Whether XLA compiles the programs.
        """
        self.decoder = decoder
        self.loop = DecodingLoop(decoder.network, jit_compile)
        on_gpu = tf.config.list_physical_devices("GPU")
        self._streams = 1 if jit_compile or on_gpu else min(os.cpu_count() or 1, MOST_STREAMS)
        # For `stream` alone: what `answer` gives depends on nothing before.
        self._drafts = Drafts()

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig = SamplingConfig(),
        *,
        seed: int = 0,
        batch_size: int = 16,
    ) -> list[Answer]:
        """Answers prompts; those of similar length share a batch.

        Args:
            prompts: The ids of each.
            sampling: How tokens are chosen.
            seed: Of what is drawn.
            batch_size: Prompts in a batch.

        Returns:
            The answers, in the order of the prompts. The time of a batch is shared by its rows and
            by the batches beside it.

        Raises:
            UserError: A prompt leaves no room for an answer.
        """
        for prompt in prompts:
            self.check(prompt, sampling)
        self.loop.refresh()
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        # One for each stream: so no answer depends on which of two batches was faster.
        drafts = [Drafts() for _ in range(min(self._streams, len(batches)))]
        answers: dict[int, Answer] = {}
        stopped = threading.Event()

        def decode(stream: int) -> None:
            for rows in batches[stream :: len(drafts)]:
                started = time.perf_counter()
                # A smaller batch would be traced anew.
                padded = rows + rows[-1:] * (len(batches[0]) - len(rows))
                chosen = [prompts[row] for row in padded]
                batch = _Batch(self, chosen, np.array(padded), sampling, seed, drafts[stream])
                for _ in batch:
                    if stopped.is_set():
                        return
                seconds = (time.perf_counter() - started) / len(rows) / len(drafts)
                for row, done in zip(rows, batch.rows, strict=False):
                    text, reason = done.answer, cast(Any, done.answer.reason)
                    answers[row] = Answer(text.text, text.tokens, reason, seconds)

        if len(drafts) == 1:
            decode(0)
        elif drafts:
            with ThreadPoolExecutor(len(drafts)) as pool:
                try:
                    streams = [pool.submit(decode, number) for number in range(len(drafts))]
                    for stream in as_completed(streams):
                        stream.result()
                except BaseException:  # Ctrl-C too
                    stopped.set()
                    raise
        return [answers[row] for row in range(len(prompts))]

    def stream(
        self, prompt: Sequence[int], sampling: SamplingConfig = SamplingConfig(), *, seed: int = 0
    ) -> Iterator[str]:
        """Answers a prompt piece by piece, as its tokens come.

        Raises:
            UserError: The prompt leaves no room for an answer.
        """
        self.check(prompt, sampling)
        self.loop.refresh()
        batch = _Batch(self, [prompt], np.array([0]), sampling, seed, self._drafts)
        for _ in batch:
            if part := batch.rows[0].answer.part():
                yield part

    def check(self, prompt: Sequence[int], sampling: SamplingConfig) -> None:
        """Checks that a prompt leaves room for an answer.

        Raises:
            UserError: It does not.
        """
        most = self.decoder.config.max_positions
        if len(prompt) + sampling.max_new_tokens > most:
            raise UserError(
                f"A prompt of {len(prompt):,} tokens and an answer of --max_new_tokens="
                f"{sampling.max_new_tokens} are more than the {most:,} tokens that the model was "
                "made for. Shorten the prompt, or allow fewer new tokens."
            )


@dataclass
class _Row:
    """A prompt and its answer, which grows.

    Attributes:
        ids: The tokens of both.
        answer: The answer's text.
        left: How many tokens the answer may still have.
        uniform: float32 [max_new_tokens]; see `Sampler.next_ids`.
    """

    ids: list[int]
    answer: AnswerText
    left: int
    uniform: np.ndarray

    def push(self, ids: Sequence[int], stop_ids: Collection[int]) -> int:
        """Takes the next tokens, as far as the answer goes; returns how many."""
        for count, id in enumerate(ids, start=1):
            self.ids.append(id)
            self.left -= 1
            self.answer.push(id, id in stop_ids)
            if not self.left:
                self.answer.end()
            if self.answer.reason:
                return count
        return len(ids)


class _Batch:
    """The answers to some prompts, which grow while it is iterated over."""

    def __init__(
        self,
        decoding: Decoding,
        prompts: Sequence[Sequence[int]],
        rows: np.ndarray,
        sampling: SamplingConfig,
        seed: int,
        drafts: Drafts,
    ) -> None:
        self.decoding, self.drafts = decoding, drafts
        self.sampler = make_sampler(sampling)
        self.is_guessing = self.sampler.allows_guesses and drafts.most_tokens(len(prompts)) > 1
        self.values = sampler_values(sampling)
        most, tokenizer = sampling.max_new_tokens, decoding.decoder.tokenizer
        self.rows = [
            _Row(list(prompt), AnswerText(StreamDecoder(tokenizer), sampling.stop), most, uniform)
            for prompt, uniform in zip(prompts, uniforms(seed, rows, most), strict=True)
        ]

    def __iter__(self) -> Iterator[None]:
        loop, drafts = self.decoding.loop, self.drafts
        state, starts, chosen = self._prefill()
        for row in self.rows if self.is_guessing else ():
            drafts.learn(row.ids, 0)
        self._push([[] for _ in self.rows], chosen)
        yield
        while not all(row.answer.reason for row in self.rows):
            guesses: list[list[int]] = [[] for _ in self.rows]
            if self.is_guessing:
                guesses = drafts.guess(
                    [row.ids for row in self.rows],
                    # One more is chosen after the last guess.
                    [0 if row.answer.reason else row.left - 1 for row in self.rows],
                )
            length = drafts.most_tokens(len(self.rows)) if any(guesses) else 1
            ids = np.zeros((len(self.rows), length), np.int32)
            uniform = np.zeros(ids.shape, np.float32)
            for number, (row, guess) in enumerate(zip(self.rows, guesses, strict=True)):
                ids[number, : 1 + len(guess)] = [row.ids[-1], *guess]
                drawn = row.uniform[len(row.uniform) - row.left :][:length]
                uniform[number, : len(drawn)] = drawn
            places = starts + [len(row.ids) - 1 for row in self.rows]
            state, chosen = loop.step(
                state,
                tf.constant(ids),
                tf.constant(places, tf.int32),
                tf.constant(uniform),
                self.values,
                self.sampler,
            )
            counts = self._push(guesses, chosen)
            if any(guesses):
                drafts.judge([count - 1 for count in counts if count])
            yield

    def _prefill(self) -> tuple[State, np.ndarray, tf.Tensor]:
        """Returns the state after the prompts, where each starts, and what comes after them."""
        length = max(len(row.ids) for row in self.rows)
        length = self.decoding.loop.padded_length(len(self.rows), length)
        ids = np.zeros((len(self.rows), length), np.int32)
        for number, row in enumerate(self.rows):
            ids[number, length - len(row.ids) :] = row.ids
        starts = np.array([length - len(row.ids) for row in self.rows], np.int32)
        state, chosen = self.decoding.loop.prefill(
            tf.constant(ids),
            tf.constant(starts),
            tf.constant([row.uniform[:1] for row in self.rows]),
            self.values,
            self.sampler,
        )
        return state, starts, chosen

    def _push(self, guesses: Sequence[Sequence[int]], chosen: tf.Tensor) -> list[int]:
        """Takes what was chosen after right guesses; returns how many tokens of each row."""
        stop_ids, counts = self.decoding.decoder.chat.stop_ids, []
        for row, guess, ids in zip(self.rows, guesses, chosen.numpy().tolist(), strict=True):
            if row.answer.reason:
                counts.append(0)
                continue
            right = 0
            while right < len(guess) and guess[right] == ids[right]:
                right += 1
            counts.append(row.push(ids[: right + 1], stop_ids))
            if self.is_guessing:
                self.drafts.learn(row.ids, len(row.ids) - counts[-1])
        return counts
