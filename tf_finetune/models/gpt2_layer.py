"""The transformer layer of GPT-2."""

from typing import Any, NamedTuple

import keras
from keras import ops

from tf_finetune.models.causal_attention import MaybeMemory, Seen, attend
from tf_finetune.models.fused_decoder import (
    fused_add_layer_norm,
    fused_gelu,
    fused_split_equal_heads,
)
from tf_finetune.models.gpt2_config import GPT2Config
from tf_finetune.models.layer_norm import LayerNorm
from tf_finetune.models.linear import Linear, LinearForm, LinearTensors, linear_products
from tf_finetune.models.lora import Lora
from tf_finetune.models.seeds import derive_seed
from tf_finetune.models.stored_weights import Stored

Tensor = Any


class LayerForm(NamedTuple):
    """What is fixed in a layer: layers of one form share one trace.

    Attributes:
        num_heads: See `GPT2Config`.
        epsilon: See `GPT2Config`.
        learns: Whether the norms' weights are trained.
        linears: The forms of the four products.
        dropout: The rate of the adapters' dropout.
        training: Whether it is trained.
        fuse: Whether the operations between the products run as XLA kernels.
    """

    num_heads: int
    epsilon: float
    learns: bool
    linears: tuple[LinearForm, ...]
    dropout: float
    training: bool
    fuse: bool


class LayerTensors(NamedTuple):
    """A layer's weights.

    Attributes:
        linears: Of query, key and value; of the attention's output; of the two feed-forward layers.
        norms: Gamma and beta before the attention and before the feed-forward layers.
    """

    linears: tuple[LinearTensors, ...]
    norms: tuple[tuple[Tensor, Tensor], ...]


class GPT2Layer(keras.layers.Layer):
    """The weights of one transformer layer.

    Args:
        config: The decoder's.
        lora: The decoder's adapters.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, config: GPT2Config, *, lora: Lora | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config, self.lora = config, lora
        self.learns = lora is None and self.trainable
        hidden, inner = config.hidden_size, config.intermediate_size
        self.linears = [
            Linear(
                inputs,
                {module: outputs},
                biased=(module,),
                lora=lora,
                trainable=self.trainable,
                dtype=self.dtype_policy,
                name=name,
            )
            for name, module, inputs, outputs in (
                ("query_key_value", "attn.c_attn", hidden, 3 * hidden),
                ("output", "attn.c_proj", hidden, hidden),
                ("up", "mlp.c_fc", hidden, inner),
                ("down", "mlp.c_proj", inner, hidden),
            )
        ]
        self.norms = [
            LayerNorm(hidden, config.epsilon, self.learns, name=name)
            for name in ("attention_norm", "mlp_norm")
        ]

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        parts: tuple[keras.layers.Layer, ...] = (*self.linears, *self.norms)
        for part in parts:
            part.build()

    def form(self, training: bool, fuse: bool) -> LayerForm:
        """Returns what is fixed."""
        return LayerForm(
            num_heads=self.config.num_heads,
            epsilon=self.config.epsilon,
            learns=self.learns,
            linears=tuple(linear.form for linear in self.linears),
            dropout=self.lora.dropout if self.lora and training else 0.0,
            training=training,
            fuse=fuse,
        )

    def tensors(self) -> LayerTensors:
        """Reads the weights."""
        return LayerTensors(
            tuple(linear.tensors() for linear in self.linears),
            tuple(norm.tensors() for norm in self.norms),
        )

    def stored(self, prefix: str) -> list[Stored]:
        """Lists the weights with their names in transformers; see `GPT2Decoder.stored`."""
        # The kernels of Conv1D are [inputs, outputs], as ours.
        listed = [part for linear in self.linears for part in linear.stored(prefix, False)]
        for name, norm in zip(("ln_1", "ln_2"), self.norms, strict=True):
            listed += norm.stored(f"{prefix}.{name}")
        return listed


def transform(
    x: Tensor,
    changes: tuple[Tensor, ...],
    seen: tuple[Seen, ...],
    memory: MaybeMemory,
    seed: Tensor,
    tensors: LayerTensors,
    *,
    form: LayerForm,
) -> tuple[Tensor, tuple[Tensor, ...], MaybeMemory]:
    """Applies a transformer layer.

    Args:
        x: float32 [tokens, hidden], the residual stream of all parts.
        changes: What the layer before it adds to the stream, [tokens, hidden] or [hidden].
        seen: Of each part, which tokens each token sees.
        memory: Of the tokens before these.
        seed: int32 [2], of the adapters' dropout.
        tensors: The layer's weights.
        form: What is fixed.

    Returns:
        The residual stream, what this layer adds to it, and its memory with these tokens.
    """
    options: dict[str, Any] = {"training": form.training, "fuse": form.fuse}
    norm_options = {"epsilon": form.epsilon, "learns": form.learns, **options}
    rate = ops.convert_to_tensor(form.dropout, "float32") if form.dropout else None

    def products(number: int, rows: Tensor) -> tuple[Tensor, ...]:
        linear = tensors.linears[number]
        return linear_products(rows, linear, form.linears[number], rate, derive_seed(seed, number))

    x, normed = fused_add_layer_norm(x, *tensors.norms[0], *changes, **norm_options)

    def split(part: int, *summands: Tensor) -> Any:
        width = x.shape[-1] // form.num_heads
        return fused_split_equal_heads(seen[part].queries, *summands, head_dim=width, **options)

    context, memory = attend(split, products(0, normed), seen, memory, **options)
    x, normed = fused_add_layer_norm(x, *tensors.norms[1], *products(1, context), **norm_options)
    inner = fused_gelu(*products(2, normed), **options)
    return x, products(3, inner), memory
