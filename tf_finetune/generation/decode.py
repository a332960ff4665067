"""Decoding: answers to prompts, token after token."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.generation.answer_text import AnswerText
from tf_finetune.generation.answers import Answer
from tf_finetune.generation.decoding_loop import DecodingLoop, State, rounded_up
from tf_finetune.generation.sampling import make_sampler, sampler_values, uniforms
from tf_finetune.generation.sampling_config import SamplingConfig
from tf_finetune.text.stream_decoder import StreamDecoder

# Tokens between two looks at the answers, to see whether all are finished.
STEPS = 16


class Decoding:
    """Answers prompts, token ids, with a decoder, which may learn on in between."""

    def __init__(self, decoder: Decoder, jit_compile: bool = False) -> None:
        """Traces nothing yet.

        Args:
            decoder: The decoder.
            jit_compile: Whether XLA compiles the programs.
        """
        self.decoder = decoder
        self.loop = DecodingLoop(decoder.network, jit_compile)

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
            batch_size: Prompts at a time.

        Returns:
            The answers, in the order of the prompts. The time of a batch is shared by its rows.

        Raises:
            UserError: A prompt leaves no room for an answer.
        """
        for prompt in prompts:
            self.check(prompt, sampling)
        self.loop.refresh()
        answers: list[Answer | None] = [None] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            count = len(rows)
            # A smaller batch would be traced anew.
            rows += rows[-1:] * (min(batch_size, len(order)) - count)
            started = time.perf_counter()
            for _ in (texts := self._batch([prompts[row] for row in rows], rows, sampling, seed)):
                pass
            seconds = (time.perf_counter() - started) / count
            for row, text in zip(rows, texts.texts, strict=True):
                reason: Any = text.reason
                answers[row] = Answer(text.text, text.tokens, reason, seconds)
        return [answer for answer in answers if answer is not None]

    def stream(
        self, prompt: Sequence[int], sampling: SamplingConfig = SamplingConfig(), *, seed: int = 0
    ) -> Iterator[str]:
        """Answers a prompt piece by piece, as its tokens come.

        Raises:
            UserError: The prompt leaves no room for an answer.
        """
        self.check(prompt, sampling)
        self.loop.refresh()
        batch = self._batch([prompt], [0], sampling, seed, steps=1)
        for _ in batch:
            if part := batch.texts[0].part():
                yield part

    def _batch(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[int],
        sampling: SamplingConfig,
        seed: int,
        steps: int = STEPS,
    ) -> "_Batch":
        return _Batch(self, prompts, np.array(rows), sampling, seed, steps)

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


class _Batch:
    """The answers to some prompts, which grow while it is iterated over."""

    def __init__(
        self,
        decoding: Decoding,
        prompts: Sequence[Sequence[int]],
        rows: np.ndarray,
        sampling: SamplingConfig,
        seed: int,
        steps: int,
    ) -> None:
        self.decoding, self.prompts, self.steps = decoding, prompts, steps
        self.sampling, self.sampler = sampling, make_sampler(sampling)
        self.values = sampler_values(sampling)
        self.uniform = uniforms(seed, rows, sampling.max_new_tokens)
        tokenizer = decoding.decoder.tokenizer
        self.texts = [AnswerText(StreamDecoder(tokenizer), sampling.stop) for _ in prompts]

    def __iter__(self) -> Iterator[None]:
        stop_ids = self.decoding.decoder.chat.stop_ids
        state = self._prefill()
        self._push(state.last.numpy()[:, np.newaxis], stop_ids)
        yield
        done = 1
        while not all(text.reason for text in self.texts) and done < self.uniform.shape[1]:
            count = min(self.steps, self.uniform.shape[1] - done)
            uniform = self.uniform[:, done : done + count]
            state, ids = self.decoding.loop.steps(
                state,
                count,
                tf.constant(np.pad(uniform, ((0, 0), (0, self.steps - count)))),
                tf.constant(stop_ids, tf.int32),
                tf.constant([bool(text.reason) for text in self.texts]),
                self.values,
                self.sampler,
            )
            self._push(ids.numpy(), stop_ids)
            done += count
            yield
        for text in self.texts:
            text.end()
        yield

    def _prefill(self) -> State:
        length = max(map(len, self.prompts))
        if self.decoding.loop.jit_compile:
            length = rounded_up(length)
        ids = np.zeros((len(self.prompts), length), np.int32)
        for row, prompt in enumerate(self.prompts):
            ids[row, length - len(prompt) :] = prompt
        starts = np.array([length - len(prompt) for prompt in self.prompts], np.int32)
        return self.decoding.loop.prefill(
            tf.constant(ids),
            tf.constant(starts),
            tf.constant(self.uniform[:, 0]),
            self.values,
            self.sampler,
        )

    def _push(self, ids: np.ndarray, stop_ids: Sequence[int]) -> None:
        for text, row in zip(self.texts, ids, strict=True):
            for id in row:
                if not text.reason:
                    text.push(int(id), int(id) in stop_ids)
