"""The transformer layer of llama's kind, and its norm."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

from tf_finetune.models.causal_attention import MaybeMemory, Seen, attend
from tf_finetune.models.fused_decoder import (
    fused_add_rms_norm,
    fused_split_heads,
    fused_swiglu,
)
from tf_finetune.models.linear import Linear, LinearForm, LinearTensors, linear_products
from tf_finetune.models.llama_config import LlamaConfig
from tf_finetune.models.lora import Lora
from tf_finetune.models.seeds import derive_seed
from tf_finetune.models.stored_weights import Stored

Tensor = Any


class RMSNorm(keras.layers.Layer):
    """Root-mean-square norm of a residual stream; its weights are never rounded.

    Args:
        size: The width.
        epsilon: Added to the mean square.
        learns: Whether its weights are trained.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, size: int, epsilon: float, learns: bool, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # It would round the residual stream.
        self.size, self.epsilon, self.learns = size, epsilon, learns

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        self.gamma = self.add_weight(
            (self.size,),
            "ones",
            dtype="float32",
            autocast=False,
            trainable=self.learns,
            name="gamma",
        )

    def call(
        self, x: Tensor, *changes: Tensor, training: bool = False, fuse: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Returns the sum of x and changes, and its norm; see `add_rms_norm`."""
        gamma = ops.convert_to_tensor(self.gamma)
        options = {"epsilon": self.epsilon, "learns": self.learns}
        return fused_add_rms_norm(x, gamma, *changes, **options, training=training, fuse=fuse)


class LayerForm(NamedTuple):
    """What is fixed in a layer: layers of one form share one trace.

    Attributes:
        num_kv_heads: See `LlamaConfig`.
        head_dim: See `LlamaConfig`.
        epsilon: See `LlamaConfig`.
        window: How many tokens back it sees; None: all.
        rotates: Whether it has RoPE.
        learns: Whether the norms' weights are trained.
        linears: The forms of the four products.
        dropout: The rate of the adapters' dropout.
        training: Whether it is trained.
        fuse: Whether the operations between the products run as XLA kernels.
    """

    num_kv_heads: int
    head_dim: int
    epsilon: float
    window: int | None
    rotates: bool
    learns: bool
    linears: tuple[LinearForm, ...]
    dropout: float
    training: bool
    fuse: bool


class LayerTensors(NamedTuple):
    """A layer's weights.

    Attributes:
        linears: Of query, key and value; of the attention's output; of gate and up; of down.
        norms: Gamma before the attention and before the feed-forward layers.
        head_norms: Gamma of queries and keys, where they are normalised.
    """

    linears: tuple[LinearTensors, ...]
    norms: tuple[Tensor, Tensor]
    head_norms: tuple[Tensor, ...]


class LlamaLayer(keras.layers.Layer):
    """The weights of one transformer layer.

    Args:
        config: The decoder's.
        window: How many tokens back it sees; None: all.
        rotates: Whether it has RoPE.
        lora: The decoder's adapters.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        config: LlamaConfig,
        window: int | None,
        rotates: bool,
        *,
        lora: Lora | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config, self.window, self.rotates, self.lora = config, window, rotates, lora
        self.learns = lora is None and self.trainable

        def linear(name: str, inputs: int, modules: Mapping[str, int], biased: bool) -> Linear:
            return Linear(
                inputs,
                modules,
                biased=tuple(modules) if biased else (),
                lora=lora,
                trainable=self.trainable,
                dtype=self.dtype_policy,
                name=name,
            )

        hidden, inner = config.hidden_size, config.intermediate_size
        queries, keys = (n * config.head_dim for n in (config.num_heads, config.num_kv_heads))
        heads = {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys}
        gates = {"mlp.gate_proj": inner, "mlp.up_proj": inner}
        self.linears = [
            linear("query_key_value", hidden, heads, config.qkv_bias),
            linear("output", queries, {"self_attn.o_proj": hidden}, config.output_bias),
            linear("gate_up", hidden, gates, config.mlp_bias),
            linear("down", inner, {"mlp.down_proj": hidden}, config.mlp_bias),
        ]
        self.norms = [
            RMSNorm(hidden, config.epsilon, self.learns, name=name)
            for name in ("attention_norm", "mlp_norm")
        ]
        names = ("query_norm", "key_norm") if config.qk_norm else ()
        self.head_norms = [
            RMSNorm(config.head_dim, config.epsilon, self.learns, name=name) for name in names
        ]

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        parts: tuple[keras.layers.Layer, ...] = (*self.linears, *self.norms, *self.head_norms)
        for part in parts:
            part.build()

    def form(self, training: bool, fuse: bool) -> LayerForm:
        """Returns what is fixed."""
        return LayerForm(
            num_kv_heads=self.config.num_kv_heads,
            head_dim=self.config.head_dim,
            epsilon=self.config.epsilon,
            window=self.window,
            rotates=self.rotates,
            learns=self.learns,
            linears=tuple(linear.form for linear in self.linears),
            dropout=self.lora.dropout if self.lora and training else 0.0,
            training=training,
            fuse=fuse,
        )

    def tensors(self) -> LayerTensors:
        """Reads the weights."""
        attention, mlp, *heads = (
            ops.convert_to_tensor(norm.gamma) for norm in (*self.norms, *self.head_norms)
        )
        linears = tuple(linear.tensors() for linear in self.linears)
        return LayerTensors(linears, (attention, mlp), tuple(heads))

    def stored(self, prefix: str) -> list[Stored]:
        """Lists the weights with their names in transformers; see `LlamaDecoder.stored`."""
        listed = [part for linear in self.linears for part in linear.stored(prefix, True)]
        norms = (
            "input_layernorm",
            "post_attention_layernorm",
            "self_attn.q_norm",
            "self_attn.k_norm",
        )
        for name, norm in zip(norms, (*self.norms, *self.head_norms), strict=False):
            listed.append(Stored(norm.gamma, (f"{prefix}.{name}.weight",)))
        return listed


def transform(
    x: Tensor,
    changes: tuple[Tensor, ...],
    angles: tuple[tuple[Tensor, Tensor], ...],
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
        angles: Of each part, cosine and sine of the rotations, float32 [batch, length,
            head_dim / 2].
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

    x, normed = fused_add_rms_norm(x, tensors.norms[0], *changes, **norm_options)

    def split(part: int, *summands: Tensor) -> Any:
        return fused_split_heads(
            *angles[part],
            *tensors.head_norms,
            *summands,
            num_kv_heads=form.num_kv_heads,
            head_dim=form.head_dim,
            num_norms=len(tensors.head_norms),
            rotates=form.rotates,
            epsilon=form.epsilon,
            **options,
        )

    context, memory = attend(
        split, products(0, normed), seen, memory, window=form.window, **options
    )
    x, normed = fused_add_rms_norm(x, tensors.norms[1], *products(1, context), **norm_options)
    inner = fused_swiglu(*products(2, normed), **options)
    return x, products(3, inner), memory
