"""The transformer layer of a ModernBERT."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from tf_finetune.models.bert_embeddings import Initializer
from tf_finetune.models.bert_layers import batch_shape
from tf_finetune.models.fused import fused_dropout
from tf_finetune.models.fused_decoder import fused_add_layer_norm, fused_split_heads
from tf_finetune.models.kernels import fused, fuses, kernel_rate, traced_once
from tf_finetune.models.layer_norm import LayerNorm
from tf_finetune.models.linear import Linear, LinearForm, LinearTensors, linear_products
from tf_finetune.models.local_attention import attend
from tf_finetune.models.lora import Lora
from tf_finetune.models.seeds import derive_seed
from tf_finetune.models.stored_weights import Stored

Tensor = Any
# How many seeds a layer uses.
SEEDS = 4


class LayerForm(NamedTuple):
    """What is fixed in a layer: layers of one form share one trace.

    Attributes:
        num_heads: See `ModernBertEncoder`.
        normalizes: Whether a norm precedes the attention.
        half: How many tokens a token sees to each side; None: all.
        dropout: See `ModernBertEncoder`.
        attention_dropout: See `ModernBertEncoder`.
        epsilon: See `ModernBertEncoder`.
        learns: Whether the norms' weights are trained.
        linears: The forms of the four products.
        lora_dropout: The rate of the adapters' dropout.
        first_token_only: Whether only the first token of each text is computed.
        training: Whether dropout is applied.
        fuse: Whether the operations between the products run as XLA kernels.
        dtype: That of the products.
    """

    num_heads: int
    normalizes: bool
    half: int | None
    dropout: float
    attention_dropout: float
    epsilon: float
    learns: bool
    linears: tuple[LinearForm, ...]
    lora_dropout: float
    first_token_only: bool
    training: bool
    fuse: bool
    dtype: str


class LayerTensors(NamedTuple):
    """A layer's weights.

    Attributes:
        linears: Of query, key and value; of the attention's output; of the two feed-forward
            products.
        norms: Gamma and beta before the feed-forward products, and, if any, before the attention.
    """

    linears: tuple[LinearTensors, ...]
    norms: tuple[tuple[Tensor, Tensor], ...]


class ModernBertLayer(keras.layers.Layer):
    """One transformer layer; each token is a row of [batch * seq_length, hidden].

    Args:
        num_heads: See `ModernBertEncoder`.
        hidden_size: See `ModernBertEncoder`.
        intermediate_size: See `ModernBertEncoder`.
        normalizes: Whether a norm precedes the attention.
        half: How many tokens a token sees to each side; None: all.
        dropout: See `ModernBertEncoder`.
        attention_dropout: See `ModernBertEncoder`.
        epsilon: See `ModernBertEncoder`.
        biased: Whether attention, feed-forward products and norms have biases.
        initializer: For the kernels.
        lora: The adapters beside the layer's weights, which are then frozen; None: none.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_heads: int,
        hidden_size: int,
        intermediate_size: int,
        normalizes: bool,
        half: int | None,
        dropout: float,
        attention_dropout: float,
        epsilon: float,
        biased: tuple[bool, bool, bool],
        initializer: Initializer,
        lora: Lora | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # It would round the residual stream.
        self.num_heads, self.half, self.lora = num_heads, half, lora
        self.dropout, self.attention_dropout, self.epsilon = dropout, attention_dropout, epsilon

        def linear(name: str, inputs: int, module: str, outputs: int, has_bias: bool) -> Linear:
            return Linear(
                inputs,
                {module: outputs},
                biased=(module,) if has_bias else (),
                lora=lora,
                initializer=initializer,
                exact=True,
                dtype=self.dtype_policy,
                name=name,
            )

        attention, mlp, norm = biased
        self.linears = [
            linear("query_key_value", hidden_size, "attn.Wqkv", 3 * hidden_size, attention),
            linear("attention_output", hidden_size, "attn.Wo", hidden_size, attention),
            linear("intermediate", hidden_size, "mlp.Wi", 2 * intermediate_size, mlp),
            linear("output", intermediate_size, "mlp.Wo", hidden_size, mlp),
        ]
        self.norms = [
            LayerNorm(hidden_size, epsilon, lora is None, norm, dtype=self.dtype_policy, name=name)
            for name in ("mlp_norm", "attn_norm")[: 1 + normalizes]
        ]

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        parts: tuple[keras.layers.Layer, ...] = (*self.linears, *self.norms)
        for part in parts:
            part.build()

    def form(self, training: bool, first_token_only: bool = False) -> LayerForm:
        """Returns what is fixed."""
        return LayerForm(
            num_heads=self.num_heads,
            normalizes=len(self.norms) > 1,
            half=self.half,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            epsilon=self.epsilon,
            learns=self.lora is None,
            linears=tuple(linear.form for linear in self.linears),
            lora_dropout=self.lora.dropout if self.lora and training else 0.0,
            first_token_only=first_token_only,
            training=training,
            # As in `BertLayer.call`.
            fuse=fuses(self, training) and not first_token_only,
            dtype=self.compute_dtype,
        )

    def stored(self, prefix: str) -> list[Stored]:
        """Lists the weights with their names in Hugging Face's checkpoint.

        Args:
            prefix: The name of the layer.
        """
        listed = [part for linear in self.linears for part in linear.stored(prefix, True)]
        return listed + [
            part for norm in self.norms for part in norm.stored(f"{prefix}.{norm.name}")
        ]

    def call(
        self,
        x: Tensor,
        changes: Sequence[Tensor],
        angles: tuple[Tensor, Tensor],
        mask: Tensor,
        seed: Tensor,
        first_token_only: bool = False,
        training: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Applies the layer.

        Args:
            x: float32 [batch * seq_length, hidden], the residual stream.
            changes: What the layer before it adds to the stream, [batch * seq_length, hidden] or
                [hidden] each.
            angles: Cosine and sine of the rotations, float32 [batch, seq_length, head_dim / 2].
            mask: int32 [batch, seq_length], 0 for padding.
            seed: int32 [2].
            first_token_only: Compute the result for the first token of each text only.
            training: Whether dropout is applied.

        Returns:
            The residual stream, [batch * seq_length, hidden], or [batch, hidden] of the first
            tokens; and what this layer adds to it.
        """
        tensors = LayerTensors(
            tuple(linear.tensors() for linear in self.linears),
            tuple(norm.tensors() for norm in self.norms),
        )
        form = self.form(training, first_token_only)
        shares = training and not first_token_only
        transform = _shared_transform if shares else _transform
        return transform(x, tuple(changes), angles, mask, seed, tensors, form=form)


def _transform(
    x: Tensor,
    changes: tuple[Tensor, ...],
    angles: tuple[Tensor, Tensor],
    mask: Tensor,
    seed: Tensor,
    tensors: LayerTensors,
    *,
    form: LayerForm,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Applies a transformer layer whose weights are tensors; see `ModernBertLayer.call`."""
    hidden, (batch, length) = x.shape[-1], batch_shape(mask)
    options: dict[str, Any] = {"training": form.training, "fuse": form.fuse}
    norm_options = {"epsilon": form.epsilon, "learns": form.learns, **options}
    lora_rate = kernel_rate(form.lora_dropout, True) if form.lora_dropout else None
    mlp_norm, *attention_norm = tensors.norms

    def products(number: int, rows: Tensor) -> tuple[Tensor, ...]:
        # Far from the seeds of the other layers and replicas.
        lora_seed = derive_seed(seed, 2**24 * (number + 1))
        linear = tensors.linears[number]
        return linear_products(rows, linear, form.linears[number], lora_rate, lora_seed)

    def dropped(parts: tuple[Tensor, ...], rate: float, number: int) -> tuple[Tensor, ...]:
        if not (form.training and rate):
            return parts
        total = sum(parts[1:], parts[0])
        rate = kernel_rate(rate, True)
        return (fused_dropout(total, derive_seed(seed, number), rate=rate, fuse=form.fuse),)

    if form.normalizes:
        x, normed = fused_add_layer_norm(x, *attention_norm[0], *changes, **norm_options)
    else:
        normed = ops.cast(x, form.dtype)
    query, key, value = fused_split_heads(
        *angles,
        *products(0, normed),
        num_kv_heads=form.num_heads,
        head_dim=hidden // form.num_heads,
        num_norms=0,
        rotates=True,
        epsilon=form.epsilon,
        **options,
    )
    half = form.half
    if form.first_token_only:
        x, query = ops.reshape(x, (batch, length, hidden))[:, 0], query[:, :, :1]
        if half is not None:
            key, value = (part[:, :, : half + 1] for part in (key, value))
            mask, half = mask[:, : half + 1], None
    rate = kernel_rate(form.attention_dropout, form.training)
    context = attend(query, key, value, mask, seed, half=half, rate=rate, **options)
    attended = products(1, ops.reshape(context, (-1, hidden)))
    attended = dropped(attended, form.attention_dropout, 1)
    x, normed = fused_add_layer_norm(x, *mlp_norm, *attended, **norm_options)
    inner = fused_geglu(*products(2, normed), **options)
    return x, products(3, *dropped((inner,), form.dropout, 2))


_shared_transform = traced_once(_transform)


def geglu(*products: Tensor) -> Tensor:
    """Returns gelu(inner) * gate, with the exact GELU.

    Args:
        *products: What inner and gate, side by side, are the sum of: [rows, 2 * width] or
            [2 * width].
    """
    first, *others = (ops.cast(part, "float32") for part in products)
    inner, gate = ops.split(sum(others, first), 2, axis=-1)
    return ops.cast(ops.gelu(inner, approximate=False) * gate, products[0].dtype)


fused_geglu = fused(geglu)
