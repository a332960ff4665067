"""The programs of `Slots`: they read prompts and tokens, and move memories."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from keras import ops

from tf_finetune.generation.reading import fitted, read_tokens, rounded_up
from tf_finetune.models.causal_attention import MaybeMemory, Memory, NewMemory
from tf_finetune.models.decoding_weights import DecodingWeights
from tf_finetune.models.linear import product_of_parts
from tf_finetune.models.row_adapters import RowAdapters


class JoinedAdapters(NamedTuple):
    """The adapters of a batch; see `RowAdapters`.

    Attributes:
        a: Of each product, [layers, inputs, ranks].
        b: Of each product, [layers, ranks, outputs].
        chosen: Of each product, [batch, ranks].
    """

    a: tuple[tf.Tensor, ...]
    b: tuple[tf.Tensor, ...]
    chosen: tuple[tf.Tensor, ...]


class SlotPrograms:
    """Reads with a network that learns no more.

    There is a program for prompts and one for what follows them, each with adapters and without,
    and one that moves rows: they serve any number of rows, and all lengths.
    """

    def __init__(self, network: Any) -> None:
        """Traces nothing yet.

        Args:
            network: A decoder without adapters of its own; see `LlamaDecoder`.
        """
        self._network = network
        self._weights = DecodingWeights(network)
        self._weights.refresh()
        self._programs: dict[Any, Callable[..., Any]] = {}

    def __len__(self) -> int:
        """Returns how many programs there are."""
        return len(self._programs)

    def trace(self, adapters: JoinedAdapters | None = None) -> None:
        """Traces all programs, so that the first who asks does not wait for it.

        The programs may be run in another thread meanwhile.

        Args:
            adapters: Of a row; None: the programs without adapters.
        """
        id, row = tf.zeros((1, 1), tf.int32), tf.zeros((1,), tf.int32)
        new, _ = self.read_prompts(id, row, 2, adapters)
        memories, _ = self.read_on(id, row, row + 1, new, adapters)
        self.put_rows(fitted(memories, [0]), memories, [0])

    def read_prompts(
        self, ids: tf.Tensor, starts: tf.Tensor, room: int, adapters: JoinedAdapters | None
    ) -> tuple[list[Memory], tf.Tensor]:
        """Reads prompts.

        Args:
            ids: int32 [batch, length], padded at the left.
            starts: int32 [batch], the place of each row's first token.
            room: The tokens that the memories are to have room for, at least.
            adapters: Of the rows; None: no row has one.

        Returns:
            The memories, and the logits after the prompts, float32 [batch, vocabulary].
        """
        arguments = ids, starts, tf.constant(rounded_up(room))
        return self._run(self._read_prompts, arguments, adapters)

    def read_on(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        places: tf.Tensor,
        memories: Sequence[Memory],
        adapters: JoinedAdapters | None,
    ) -> tuple[list[Memory], tf.Tensor]:
        """Reads the next tokens of each row.

        Args:
            ids: int32 [batch, length].
            starts: int32 [batch], the place of each row's first token of all.
            places: int32 [batch], the place of the first of these tokens in each row.
            memories: Of the tokens before these, with room for them; they are used up.
            adapters: Of the rows; None: no row has one.

        Returns:
            The memories with these tokens, and the logits after the last one, float32 [batch,
            vocabulary].
        """
        return self._run(self._read_on, (ids, starts, places, list(memories)), adapters)

    def put_rows(
        self, memories: Sequence[Memory], new: Sequence[Memory], rows: Sequence[int]
    ) -> list[Memory]:
        """Writes the memories of new rows over those of others.

        Args:
            memories: Of all rows; they are used up.
            new: Of the new rows, with no more room.
            rows: The number that each of them gets.
        """
        arguments = list(memories), list(new), tf.constant(rows, tf.int32)
        return self._run(_put_rows, arguments, None)

    def _run(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        adapters: JoinedAdapters | None,
    ) -> Any:
        """Runs the program of a function."""
        key = function.__name__, adapters is None
        if adapters is not None:
            arguments = (*arguments, adapters)
        if key not in self._programs:
            signature = [tf.nest.map_structure(_any_batch, part) for part in arguments]
            if adapters is not None:
                a, b = (
                    tuple(_open(tensor, axis) for tensor in part)
                    for part, axis in ((adapters.a, 2), (adapters.b, 1))
                )
                signature[-1] = signature[-1]._replace(a=a, b=b)
            program = tf.function(function, input_signature=signature, autograph=False)
            program.get_concrete_function()
            self._programs[key] = program
        return self._programs[key](*arguments)

    def _read_prompts(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        room: tf.Tensor,
        adapters: JoinedAdapters | None = None,
    ) -> tuple[list[MaybeMemory], tf.Tensor]:
        new = [NewMemory(room) for _ in self._network.layers]
        # The first token of all rows has the same place: a mask for all is smaller.
        return self._read(ids, starts, tf.zeros((1,), tf.int32), ops.shape(ids)[1], new, adapters)

    def _read_on(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        places: tf.Tensor,
        memories: Sequence[Memory],
        adapters: JoinedAdapters | None = None,
    ) -> tuple[list[MaybeMemory], tf.Tensor]:
        seen = ops.shape(memories[0].keys)[2]
        return self._read(ids, starts, places, seen, memories, adapters)

    def _read(
        self,
        ids: tf.Tensor,
        starts: tf.Tensor,
        places: tf.Tensor,
        seen: tf.Tensor,
        memories: Sequence[MaybeMemory],
        adapters: JoinedAdapters | None,
    ) -> tuple[list[MaybeMemory], tf.Tensor]:
        weights = self._weights.read()
        layers = weights.layers if adapters is None else _adapted(weights.layers, adapters)
        hidden, kept = read_tokens(self._network, ids, starts, places, seen, memories, layers)
        logits = product_of_parts(hidden[:, -1], weights.head)
        return kept, tf.cast(logits, tf.float32)


def _put_rows(memories: Sequence[Memory], new: Sequence[Memory], rows: tf.Tensor) -> list[Memory]:
    def put(old: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
        more = ops.shape(old)[2] - ops.shape(part)[2]
        part = tf.pad(part, [[0, 0], [0, 0], [0, more], [0, 0]])
        return tf.raw_ops.InplaceUpdate(x=old, i=rows, v=part)

    return [Memory(*map(put, old, part)) for old, part in zip(memories, new, strict=True)]


def _adapted(layers: Sequence[Any], adapters: JoinedAdapters) -> list[Any]:
    """Returns the weights of layers with the adapters of rows beside them."""
    parts = [(tf.unstack(a), tf.unstack(b), chosen) for a, b, chosen in zip(*adapters, strict=True)]
    return [
        layer._replace(
            linears=tuple(
                linear._replace(of_rows=RowAdapters(a[number], b[number], chosen))
                for linear, (a, b, chosen) in zip(layer.linears, parts, strict=True)
            )
        )
        for number, layer in enumerate(layers)
    ]


def _any_batch(tensor: tf.Tensor) -> tf.TensorSpec:
    """Returns the shape of a tensor of any number of rows, all lengths and rooms."""
    if len(tensor.shape) == 4:
        return _open(tensor, 0, 2)
    return _open(tensor, *range(len(tensor.shape)))


def _open(tensor: tf.Tensor, *axes: int) -> tf.TensorSpec:
    """Returns a tensor's shape with the sizes of some axes left open."""
    shape = tensor.shape.as_list()
    for axis in axes:
        shape[axis] = None
    return tf.TensorSpec(shape, tensor.dtype)
