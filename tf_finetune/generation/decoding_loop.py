"""The programs that decode: they read prompts, and choose token after token."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import tensorflow as tf

from tf_finetune.generation.sampling import Sampler
from tf_finetune.models.causal_attention import NewMemory, Seen


class State(NamedTuple):
    """Where the decoding of a batch is.

    Attributes:
        memories: Of each layer.
        before: bool [batch, vocabulary], see `Sampler.next_ids`.
        last: int32 [batch], the tokens that were chosen last.
        starts: int32 [batch], the place of each row's first token.
        place: int32 [], the place of the tokens that come next.
    """

    memories: Any
    before: tf.Tensor
    last: tf.Tensor
    starts: tf.Tensor
    place: tf.Tensor


@dataclass(frozen=True)
class DecodingLoop:
    """The traced programs that decode with a network.

    Attributes:
        network: A decoder; see `LlamaDecoder`. Each call uses the weights that it has then.
    """

    network: Any

    @cached_property
    def prefill(self) -> Any:
        """Reads prompts; see `_prefill`."""
        return tf.function(self._prefill, autograph=False, reduce_retracing=True)

    @cached_property
    def steps(self) -> Any:
        """Decodes some tokens; see `_steps`."""
        return tf.function(self._steps, autograph=False, reduce_retracing=True)

    def _prefill(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        room: tf.Tensor,
        uniform: tf.Tensor,
        values: tf.Tensor,
        sampler: Sampler,
    ) -> State:
        """Reads prompts and chooses the first token of each answer.

        Args:
            ids: int32 [batch, length], padded at the left.
            starts: int32 [batch], the place of each row's first token.
            room: int32 [], tokens that the memories can take.
            uniform: float32 [batch]; see `Sampler.next_ids`.
            values: See `Sampler.next_ids`.
            sampler: Chooses.
        """
        batch, length = tf.unstack(tf.shape(ids))
        before = tf.zeros((batch, 0), tf.bool)
        if sampler.penalizes:
            real = tf.cast(tf.range(length)[tf.newaxis] >= starts[:, tf.newaxis], tf.int32)
            counts = tf.math.bincount(ids, real, minlength=self._size, axis=-1)
            before = counts[:, : self._size] > 0
        memories = [NewMemory(room) for _ in self.network.layers]
        state = State(memories, before, ids[:, -1], starts, tf.constant(0))
        return self._next(state, ids, uniform, values, sampler)

    def _steps(
        self,
        state: State,
        uniform: tf.Tensor,
        stop_ids: tf.Tensor,
        done: tf.Tensor,
        values: tf.Tensor,
        sampler: Sampler,
    ) -> tuple[State, tf.Tensor]:
        """Decodes some tokens of each row.

        Args:
            state: After the token that was chosen last.
            uniform: float32 [batch, steps]; see `Sampler.next_ids`.
            stop_ids: int32 [stop ids], at which a row is finished.
            done: bool [batch], rows that are finished already.
            values: See `Sampler.next_ids`.
            sampler: Chooses.

        Returns:
            The new state, and int32 [batch, n] tokens, n at most `steps`: fewer if all rows are
            finished before.
        """
        count = tf.shape(uniform)[1]

        def is_going(step: tf.Tensor, _: Any, done: tf.Tensor, __: Any) -> tf.Tensor:
            return (step < count) & ~tf.reduce_all(done)

        def go(step: tf.Tensor, state: Any, done: tf.Tensor, chosen: Any) -> Any:
            state = self._next(state, state.last[:, tf.newaxis], uniform[:, step], values, sampler)
            is_end = tf.reduce_any(state.last[:, tf.newaxis] == stop_ids, axis=-1)
            return step + 1, state, done | is_end, chosen.write(step, state.last)

        batch = state.last.shape[0]
        chosen = tf.TensorArray(tf.int32, size=0, dynamic_size=True, element_shape=[batch])
        done = done | tf.reduce_any(state.last[:, tf.newaxis] == stop_ids, axis=-1)
        _, state, _, chosen = tf.while_loop(
            is_going, go, (0, state, done, chosen), parallel_iterations=1
        )
        return state, tf.transpose(chosen.stack())

    def _next(
        self,
        state: State,
        ids: tf.Tensor,
        uniform: tf.Tensor,
        values: tf.Tensor,
        sampler: Sampler,
    ) -> State:
        """Reads tokens, int32 [batch, length], and chooses those that come after the last."""
        length = tf.shape(ids)[1]
        is_new = isinstance(state.memories[0], NewMemory)
        seen = length if is_new else tf.shape(state.memories[0].keys)[2]
        starts = state.starts[:, tf.newaxis]
        places = state.place + tf.range(length)[tf.newaxis]
        keys = tf.cast(tf.range(seen)[tf.newaxis] >= starts, tf.int32)
        queries = tf.cast(places >= starts, tf.int32)
        inputs = {"token_ids": ids, "positions": tf.maximum(places - starts, 0)}
        hidden, memories = self.network.remember(
            inputs, Seen(queries, keys, state.place), state.memories
        )
        kernel = tf.cast(self.network.head_kernel, hidden.dtype)
        logits = tf.cast(tf.matmul(hidden[:, -1], kernel, transpose_b=True), tf.float32)
        chosen = sampler.next_ids(logits, state.before, uniform, values)
        before = state.before
        if sampler.penalizes:
            places = tf.stack([tf.range(tf.size(chosen)), chosen], axis=1)
            before = tf.tensor_scatter_nd_update(before, places, tf.ones_like(chosen, tf.bool))
        return State(memories, before, chosen, state.starts, state.place + length)

    @property
    def _size(self) -> int:
        return int(self.network.head_kernel.shape[0])
