"""The programs that decode: they read prompts, and choose token after token."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from keras import ops

from tf_finetune.generation.sampling import Sampler
from tf_finetune.models.causal_attention import Memory, NewMemory, Seen
from tf_finetune.models.decoding_weights import DecodingWeights, WeightTensors
from tf_finetune.models.linear import product_of_parts

# The room of a memory is a multiple of this.
BLOCK = 64


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


class DecodingLoop:
    """The traced programs that decode with a network.

    Without XLA one program serves all lengths of a batch size and a sampler; XLA compiles one for
    each length of the prompts, each room of the memories and each number of steps.
    """

    def __init__(self, network: Any, jit_compile: bool = False) -> None:
        """Traces nothing yet.

        Args:
            network: A decoder; see `LlamaDecoder`. What is trained of it is as of the last
                `refresh`.
            jit_compile: Whether XLA compiles the programs.
        """
        self.jit_compile = jit_compile
        self._network = network
        self._weights = DecodingWeights(network)
        self._programs: dict[tuple[str, Sampler, int], Callable[..., Any]] = {}

    def refresh(self) -> None:
        """Learns what the network has learnt since the last call."""
        self._weights.refresh()

    def prefill(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        uniform: tf.Tensor,
        values: tf.Tensor,
        sampler: Sampler,
    ) -> State:
        """Reads prompts and chooses the first token of each answer.

        Args:
            ids: int32 [batch, length], padded at the left.
            starts: int32 [batch], the place of each row's first token.
            uniform: float32 [batch]; see `Sampler.next_ids`.
            values: See `Sampler.next_ids`.
            sampler: Chooses.
        """
        return self._run(self._prefill, sampler, ids, starts, uniform, values)

    def steps(
        self,
        state: State,
        count: int,
        uniform: tf.Tensor,
        stop_ids: tf.Tensor,
        done: tf.Tensor,
        values: tf.Tensor,
        sampler: Sampler,
    ) -> tuple[State, tf.Tensor]:
        """Decodes some tokens of each row.

        Args:
            state: After the token that was chosen last; it is used up.
            count: The number of tokens.
            uniform: float32 [batch, at least count]; see `Sampler.next_ids`. Where XLA compiles,
                another length is another program.
            stop_ids: int32 [stop ids], at which a row is finished.
            done: bool [batch], rows that are finished already.
            values: See `Sampler.next_ids`.
            sampler: Chooses.

        Returns:
            The new state, and int32 [batch, count] tokens, zeros after all rows are finished.
        """
        room, needed = state.memories[0].keys.shape[2], int(state.place) + count
        if needed > room:
            # In place of a few for each block, so that little is copied.
            room = rounded_up(max(needed, room * 5 // 4)) - room
            more = [[0, 0], [0, 0], [0, room], [0, 0]]
            parts = [Memory(*(tf.pad(part, more) for part in one)) for one in state.memories]
            state = state._replace(memories=parts)
        number = tf.constant(count)
        state, ids = self._run(self._steps, sampler, state, number, uniform, stop_ids, done, values)
        return state, ids[:, :count]

    def _run(self, function: Callable[..., Any], sampler: Sampler, *tensors: Any) -> Any:
        flat = tf.nest.flatten(tensors)
        key = function.__name__, sampler, next(t.shape[0] for t in flat if t.shape.rank)
        if key not in self._programs:
            signature = None if self.jit_compile else tf.nest.map_structure(_any_length, tensors)
            self._programs[key] = tf.function(
                functools.partial(function, sampler=sampler),
                input_signature=signature,
                jit_compile=self.jit_compile,
                autograph=False,
            )
        return self._programs[key](*tensors)

    def _prefill(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        uniform: tf.Tensor,
        values: tf.Tensor,
        *,
        sampler: Sampler,
    ) -> State:
        batch, length = ops.shape(ids)
        before = tf.zeros((batch, 0), tf.bool)
        if sampler.penalizes:
            real = tf.range(length)[tf.newaxis] >= starts[:, tf.newaxis]
            rows = tf.broadcast_to(tf.range(batch)[:, tf.newaxis], (batch, length))
            before = tf.scatter_nd(
                tf.stack([rows, ids], axis=-1), tf.cast(real, tf.int32), (batch, self._size)
            )
            before = before > 0
        memories = [NewMemory(rounded_up(length + 1)) for _ in self._network.layers]
        state = State(memories, before, ids[:, -1], starts, tf.constant(0))
        return self._next(state, ids, self._weights.read(), uniform, values, sampler)

    def _steps(
        self,
        state: State,
        count: tf.Tensor,
        uniform: tf.Tensor,
        stop_ids: tf.Tensor,
        done: tf.Tensor,
        values: tf.Tensor,
        *,
        sampler: Sampler,
    ) -> tuple[State, tf.Tensor]:
        def is_going(step: tf.Tensor, _: Any, done: tf.Tensor, __: Any) -> tf.Tensor:
            return (step < count) & ~tf.reduce_all(done)

        weights = self._weights.read()

        def go(step: tf.Tensor, state: Any, done: tf.Tensor, chosen: Any) -> Any:
            ids = state.last[:, tf.newaxis]
            state = self._next(state, ids, weights, uniform[:, step], values, sampler)
            is_end = tf.reduce_any(state.last[:, tf.newaxis] == stop_ids, axis=-1)
            return step + 1, state, done | is_end, chosen.write(step, state.last)

        chosen = tf.TensorArray(tf.int32, ops.shape(uniform)[1], element_shape=state.last.shape)
        done = done | tf.reduce_any(state.last[:, tf.newaxis] == stop_ids, axis=-1)
        _, state, _, chosen = tf.while_loop(
            is_going, go, (0, state, done, chosen), parallel_iterations=1
        )
        return state, tf.transpose(chosen.stack())

    def _next(
        self,
        state: State,
        ids: tf.Tensor,
        weights: WeightTensors,
        uniform: tf.Tensor,
        values: tf.Tensor,
        sampler: Sampler,
    ) -> State:
        """Reads tokens, int32 [batch, length], and chooses those that come after the last."""
        length = ops.shape(ids)[1]
        is_new = isinstance(state.memories[0], NewMemory)
        seen = length if is_new else ops.shape(state.memories[0].keys)[2]
        starts = state.starts[:, tf.newaxis]
        places = state.place + tf.range(length)[tf.newaxis]
        keys = tf.cast(tf.range(seen)[tf.newaxis] >= starts, tf.int32)
        queries = tf.cast(places >= starts, tf.int32)
        inputs = {"token_ids": ids, "positions": tf.maximum(places - starts, 0)}
        hidden, memories = self._network.remember(
            inputs, Seen(queries, keys, state.place), state.memories, weights.layers
        )
        logits = tf.cast(product_of_parts(hidden[:, -1], weights.head), tf.float32)
        chosen = sampler.next_ids(logits, state.before, uniform, values)
        before = state.before
        if sampler.penalizes:
            places = tf.stack([tf.range(tf.size(chosen)), chosen], axis=1)
            before = tf.tensor_scatter_nd_update(before, places, tf.ones_like(chosen, tf.bool))
        return State(memories, before, chosen, state.starts, state.place + length)

    @property
    def _size(self) -> int:
        return int(self._network.head_kernel.shape[0])


def rounded_up(length: Any) -> Any:
    """Returns the least multiple of `BLOCK` that is not below a length."""
    return -(-length // BLOCK) * BLOCK


def _any_length(tensor: tf.Tensor) -> tf.TensorSpec:
    """Returns a tensor's shape with the number of tokens left open."""
    shape = tensor.shape.as_list()
    if len(shape) == 4:  # memories
        shape[2] = None
    if len(shape) == 2 and tensor.dtype != tf.bool:  # not by token of the vocabulary
        shape[1] = None
    return tf.TensorSpec(shape, tensor.dtype)
