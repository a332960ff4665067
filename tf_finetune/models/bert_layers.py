"""The layers of a BERT: normalisation, embeddings, and the transformer layer."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from tf_finetune.models import fused
from tf_finetune.models.kernels import traced_once

Tensor = Any
Initializer: TypeAlias = keras.initializers.Initializer | str


class Norm(keras.layers.Layer):
    """Layer normalisation of a sum; its parameters are never rounded to half precision.

    Args:
        dropout: The layers' rate. `call` drops nothing, but takes the kernel for a rate above zero.
        epsilon: Added to the variance.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, dropout: float, epsilon: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout, self.epsilon = dropout, epsilon

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the weights."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape, "ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape, "zeros", autocast=False, name="beta")

    def call(
        self,
        x: Tensor,
        bias: Tensor,
        residual: Tensor,
        training: bool = False,
        fuse: bool = False,
    ) -> Tensor:
        """Returns norm(residual + x + bias)."""
        # A rate of 0 as a tensor: as a number it would need a kernel of its own.
        rate, seed = 0.0 * _rate(self.dropout, training), ops.zeros((2,), "int32")
        options = {"rate": rate, "epsilon": self.epsilon, "training": training, "fuse": fuse}
        return fused.fused_residual_norm(x, bias, residual, *self.tensors(), seed, **options)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Returns gamma and beta."""
        return ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)


class BertEmbeddings(keras.layers.Layer):
    """The normalised sum of token, position and type embeddings.

    Args:
        vocabulary_size: Number of tokens.
        max_seq_length: Number of positions.
        num_types: Number of token types.
        hidden_size: The width.
        dropout: The dropout rate.
        epsilon: Added to the variance.
        initializer: For the tables.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        max_seq_length: int,
        num_types: int,
        hidden_size: int,
        dropout: float,
        epsilon: float,
        initializer: Initializer,
        **kwargs: Any,
    ) -> None:
        # `autocast` would cast whole embedding tables at every step.
        super().__init__(autocast=False, **kwargs)
        self.sizes = {"token": vocabulary_size, "position": max_seq_length, "type": num_types}
        self.hidden_size, self.initializer, self.dropout = hidden_size, initializer, dropout
        self.norm = Norm(dropout, epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        self.token, self.position, self.type = (
            self.add_weight(
                (size, self.hidden_size), self.initializer, autocast=False, name=f"{name}_embedding"
            )
            for name, size in self.sizes.items()
        )
        self.norm.build((None, self.hidden_size))

    def call(self, ids: Tensor, types: Tensor, seed: Tensor, training: bool = False) -> Tensor:
        """Returns [batch * seq_length, hidden] of ids and types, int32 [batch, seq_length]."""
        types = ops.take(self.type, types, axis=0)
        others = types + ops.convert_to_tensor(self.position)[: ops.shape(ids)[1]]
        x, residual = (
            ops.cast(ops.reshape(part, (-1, self.hidden_size)), self.compute_dtype)
            for part in (ops.take(self.token, ids, axis=0), others)
        )
        # Shapes and dtypes as in the layers' norms, to share their kernel.
        bias, fuse = ops.zeros((self.hidden_size,), x.dtype), _fuses(self, training)
        x = self.norm(x, bias, residual, training=training, fuse=fuse)
        if not (training and self.dropout):
            return x
        return fused.fused_dropout(x, seed, rate=_rate(self.dropout, training), fuse=fuse)


class BertLayer(keras.layers.Layer):
    """One transformer layer; each token is a row of [batch * seq_length, hidden].

    Args:
        num_heads: Number of attention heads.
        hidden_size: The width.
        intermediate_size: The width between the two feed-forward layers.
        dropout: The rate for the hidden rows and for the attention weights.
        epsilon: Added to the variance.
        approximate_gelu: GELU by its tanh formula.
        initializer: For the kernels.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_heads: int,
        hidden_size: int,
        intermediate_size: int,
        dropout: float,
        epsilon: float,
        approximate_gelu: bool,
        initializer: Initializer,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
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

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        seed: Tensor,
        first_token_only: bool = False,
        training: bool = False,
    ) -> Tensor:
        """Applies the layer.

        Args:
            x: [batch * seq_length, hidden].
            mask: int32 [batch, seq_length], 0 for padding.
            seed: int32 [2].
            first_token_only: Compute the result for the first token of each text only.
            training: Whether dropout is applied.

        Returns:
            [batch * seq_length, hidden], or [batch, hidden] of the first tokens.
        """
        products = self.query_key_value, self.attention_output, self.intermediate, self.output_dense
        norms = self.attention_norm, self.output_norm
        # For one token of each text a kernel saves less time than its compilation takes.
        fuse = _fuses(self, training) and not first_token_only
        # Share the trace where it saves time: a single layer computes first tokens only, and
        # predictions would be slower (docs/decisions.md).
        shares = training and not first_token_only
        transform = _shared_transform if shares else _transform
        return transform(
            x,
            mask,
            seed,
            # Read the weights here, where Keras casts them and LoRA adds its product.
            [(ops.convert_to_tensor(p.kernel), ops.convert_to_tensor(p.bias)) for p in products],
            [norm.tensors() for norm in norms],
            num_heads=self.num_heads,
            dropout=self.dropout,
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
    products: Sequence[tuple[Tensor, Tensor]],
    norms: Sequence[tuple[Tensor, Tensor]],
    *,
    num_heads: int,
    dropout: float,
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
        products: Kernel and bias of the four `Dense` layers.
        norms: Gamma and beta of the two `Norm` layers.
        num_heads: See `BertLayer`.
        dropout: See `BertLayer`.
        epsilon: See `BertLayer`.
        approximate_gelu: See `BertLayer`.
        first_token_only: See `BertLayer.call`.
        training: See `BertLayer.call`.
        fuse: Whether the operations between the products run as XLA kernels.

    Returns:
        [batch * seq_length, hidden], or [batch, hidden] of the first tokens.
    """
    (query_key_value, bias), (output, output_bias), (inner, inner_bias), (outer, outer_bias) = (
        products
    )
    hidden, rate = x.shape[-1], _rate(dropout, training)
    options = {"training": training, "fuse": fuse}
    random = {"rate": rate, **options}
    # The key's bias is left out: it shifts all scores of a query alike, which softmax ignores.
    query_bias, key_bias, value_bias = ops.split(bias, 3)
    bias = ops.concatenate([query_bias, ops.zeros_like(key_bias), value_bias])
    # The reshape separates product and sum: TensorFlow would fuse them into one operation, which is
    # slower than the two.
    batch, length = batch_shape(mask)
    heads = ops.reshape(ops.matmul(x, query_key_value), (batch, length, 3 * hidden))
    heads = fused.add_bias(heads, bias)
    heads = ops.reshape(heads, (batch, length, 3, num_heads, hidden // num_heads))
    # One transposition for all three: one each would take twice as long.
    query, key, value = ops.unstack(ops.transpose(heads, (2, 0, 3, 1, 4)), 3)
    tokens = 1 if first_token_only else None
    scores = ops.matmul(query[:, :, :tokens], ops.swapaxes(key, -1, -2))
    scale = (hidden // num_heads) ** -0.5
    weights = fused.fused_attention_weights(scores, mask, seed, scale=scale, **random)
    context = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
    attended = ops.matmul(ops.reshape(context, (-1, hidden)), output)
    if first_token_only:
        x = ops.reshape(x, (batch, length, hidden))[:, 0]

    random = {"epsilon": epsilon, **random}
    x = fused.fused_residual_norm(
        attended, output_bias, x, *norms[0], derive_seed(seed, 1), **random
    )
    product = ops.matmul(x, inner)
    product = fused.fused_gelu(product, inner_bias, approximate=approximate_gelu, **options)
    product = ops.matmul(product, outer)
    return fused.fused_residual_norm(
        product, outer_bias, x, *norms[1], derive_seed(seed, 2), **random
    )


_shared_transform = traced_once(_transform)


def batch_shape(ids: Tensor) -> tuple[Any, Any]:
    """Returns batch and length of ids or mask, [batch, length]."""
    shape = ops.shape(ids)
    return shape[0], shape[1]


def _fuses(layer: keras.layers.Layer, training: bool) -> bool:
    """Whether XLA kernels run between the products: not in float32 predictions and exports."""
    return training or layer.compute_dtype != "float32"


def _rate(dropout: float, training: bool) -> float | Tensor:
    """Returns the dropout rate, as a tensor if it is not zero; see `fused.dropout`."""
    return ops.convert_to_tensor(dropout, "float32") if training and dropout else 0.0


def derive_seed(seed: Tensor, number: int | Tensor) -> Tensor:
    """Returns another seed for each number, int32 [2], so that no two uses drop alike."""
    return seed + ops.stack([number, 0])
