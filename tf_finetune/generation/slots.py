"""`Slots`: answers many prompts at once; prompts join and leave between any two tokens."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.generation.adapters import Adapters
from tf_finetune.generation.answer_text import AnswerText
from tf_finetune.generation.next_tokens import choose_tokens
from tf_finetune.generation.reading import fitted, grown, power_of_two, rounded_up
from tf_finetune.generation.replies import Ask, Reply
from tf_finetune.generation.slot_programs import SlotPrograms
from tf_finetune.generation.turns import in_turn
from tf_finetune.models.causal_attention import Memory
from tf_finetune.text.stream_decoder import StreamDecoder

# The most tokens of prompts that are read between two steps: others wait for them.
CHUNK = 512


@dataclass
class _Reading:
    """A prompt that is read in chunks.

    Attributes:
        reply: Its answer.
        memories: Of what has been read.
        count: How many tokens these are.
    """

    reply: Reply
    memories: list[Memory]
    count: int


class Slots:
    """Answers prompts with a decoder that learns no more, a row for each.

    What is answered to a prompt does not depend on the others: each row has its own place in the
    memory, its own settings and its own random numbers. The memory is as large as the rows at work
    need, at most `rows` times `longest` tokens, and none while there is nothing to answer.

    It is not for several threads.
    """

    def __init__(self, decoder: Decoder, rows: int = 16, longest: int | None = None) -> None:
        """Copies weights for decoding; see `DecodingWeights`.

        Args:
            decoder: The base, without adapters.
            rows: The most prompts that are answered at once; an asker gets three quarters at most.
            longest: The most tokens of a prompt with its answer; None: as many as the decoder was
                made for.
        """
        self.decoder, self.rows = decoder, rows
        most = decoder.config.max_positions
        self.longest = min(longest or most, most)
        self.adapters = Adapters(decoder.network)
        self.waiting: deque[Reply] = deque()
        self.programs = SlotPrograms(decoder.network)
        self._replies: list[Reply | None] = []
        self._memories: list[Memory] = []
        self._reading: _Reading | None = None
        self._has_read = False  # The last step has read prompts.

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to answer."""
        return not (self.waiting or self._live or self._reading)

    @property
    def at_work(self) -> list[Reply]:
        """The answers that have not ended, those that wait included."""
        reading = [self._reading.reply] if self._reading else []
        return [*self._live, *reading, *self.waiting]

    @property
    def size(self) -> int:
        """The bytes of its memory."""
        parts = [part for memory in self._memories for part in memory]
        return sum(part.shape.num_elements() * part.dtype.size for part in parts)

    def check(self, ask: Ask) -> None:
        """Checks that a prompt can be answered.

        Raises:
            UserError: It is empty, or leaves no room for the answer.
        """
        count = len(ask.prompt)
        if not count:
            raise UserError("The prompt is empty. Give at least a token to go on from.")
        if count + ask.max_tokens > self.longest or ask.max_tokens < 1:
            raise UserError(
                f"A prompt of {count:,} tokens and an answer of up to {ask.max_tokens:,} are more "
                f"than the {self.longest:,} tokens that there is room for. Shorten the prompt, or "
                "allow fewer tokens."
            )

    def add(self, ask: Ask) -> Reply:
        """Lets a prompt wait for a free row.

        Returns:
            Its answer, which grows in `step`.

        Raises:
            UserError: See `check`.
        """
        self.check(ask)
        text = AnswerText(StreamDecoder(self.decoder.tokenizer), ask.settings.stop)
        reply = Reply(ask, text)
        if ask.settings.is_biased:
            reply.bias = np.zeros(self.decoder.network.head_kernel.shape[0], np.float32)
            for id, value in ask.settings.logit_bias.items():
                reply.bias[id] += value
        self.waiting.append(reply)
        return reply

    def drop(self, reply: Reply) -> None:
        """Forgets an answer that nobody waits for; one that has ended, too."""
        if reply in self.waiting:
            self.waiting.remove(reply)
        if self._reading and self._reading.reply is reply:
            self._reading = None
        self._replies = [None if other is reply else other for other in self._replies]
        self._give_back()

    def step(self) -> list[Reply]:
        """Reads some prompts, if any wait and rows are free, or a token of each row, by turns.

        Returns:
            The answers that have got a token: the first one is not kept back until the second.
        """
        changed = None if self._has_read else self._admit()
        self._has_read = changed is not None
        if changed is None:
            changed = self._live
            if changed:
                self._decode()
        self._replies = [
            None if reply and reply.answer.reason else reply for reply in self._replies
        ]
        self._give_back()
        return changed

    @property
    def _live(self) -> list[Reply]:
        return [reply for reply in self._replies if reply]

    # Prompts

    def _admit(self) -> list[Reply] | None:
        """Reads the next prompts or a chunk of one.

        Returns:
            The answers that have begun; None: there was nothing to read.
        """
        if self._reading:
            return self._read_chunk(self._reading)
        group = self._next_group()
        if not group:
            return None
        for reply in group:
            self.waiting.remove(reply)
        if len(group) == 1 and len(group[0].ask.prompt) > CHUNK:
            return self._read_first_chunk(group[0])
        # The prompts of several answers are read once.
        keys = [(reply.ask.adapter, tuple(reply.ask.prompt)) for reply in group]
        unique = list(dict.fromkeys(keys))
        length = max(len(prompt) for _, prompt in unique)
        ids = np.zeros((len(unique), length), np.int32)
        for row, (_, prompt) in zip(ids, unique, strict=True):
            row[length - len(prompt) :] = prompt
        for reply in group:
            reply.start = length - len(reply.ask.prompt)
        starts = tf.constant([length - len(prompt) for _, prompt in unique])
        adapters = self.adapters.of([adapter for adapter, _ in unique])
        memories, logits = self.programs.read_prompts(
            tf.constant(ids), starts, length + 1, adapters
        )
        rows = [unique.index(key) for key in keys]
        if len(unique) < len(group):
            memories, logits = fitted(memories, rows), tf.gather(logits, rows)
        return self._begin(group, memories, logits)

    def _next_group(self) -> list[Reply]:
        """Returns whose turn it is first, with as many as fit into the rows and a chunk.

        Prompts of its length come with it before others: they are padded least.
        """
        able = in_turn(self.waiting, self._live, self.rows)
        longest = len(able[0].ask.prompt) if able else 0
        able.sort(key=lambda reply: abs(len(reply.ask.prompt) - longest))
        group: list[Reply] = []
        prompts: set[Sequence[int]] = set()
        for reply in able:
            prompts.add(tuple(reply.ask.prompt))
            longest = max(longest, len(reply.ask.prompt))
            if group and longest * len(prompts) > CHUNK:
                break
            group.append(reply)
        return group

    def _read_first_chunk(self, reply: Reply) -> list[Reply]:
        prompt = reply.ask.prompt
        ids = tf.constant([list(prompt[:CHUNK])], tf.int32)
        memories, _ = self.programs.read_prompts(
            ids, _starts([reply]), len(prompt) + 1, self._adapters([reply])
        )
        self._reading = _Reading(reply, memories, CHUNK)
        return []

    def _read_chunk(self, reading: _Reading) -> list[Reply]:
        reply, prompt = reading.reply, reading.reply.ask.prompt
        ids = prompt[reading.count : reading.count + CHUNK]
        memories, logits = self.programs.read_on(
            tf.constant([list(ids)], tf.int32),
            _starts([reply]),
            tf.constant([reading.count]),
            reading.memories,
            self._adapters([reply]),
        )
        self._reading = _Reading(reply, memories, reading.count + len(ids))
        if self._reading.count < len(prompt):
            return []
        self._reading = None
        return self._begin([reply], memories, logits)

    def _begin(
        self, group: Sequence[Reply], memories: list[Memory], logits: tf.Tensor
    ) -> list[Reply]:
        """Chooses the first token of answers, and gives rows to those that go on."""
        choose_tokens(group, logits)
        going = [number for number, reply in enumerate(group) if not reply.answer.reason]
        if going:
            if len(going) < len(group):
                memories = fitted(memories, going)
            self._place([group[number] for number in going], memories)
        return list(group)

    # Rows

    def _place(self, group: Sequence[Reply], memories: list[Memory]) -> None:
        """Gives rows, and more of them if need be, to new answers."""
        needed = len(self._live) + len(group)
        if needed > len(self._replies):
            self._fit(min(power_of_two(needed), self.rows), self._memories or memories)
        self._memories = grown(self._memories, memories[0].room)
        free = [number for number, reply in enumerate(self._replies) if reply is None]
        rows = free[: len(group)]
        self._memories = self.programs.put_rows(self._memories, memories, rows)
        for row, reply in zip(rows, group, strict=True):
            self._replies[row] = reply

    def _fit(self, size: int, memories: Sequence[Memory], room: int | None = None) -> None:
        """Makes memories of so many rows the memory, the first of them those at work."""
        live = [number for number, reply in enumerate(self._replies) if reply]
        self._memories = fitted(memories, live, size, room)
        self._replies = [self._replies[number] for number in live] + [None] * (size - len(live))

    def _give_back(self) -> None:
        """Gives memory back that neither rows at work nor those that wait need."""
        if not self._live:
            self._replies, self._memories = [], []
            return
        size = power_of_two(min(len(self._live) + len(self.waiting), self.rows))
        room = rounded_up(max(reply.place for reply in self._live) + 1)
        # What is needed soon again is kept: it would be copied.
        is_wide, is_long = 4 * size <= len(self._replies), 4 * room <= self._memories[0].room
        if is_wide or is_long:
            size = size if is_wide else len(self._replies)
            self._fit(size, self._memories, room if is_long else None)

    def _decode(self) -> None:
        """Reads the last token of each row and chooses the next."""
        replies = self._replies
        places = [reply.place if reply else 0 for reply in replies]
        ids = [[reply.tokens[-1].id if reply else 0] for reply in replies]
        self._memories = grown(self._memories, max(places) + 1)
        self._memories, logits = self.programs.read_on(
            tf.constant(ids, tf.int32),
            _starts(replies),
            tf.constant(places, tf.int32),
            self._memories,
            self._adapters(replies),
        )
        choose_tokens(replies, logits)

    def _adapters(self, replies: Sequence[Reply | None]) -> Any:
        return self.adapters.of([reply.ask.adapter if reply else None for reply in replies])


def _starts(replies: Sequence[Reply | None]) -> tf.Tensor:
    return tf.constant([reply.start if reply else 0 for reply in replies], tf.int32)
