"""What encoders of linear products do alike."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tf_finetune.models.kernels import trace_kernels
from tf_finetune.models.lora import Adapter, Lora

Tensor = Any
INITIALIZER = keras.initializers.TruncatedNormal(stddev=0.02)


def find_adapters(layers: Sequence[Any], prefix: str) -> dict[str, Adapter]:
    """Returns the adapters by their modules' names; `prefix` stands before a layer's number."""
    return {
        f"{prefix}.{number}.{module}": adapter
        for number, layer in enumerate(layers)
        for linear in layer.linears
        for module, adapter in linear.adapters.items()
    }


def encoded(first: Tensor, sequence: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """Returns an encoder's outputs.

    Args:
        first: [batch, hidden], the first tokens.
        sequence: [batch * seq_length, hidden].
        ids: int32 [batch, seq_length].
    """
    shape = ops.shape(ids)
    sequence = ops.reshape(sequence, (shape[0], shape[1], first.shape[-1]))
    return {"pooled_output": first, "sequence_output": sequence}


def output_spec(encoder: Any, ids: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
    """Returns the outputs' shapes and dtypes, for which Keras would trace the network."""
    (batch, length), size, dtype = ids.shape, encoder.hidden_size, encoder.compute_dtype
    return {
        "pooled_output": keras.KerasTensor((batch, size), dtype),
        "sequence_output": keras.KerasTensor((batch, length, size), dtype),
    }


def encoder_kernels(
    layers: Sequence[Any], encode: Callable[..., Tensor]
) -> Callable[[Tensor, Tensor], Any]:
    """Returns a function that runs each kernel of a training step once; see `trace_kernels`.

    Args:
        layers: One of each form.
        encode: Applies embeddings and those layers, in training, to inputs and a seed.
    """
    import tensorflow as tf

    learnt = [variable.value for layer in layers for variable in layer.trainable_variables]

    def run(rows: Tensor, length: Tensor) -> Any:
        ones = tf.ones((rows, length), "int32")
        names = ("input_word_ids", "input_mask", "input_type_ids")
        with tf.GradientTape() as tape:
            x = encode(dict.fromkeys(names, ones), ops.zeros((2,), "int32"))
        return tape.gradient(x, learnt)

    return trace_kernels(run)


def configured(encoder: Any, config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Returns a layer's config with the encoder's attributes of these names, and its adapters'."""
    config = {**config, **{name: getattr(encoder, name) for name in names}}
    lora = encoder.lora
    return config if lora is None else {**config, "lora": dataclasses.asdict(lora)}


def with_lora(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments that a config from `configured` stands for."""
    if lora := config.get("lora"):
        config = {**config, "lora": Lora(**{**lora, "targets": tuple(lora["targets"])})}
    return config
