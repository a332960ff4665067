"""The programs that decode: they read prompts, and choose token after token."""

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from keras import ops

from tf_finetune.generation.reading import grown, read_tokens, rounded_up
from tf_finetune.generation.sampling import Sampler
from tf_finetune.models.causal_attention import NewMemory
from tf_finetune.models.decoding_weights import DecodingWeights, WeightTensors
from tf_finetune.models.linear import product_of_parts

# Prompts with so many tokens together are read by XLA kernels: these are faster and need less
# memory, but are compiled for each length.
FUSED_TOKENS = 2048


class State(NamedTuple):
    """What is remembered of the tokens so far of a batch.

    Attributes:
        memories: Of each layer.
        before: bool [batch, vocabulary], see `Sampler.next_ids`.
        starts: int32 [batch], the place of each row's first token.
    """

    memories: Any
    before: tf.Tensor
    starts: tf.Tensor


class DecodingLoop:
    """The traced programs that decode with a network.

    Without XLA one program serves all lengths of prompts and memories for a batch size, a sampler
    and a number of new tokens; XLA compiles one for each.
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
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._lock = threading.Lock()  # Two programs must not be traced at once.

    def refresh(self) -> None:
        """Learns what the network has learnt since the last call."""
        self._weights.refresh()

    def padded_length(self, batch: int, length: int) -> int:
        """Returns the length to pad prompts to: where XLA compiles for each, there are few."""
        compiles = self.jit_compile or batch * length >= FUSED_TOKENS
        return rounded_up(length) if compiles else length

    def prefill(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        uniform: tf.Tensor,
        values: tf.Tensor,
        sampler: Sampler,
    ) -> tuple[State, tf.Tensor]:
        """Reads prompts and chooses the first token of each answer.

        Args:
            ids: int32 [batch, length], padded at the left to `padded_length`.
            starts: int32 [batch], the place of each row's first token.
            uniform: float32 [batch, 1]; see `Sampler.next_ids`.
            values: See `Sampler.next_ids`.
            sampler: Chooses.

        Returns:
            The state after the prompts, and int32 [batch, 1].
        """
        fuse = ids.shape.num_elements() >= FUSED_TOKENS
        tensors = ids, starts, uniform, values
        return self._run(self._prefill, None, *tensors, sampler=sampler, fuse=fuse)

    def step(
        self,
        state: State,
        ids: tf.Tensor,
        places: tf.Tensor,
        uniform: tf.Tensor,
        values: tf.Tensor,
        sampler: Sampler,
    ) -> tuple[State, tf.Tensor]:
        """Reads some tokens of each row, and chooses the one that follows each of them.

        Tokens that turn out not to be the ones chosen may be read over: the tokens of a later step
        take the places from their first one on.

        Args:
            state: After the tokens before these; it is used up.
            ids: int32 [batch, length].
            places: int32 [batch], the place of the first of them in each row.
            uniform: float32 [batch, length]; see `Sampler.next_ids`.
            values: See `Sampler.next_ids`.
            sampler: Chooses; where it penalizes tokens, the length is 1.

        Returns:
            The new state, and int32 [batch, length].
        """
        length = ids.shape[1]
        needed = int(places.numpy().max()) + length
        state = state._replace(memories=grown(state.memories, needed))
        return self._run(self._step, length, ids, places, uniform, values, state, sampler=sampler)

    def _run(
        self, function: Callable[..., Any], length: int | None, *tensors: Any, **static: Any
    ) -> Any:
        """Runs the program of a function, whose first tensor is ids, of any length for None."""
        ids = tensors[0]
        key = function.__name__, ids.shape[0], length, *static.values()
        with self._lock:
            if key not in self._programs:
                signature: Any = None
                if not self.jit_compile:
                    first = tf.TensorSpec((ids.shape[0], length), tf.int32)
                    signature = (first, *tf.nest.map_structure(_any_room, tensors[1:]))
                program = tf.function(
                    functools.partial(function, **static),
                    input_signature=signature,
                    jit_compile=self.jit_compile,
                    autograph=False,
                )
                if signature:
                    program.get_concrete_function()
                self._programs[key] = program
        return self._programs[key](*tensors)

    def _prefill(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        uniform: tf.Tensor,
        values: tf.Tensor,
        *,
        sampler: Sampler,
        fuse: bool,
    ) -> tuple[State, tf.Tensor]:
        batch, length = ops.shape(ids)
        before = tf.zeros((batch, 0), tf.bool)
        if sampler.penalizes:
            real = tf.range(length)[tf.newaxis] >= starts[:, tf.newaxis]
            rows = tf.broadcast_to(tf.range(batch)[:, tf.newaxis], (batch, length))
            before = tf.scatter_nd(
                tf.stack([rows, ids], axis=-1), tf.cast(real, tf.int32), (batch, self._size)
            )
            before = before > 0
        room = rounded_up(length + 1)
        memories = [NewMemory(room, fuse) for _ in self._network.layers]
        state = State(memories, before, starts)
        weights = self._weights.read()
        # The first token of all rows has the same place: a mask for all is smaller.
        hidden, state = self._read(state, ids, tf.zeros((1,), tf.int32), length, weights)
        last = hidden[:, -1][:, tf.newaxis]
        return self._choose(last, state, uniform, values, sampler, weights)

    def _step(
        self,
        ids: tf.Tensor,
        places: tf.Tensor,
        uniform: tf.Tensor,
        values: tf.Tensor,
        state: State,
        *,
        sampler: Sampler,
    ) -> tuple[State, tf.Tensor]:
        room = ops.shape(state.memories[0].keys)[2]
        weights = self._weights.read()
        hidden, state = self._read(state, ids, places, room, weights)
        return self._choose(hidden, state, uniform, values, sampler, weights)

    def _read(
        self,
        state: State,
        ids: tf.Tensor,
        places: tf.Tensor,
        seen: tf.Tensor,
        weights: WeightTensors,
    ) -> tuple[tf.Tensor, State]:
        """Reads tokens; returns [batch, length, hidden] and the new state."""
        hidden, memories = read_tokens(
            self._network, ids, state.starts, places, seen, state.memories, weights.layers
        )
        return hidden, state._replace(memories=memories)

    def _choose(
        self,
        hidden: tf.Tensor,
        state: State,
        uniform: tf.Tensor,
        values: tf.Tensor,
        sampler: Sampler,
        weights: WeightTensors,
    ) -> tuple[State, tf.Tensor]:
        """Chooses the token after each of those read."""
        rows = tf.reshape(hidden, (-1, hidden.shape[-1]))
        logits = tf.cast(product_of_parts(rows, weights.head), tf.float32)
        chosen = sampler.next_ids(logits, state.before, tf.reshape(uniform, (-1,)), values)
        if sampler.penalizes:
            at = tf.stack([tf.range(tf.size(chosen)), chosen], axis=1)
            before = tf.tensor_scatter_nd_update(state.before, at, tf.ones_like(chosen, tf.bool))
            state = state._replace(before=before)
        return state, tf.reshape(chosen, tf.shape(uniform))

    @property
    def _size(self) -> int:
        return int(self._network.head_kernel.shape[0])


def _any_room(tensor: tf.Tensor) -> tf.TensorSpec:
    """Returns a tensor's shape, with the room of a memory left open."""
    shape = tensor.shape.as_list()
    if len(shape) == 4:
        shape[2] = None
    return tf.TensorSpec(shape, tensor.dtype)
