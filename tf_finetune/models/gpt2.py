"""GPT-2 (Radford et al., 2019) and the decoders built like it, such as DistilGPT2."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tf_finetune.models.causal_attention import MaybeMemory, Seen
from tf_finetune.models.decoder_stack import (
    add_table,
    embed,
    find_adapters,
    layer_kernels,
    output_spec,
    run_layers,
)
from tf_finetune.models.gpt2_config import GPT2Config
from tf_finetune.models.gpt2_layer import GPT2Layer, LayerTensors, transform
from tf_finetune.models.layer_norm import LayerNorm
from tf_finetune.models.lora import Adapter, Lora
from tf_finetune.models.parts import Part, cut_prefix, join_rows
from tf_finetune.models.stored_weights import Stored

Tensor = Any


class GPT2Decoder(keras.layers.Layer):
    """A GPT-2, equal to that of transformers; its only dropout is the adapters'.

    Args:
        config: Its sizes.
        lora: Its adapters, beside weights that are then frozen; None: none.
        gradient_checkpointing: Keep each layer's input only, and compute the rest again for the
            gradient.
        seed: For the adapters' dropout.
        **kwargs: Passed to `keras.layers.Layer`; `trainable=False` freezes the weights and keeps
            them in the dtype that the layer computes in.

    Attributes:
        prefix: Token ids that all rows begin with, in a document without targets there; in training
            they are computed once for all rows of a call. Empty: none.
    """

    def __init__(
        self,
        config: GPT2Config,
        *,
        lora: Lora | None = None,
        gradient_checkpointing: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"name": "decoder", **kwargs})
        self.config, self.lora = config, lora
        self.gradient_checkpointing = gradient_checkpointing
        self.frozen = lora is not None or not self.trainable
        self.prefix: tuple[int, ...] = ()
        self.seed_generator = keras.random.SeedGenerator(seed)
        options = {"lora": lora, "trainable": self.trainable, "dtype": self.dtype_policy}
        self.layers = [
            GPT2Layer(config, name=f"layer_{number}", **options)
            for number in range(config.num_layers)
        ]
        self.norm = LayerNorm(
            config.hidden_size,
            config.epsilon,
            not self.frozen,
            dtype=self.dtype_policy,
            name="norm",
        )

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        self.embeddings = add_table(self, self.config.vocab_size, "embeddings")
        self.positions = add_table(self, self.config.max_positions, "positions")
        for layer in self.layers:
            layer.build()
        self.norm.build()

    @property
    def head_kernel(self) -> keras.Variable:
        """The head's weights, [vocab_size, hidden]: the embeddings."""
        return self.embeddings

    @property
    def adapters(self) -> dict[str, Adapter]:
        """The adapters by the names of their modules in transformers."""
        return find_adapters(self, "transformer.h")

    @property
    def blocks(self) -> tuple[tuple[keras.layers.Layer, ...], ...]:
        """The layers of each transformer block from the lowest up."""
        return tuple((layer,) for layer in self.layers)

    def stored(self) -> list[Stored]:
        """Lists the weights with their names and layout in transformers' checkpoints.

        Some checkpoints, such as GPT-2's own, have the names without `transformer.`.
        """
        return [
            Stored(self.embeddings, ("transformer.wte.weight",)),
            Stored(self.positions, ("transformer.wpe.weight",)),
            *self.norm.stored("transformer.ln_f"),
            *(
                part
                for number, layer in enumerate(self.layers)
                for part in layer.stored(f"transformer.h.{number}")
            ),
        ]

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Decodes token ids.

        Args:
            inputs: int32 [batch, length]: `token_ids`; `segments`, the document of each token in
                its row, 0 for padding; `positions`, from 0 in each document.
            training: Whether the adapters' dropout is applied.

        Returns:
            [batch, length, hidden], after the last norm.
        """
        parts = cut_prefix(inputs, self.prefix if training else ())
        return join_rows(self._decode(parts, training)[0], parts)

    def remember(
        self,
        inputs: Mapping[str, Tensor],
        seen: Seen,
        memories: Sequence[MaybeMemory],
        weights: Sequence[LayerTensors] = (),
    ) -> tuple[Tensor, list[MaybeMemory]]:
        """Decodes tokens that come after others; see `LlamaDecoder.remember`."""
        parts = [Part(inputs["token_ids"], inputs["positions"], seen)]
        x, kept = self._decode(parts, memories=memories, weights=weights)
        return join_rows(x, parts), kept

    def _decode(
        self, parts: Sequence[Part], training: bool = False, **options: Any
    ) -> tuple[Tensor, list[MaybeMemory]]:
        x = ops.concatenate(
            [
                embed(self.embeddings, part.ids) + embed(self.positions, part.positions)
                for part in parts
            ]
        )
        seen = tuple(part.seen for part in parts)
        return run_layers(self, transform, x, (seen,), training, **options)

    def kernels(self) -> Callable[[Tensor, Tensor], Any]:
        """Returns a function that runs each kernel of a training step once; see `trace_kernels`."""
        return layer_kernels(self, self._decode)

    def compute_output_spec(
        self, inputs: Mapping[str, keras.KerasTensor], training: bool = False
    ) -> keras.KerasTensor:
        """Returns the output's shape and dtype."""
        return output_spec(self, inputs["token_ids"])
