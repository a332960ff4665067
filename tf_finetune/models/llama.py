"""Decoders of llama's kind: Llama, SmolLM2 and 3, TinyLlama, Mistral, Qwen2 and 3."""

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
from tf_finetune.models.llama_config import LlamaConfig
from tf_finetune.models.llama_layer import LayerTensors, LlamaLayer, RMSNorm, transform
from tf_finetune.models.lora import Adapter, Lora
from tf_finetune.models.parts import Part, cut_prefix, join_rows
from tf_finetune.models.stored_weights import Stored

Tensor = Any


class LlamaDecoder(keras.layers.Layer):
    """A decoder of llama's kind (Touvron et al., 2023), equal to those of transformers.

    Args:
        config: Its sizes and form.
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
        config: LlamaConfig,
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
        windows = config.windows or (None,) * config.num_layers
        rotates = config.rope_layers or (True,) * config.num_layers
        options = {"lora": lora, "trainable": self.trainable, "dtype": self.dtype_policy}
        self.layers = [
            LlamaLayer(config, window, turns, name=f"layer_{number}", **options)
            for number, (window, turns) in enumerate(zip(windows, rotates, strict=True))
        ]
        self.norm = RMSNorm(
            config.hidden_size,
            config.epsilon,
            not self.frozen,
            dtype=self.dtype_policy,
            name="norm",
        )

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        self.embeddings = add_table(self, self.config.vocab_size, "embeddings")
        if not self.config.tie_embeddings:
            self.own_head = add_table(self, self.config.vocab_size, "head")
        for layer in self.layers:
            layer.build()
        self.norm.build()

    @property
    def head_kernel(self) -> keras.Variable:
        """The head's weights, [vocab_size, hidden]."""
        return self.embeddings if self.config.tie_embeddings else self.own_head

    @property
    def adapters(self) -> dict[str, Adapter]:
        """The adapters by the names of their modules in transformers."""
        return find_adapters(self, "model.layers")

    @property
    def blocks(self) -> tuple[tuple[keras.layers.Layer, ...], ...]:
        """The layers of each transformer block from the lowest up."""
        return tuple((layer,) for layer in self.layers)

    def stored(self) -> list[Stored]:
        """Lists the weights with their names and layout in transformers' checkpoints."""
        listed = [
            Stored(self.embeddings, ("model.embed_tokens.weight",)),
            Stored(self.norm.gamma, ("model.norm.weight",)),
        ]
        if not self.config.tie_embeddings:
            listed.append(Stored(self.own_head, ("lm_head.weight",)))
        for number, layer in enumerate(self.layers):
            listed += layer.stored(f"model.layers.{number}")
        return listed

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
        """Decodes tokens that come after others.

        Args:
            inputs: int32 [batch, length]: `token_ids` and `positions`.
            seen: Which tokens they see.
            memories: Of each layer a `NewMemory`, or what an earlier call has returned.
            weights: Those of each layer, such as `DecodingWeights.layers`; empty: read them.

        Returns:
            [batch, length, hidden], and the memories with these tokens.
        """
        parts = [Part(inputs["token_ids"], inputs["positions"], seen)]
        x, kept = self._decode(parts, memories=memories, weights=weights)
        return join_rows(x, parts), kept

    def _decode(
        self, parts: Sequence[Part], training: bool = False, **options: Any
    ) -> tuple[Tensor, list[MaybeMemory]]:
        rope, size = self.config.rope, self.config.head_dim
        angles = tuple(rope.angles(part.positions, size) for part in parts)
        x = ops.concatenate([embed(self.embeddings, part.ids) for part in parts])
        inputs = angles, tuple(part.seen for part in parts)
        return run_layers(self, transform, x, inputs, training, **options)

    def kernels(self) -> Callable[[Tensor, Tensor], Any]:
        """Returns a function that runs each kernel of a training step once; see `trace_kernels`."""
        return layer_kernels(self, self._decode)

    def compute_output_spec(
        self, inputs: Mapping[str, keras.KerasTensor], training: bool = False
    ) -> keras.KerasTensor:
        """Returns the output's shape and dtype."""
        return output_spec(self, inputs["token_ids"])
