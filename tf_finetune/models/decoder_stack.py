"""What the decoders of all families do alike: the way from token ids through their layers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tf_finetune.models.causal_attention import MaybeMemory, Memory, NewMemory
from tf_finetune.models.kernels import recomputed, trace_kernels, traced_once
from tf_finetune.models.linear import zero_products
from tf_finetune.models.lora import Adapter
from tf_finetune.models.parts import cut_prefix
from tf_finetune.models.seeds import derive_seed, draw_seed

Tensor = Any
# How many seeds a layer uses.
SEEDS = 4


def add_table(decoder: Any, size: int, name: str) -> keras.Variable:
    """Adds an embedding table to a decoder, [size, hidden], zeros: a checkpoint has its values."""
    return decoder.add_weight(
        (size, decoder.config.hidden_size),
        "zeros",
        dtype=decoder.compute_dtype if decoder.frozen else decoder.variable_dtype,
        trainable=not decoder.frozen,
        autocast=False,  # It would cast the whole table at every step.
        name=name,
    )


def embed(table: keras.Variable, numbers: Tensor) -> Tensor:
    """Returns the table's rows, float32 [batch * length, hidden], of numbers [batch, length]."""
    rows = ops.take(table, numbers, axis=0)
    return ops.cast(ops.reshape(rows, (-1, table.shape[-1])), "float32")


def run_layers(
    decoder: Any,
    transform: Callable[..., Any],
    x: Tensor,
    inputs: Sequence[Any],
    training: bool = False,
    memories: Sequence[MaybeMemory] = (),
    weights: Sequence[Any] = (),
    layers: Sequence[Any] = (),
    seed: Tensor | None = None,
) -> tuple[Tensor, list[MaybeMemory]]:
    """Applies a decoder's layers and its last norm.

    Args:
        decoder: The decoder.
        transform: Applies a layer: takes the residual stream, what is added to it, `inputs`, the
            layer's memory, a seed, the layer's tensors and its form; returns the first two and the
            memory.
        x: float32 [rows, hidden], the embeddings.
        inputs: What all layers take.
        training: Whether the adapters' dropout is applied.
        memories: Of each layer, what it remembers; empty: nothing, all tokens come at once.
        weights: Of each layer, its tensors; empty: read them.
        layers: These alone; empty: all.
        seed: int32 [2], of the adapters' dropout; None: the decoder's next one.

    Returns:
        [rows, hidden], and the memories with these tokens.
    """
    drops = training and decoder.lora is not None and decoder.lora.dropout
    if seed is None:
        seed = draw_seed(decoder.seed_generator) if drops else ops.zeros((2,), "int32")
    first = memories[0] if memories else ()
    few = isinstance(first, Memory)
    # For few rows what a kernel saves is less than what its call costs.
    fuse = first.fuse if isinstance(first, NewMemory) else not few
    fuse = fuse and (training or decoder.compute_dtype != "float32")
    # As a layer's results: so the first layer shares the trace and the kernels of the others.
    like = weights[0] if weights else decoder.layers[0].tensors()
    changes = zero_products(like.linears[-1], x)
    kept: list[MaybeMemory] = []
    for number, layer in enumerate(layers or decoder.layers):
        memory = memories[number] if memories else ()
        recomputes = training and decoder.gradient_checkpointing
        # A trace for their number is faster than one for any.
        rows = x.shape[0] if few else None
        function = _traced(transform, layer.form(training, fuse), recomputes, rows)
        layer_seed = derive_seed(seed, SEEDS * number)
        tensors = weights[number] if weights else layer.tensors()
        x, changes, memory = function(x, changes, *inputs, memory, layer_seed, tensors)
        kept.append(memory)
    return decoder.norm(x, *changes, training=training, fuse=fuse)[1], kept


def layer_kernels(
    decoder: Any, decode: Callable[..., tuple[Tensor, Any]]
) -> Callable[[Tensor, Tensor], Any]:
    """Returns a function that runs each kernel of a decoder's training step once.

    Args:
        decoder: The decoder.
        decode: Decodes with the options of `run_layers`.
    """
    import tensorflow as tf

    layers = list({layer.form(True, True): layer for layer in decoder.layers}.values())
    learnt = [variable.value for layer in layers for variable in layer.trainable_variables]

    def run(rows: Tensor, length: Tensor) -> Any:
        ones = tf.ones((rows, length), "int32")
        inputs = dict.fromkeys(("token_ids", "positions", "segments"), ones)
        parts, seed = cut_prefix(inputs, decoder.prefix), ops.zeros((2,), "int32")
        with tf.GradientTape() as tape:
            x, _ = decode(parts, training=True, layers=layers, seed=seed)
        return tape.gradient(x, learnt)

    return trace_kernels(run)


@functools.cache
def _traced(
    transform: Callable[..., Any], form: tuple[Any, ...], recomputes: bool, rows: int | None
) -> Callable[..., Any]:
    """Returns a layer's function of tensors, which is traced once for all layers of its form."""

    def function(*tensors: Any) -> Any:
        return transform(*tensors, form=form)

    return traced_once(recomputed(function) if recomputes else function)


def find_adapters(decoder: Any, prefix: str) -> dict[str, Adapter]:
    """Returns the adapters by their modules' names; `prefix` stands before a layer's number."""
    return {
        f"{prefix}.{number}.{module}": adapter
        for number, layer in enumerate(decoder.layers)
        for linear in layer.linears
        for module, adapter in linear.adapters.items()
    }


def output_spec(decoder: Any, ids: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the output's shape and dtype, for which Keras would trace the network."""
    return keras.KerasTensor((*ids.shape, decoder.config.hidden_size), decoder.compute_dtype)
