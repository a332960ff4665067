"""The transformer layer of a BERT."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_finetune.models import fused
from tf_finetune.models.bert_embeddings import Initializer
from tf_finetune.models.bert_names import BertNames
from tf_finetune.models.kernels import fuses, kernel_rate, traced_once
from tf_finetune.models.layer_norm import Norm
from tf_finetune.models.linear import LinearForm, LinearTensors, linear_products
from tf_finetune.models.lora import Adapter, Lora, add_adapters
from tf_finetune.models.seeds import derive_seed

Tensor = Any


class BertLayer(keras.layers.Layer):
    """One transformer layer; each token is a row of [batch * seq_length, hidden].

    Args:
        num_heads: Number of attention heads.
        hidden_size: The width.
        intermediate_size: The width between the two feed-forward layers.
        dropout: The rate for the hidden rows.
        attention_dropout: The rate for the attention weights.
        epsilon: Added to the variance.
        approximate_gelu: GELU by its tanh formula.
        initializer: For the kernels.
        names: What Hugging Face's checkpoints call its modules.
        lora: The adapters beside the layer's weights, which are then frozen; None: none.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_heads: int,
        hidden_size: int,
        intermediate_size: int,
        dropout: float,
        attention_dropout: float,
        epsilon: float,
        approximate_gelu: bool,
        initializer: Initializer,
        names: BertNames,
        lora: Lora | None = None,
        **kwargs: Any,
    ) -> None:
        # `autocast` would round the position bias too.
        super().__init__(autocast=False, **kwargs)
        self.names, self.attention_dropout = names, attention_dropout
        self.lora, self.forms = lora, (LinearForm(),) * len(names.products)
        self.adapters: dict[str, Adapter] = {}
        self.num_heads, self.hidden_size = num_heads, hidden_size
        self.dropout, self.epsilon, self.approximate_gelu = dropout, epsilon, approximate_gelu

        def dense(units: int, name: str) -> keras.layers.Dense:
            return keras.layers.Dense(
                units, kernel_initializer=initializer, dtype=self.dtype_policy, name=name
            )

        self.query_key_value = dense(3 * hidden_size, "query_key_value")
        self.attention_output = dense(hidden_size, "attention_output")
        self.attention_norm = Norm(dropout, epsilon, dtype=self.dtype_policy, name="attention_norm")
        self.intermediate = dense(intermediate_size, "intermediate")
        self.output_dense = dense(hidden_size, "output")
        self.output_norm = Norm(dropout, epsilon, dtype=self.dtype_policy, name="output_norm")

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        rows = (None, self.hidden_size)
        for layer in (self.query_key_value, self.attention_output, self.attention_norm):
            layer.build(rows)
        self.intermediate.build(rows)
        self.output_dense.build((None, self.intermediate.units))
        self.output_norm.build(rows)
        if self.lora is not None:
            self._add_adapters(self.lora)

    @property
    def products(self) -> tuple[keras.layers.Dense, ...]:
        """The layers of the four products, in the order of `BertNames`."""
        return self.query_key_value, self.attention_output, self.intermediate, self.output_dense

    def _add_adapters(self, lora: Lora) -> None:
        forms = []
        for dense, names in zip(self.products, self.names.products, strict=True):
            modules = dict.fromkeys(names, dense.units // len(names))
            adapters, places = add_adapters(self, lora, dense.kernel.shape[0], modules)
            self.adapters.update(adapters)
            forms.append(LinearForm(places, lora.scaling))
        self.forms = tuple(forms)
        for layer in (*self.products, self.attention_norm, self.output_norm):
            layer.trainable = False

    def _linears(self) -> list[LinearTensors]:
        """Reads the weights of the products."""
        return [
            LinearTensors(
                ops.cast(dense.kernel, self.compute_dtype),
                ops.cast(dense.bias, self.compute_dtype),
                tuple(
                    tuple(map(ops.convert_to_tensor, self.adapters[name]))
                    for name in names
                    if name in self.adapters
                ),
            )
            for dense, names in zip(self.products, self.names.products, strict=True)
        ]

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        seed: Tensor,
        position_bias: Tensor | None = None,
        first_token_only: bool = False,
        training: bool = False,
    ) -> Tensor:
        """Applies the layer.

        Args:
            x: [batch * seq_length, hidden].
            mask: int32 [batch, seq_length], 0 for padding.
            seed: int32 [2].
            position_bias: Added to the scores, float32 [heads, seq_length, seq_length]; None: no.
            first_token_only: Compute the result for the first token of each text only.
            training: Whether dropout is applied.

        Returns:
            [batch * seq_length, hidden], or [batch, hidden] of the first tokens.
        """
        norms = self.attention_norm, self.output_norm
        # For one token of each text a kernel saves less time than its compilation takes.
        fuse = fuses(self, training) and not first_token_only
        # Share the trace where it saves time: a single layer computes first tokens only, and
        # predictions would be slower (docs/decisions.md).
        shares = training and not first_token_only
        transform = _shared_transform if shares else _transform
        return transform(
            x,
            mask,
            seed,
            position_bias,
            self._linears(),
            [norm.tensors() for norm in norms],
            forms=self.forms,
            lora_dropout=self.lora.dropout if self.lora else 0.0,
            num_heads=self.num_heads,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            epsilon=self.epsilon,
            approximate_gelu=self.approximate_gelu,
            first_token_only=first_token_only,
            training=training,
            fuse=fuse,
        )


def _transform(
    x: Tensor,
    mask: Tensor,
    seed: Tensor,
    position_bias: Tensor | None,
    linears: Sequence[LinearTensors],
    norms: Sequence[tuple[Tensor, Tensor]],
    *,
    forms: Sequence[LinearForm],
    lora_dropout: float,
    num_heads: int,
    dropout: float,
    attention_dropout: float,
    epsilon: float,
    approximate_gelu: bool,
    first_token_only: bool,
    training: bool,
    fuse: bool,
) -> Tensor:
    """Applies a transformer layer whose weights are tensors; see `BertLayer`.

    Args:
        x: [batch * seq_length, hidden].
        mask: int32 [batch, seq_length], 0 for padding.
        seed: int32 [2].
        position_bias: See `BertLayer.call`.
        linears: The weights of the four products.
        norms: Gamma and beta of the two `Norm` layers.
        forms: The places of the adapters in the products.
        lora_dropout: The rate of the adapters' dropout.
        num_heads: See `BertLayer`.
        dropout: See `BertLayer`.
        attention_dropout: See `BertLayer`.
        epsilon: See `BertLayer`.
        approximate_gelu: See `BertLayer`.
        first_token_only: See `BertLayer.call`.
        training: See `BertLayer.call`.
        fuse: Whether the operations between the products run as XLA kernels.

    Returns:
        [batch * seq_length, hidden], or [batch, hidden] of the first tokens.
    """
    bias, output_bias, inner_bias, outer_bias = (linear.bias for linear in linears)
    hidden, rate = x.shape[-1], kernel_rate(dropout, training)
    drops = training and lora_dropout > 0
    lora_rate = ops.convert_to_tensor(lora_dropout, "float32") if drops else None

    def product(number: int, rows: Tensor) -> Tensor:
        # Far from the seeds of the other layers and replicas.
        lora_seed = derive_seed(seed, 2**24 * (number + 1))
        linear = linears[number]._replace(bias=None)
        parts = linear_products(rows, linear, forms[number], lora_rate, lora_seed)
        return sum(parts[1:], parts[0])

    options = {"training": training, "fuse": fuse}
    random = {"rate": rate, **options}
    # The key's bias is left out: it shifts all scores of a query alike, which softmax ignores.
    query_bias, key_bias, value_bias = ops.split(bias, 3)
    bias = ops.concatenate([query_bias, ops.zeros_like(key_bias), value_bias])
    # The reshape separates product and sum: TensorFlow would fuse them into one operation, which is
    # slower than the two.
    batch, length = batch_shape(mask)
    heads = ops.reshape(product(0, x), (batch, length, 3 * hidden))
    heads = fused.add_bias(heads, bias)
    heads = ops.reshape(heads, (batch, length, 3, num_heads, hidden // num_heads))
    # One transposition for all three: one each would take twice as long.
    query, key, value = ops.unstack(ops.transpose(heads, (2, 0, 3, 1, 4)), 3)
    tokens = 1 if first_token_only else None
    scores = ops.matmul(query[:, :, :tokens], ops.swapaxes(key, -1, -2))
    scale = (hidden // num_heads) ** -0.5
    weights = fused.fused_attention_weights(
        scores,
        mask,
        seed,
        *(() if position_bias is None else (position_bias[:, :tokens],)),
        rate=kernel_rate(attention_dropout, training),
        scale=scale,
        **options,
    )
    context = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
    attended = product(1, ops.reshape(context, (-1, hidden)))
    if first_token_only:
        x = ops.reshape(x, (batch, length, hidden))[:, 0]

    random = {"epsilon": epsilon, **random}
    x = fused.fused_residual_norm(
        attended, output_bias, x, *norms[0], derive_seed(seed, 1), **random
    )
    inner = fused.fused_gelu(product(2, x), inner_bias, approximate=approximate_gelu, **options)
    return fused.fused_residual_norm(
        product(3, inner), outer_bias, x, *norms[1], derive_seed(seed, 2), **random
    )


_shared_transform = traced_once(_transform)


def batch_shape(ids: Tensor) -> tuple[Any, Any]:
    """Returns batch and length of ids or mask, [batch, length]."""
    shape = ops.shape(ids)
    return shape[0], shape[1]
