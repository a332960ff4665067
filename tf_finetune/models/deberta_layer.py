"""The transformer layer of a DeBERTa."""

from typing import Any, NamedTuple

import keras
from keras import ops

from tf_finetune.models import fused
from tf_finetune.models.bert_embeddings import Initializer
from tf_finetune.models.bert_layers import batch_shape
from tf_finetune.models.disentangled import by_token, fused_summed_weights
from tf_finetune.models.kernels import fuses, kernel_rate, traced_once
from tf_finetune.models.layer_norm import Norm
from tf_finetune.models.linear import Linear, LinearForm, LinearTensors, linear_products
from tf_finetune.models.lora import Lora
from tf_finetune.models.seeds import derive_seed
from tf_finetune.models.stored_weights import Stored

Tensor = Any
# How many seeds a layer uses.
SEEDS = 4
ATTENTION = tuple(f"attention.self.{name}_proj" for name in ("query", "key", "value"))
POSITIONS = {"c2p": "attention.self.pos_key_proj", "p2c": "attention.self.pos_query_proj"}
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


class LayerForm(NamedTuple):
    """What is fixed in a layer: layers of one form share one trace.

    Attributes:
        num_heads: See `DebertaEncoder`.
        terms: See `DebertaEncoder`.
        dropout: See `DebertaEncoder`.
        attention_dropout: See `DebertaEncoder`.
        epsilon: See `DebertaEncoder`.
        linears: The forms of the products.
        lora_dropout: The rate of the adapters' dropout.
        first_token_only: Whether only the first token of each text is computed.
        training: Whether dropout is applied.
        fuse: Whether the operations between the products run as XLA kernels.
    """

    num_heads: int
    terms: tuple[str, ...]
    dropout: float
    attention_dropout: float
    epsilon: float
    linears: tuple[LinearForm, ...]
    lora_dropout: float
    first_token_only: bool
    training: bool
    fuse: bool


class LayerTensors(NamedTuple):
    """A layer's weights.

    Attributes:
        linears: Of query, key and value; of the attention's output; of the two feed-forward
            products; and, unless shared, of the distances' key and query.
        norms: Gamma and beta after the attention and after the feed-forward products.
    """

    linears: tuple[LinearTensors, ...]
    norms: tuple[tuple[Tensor, Tensor], ...]


class DebertaLayer(keras.layers.Layer):
    """One transformer layer; each token is a row of [batch * seq_length, hidden].

    Args:
        num_heads: See `DebertaEncoder`.
        hidden_size: See `DebertaEncoder`.
        intermediate_size: See `DebertaEncoder`.
        terms: See `DebertaEncoder`.
        share_projections: See `DebertaEncoder`.
        dropout: See `DebertaEncoder`.
        attention_dropout: See `DebertaEncoder`.
        epsilon: See `DebertaEncoder`.
        initializer: For the kernels.
        lora: The adapters beside the layer's weights, which are then frozen; None: none.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_heads: int,
        hidden_size: int,
        intermediate_size: int,
        terms: tuple[str, ...],
        share_projections: bool,
        dropout: float,
        attention_dropout: float,
        epsilon: float,
        initializer: Initializer,
        lora: Lora | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.terms, self.lora = num_heads, terms, lora
        self.dropout, self.attention_dropout, self.epsilon = dropout, attention_dropout, epsilon

        def linear(name: str, inputs: int, *modules: str, outputs: int = hidden_size) -> Linear:
            return Linear(
                inputs,
                dict.fromkeys(modules, outputs),
                biased=modules,
                lora=lora,
                initializer=initializer,
                exact=True,
                dtype=self.dtype_policy,
                name=name,
            )

        self.linears = [
            linear("query_key_value", hidden_size, *ATTENTION),
            linear("attention_output", hidden_size, "attention.output.dense"),
            linear("intermediate", hidden_size, "intermediate.dense", outputs=intermediate_size),
            linear("output", intermediate_size, "output.dense"),
        ]
        if terms and not share_projections:
            own = (POSITIONS[term] for term in terms)
            self.linears.append(linear("positions", hidden_size, *own))
        self.norms = [
            Norm(dropout, epsilon, dtype=self.dtype_policy, name=name)
            for name in ("attention_norm", "output_norm")
        ]

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights."""
        for linear in self.linears:
            linear.build()
        for norm in self.norms:
            norm.build((None, self.linears[0].inputs))
            norm.trainable = norm.trainable and self.lora is None

    def stored(self, prefix: str) -> list[Stored]:
        """Lists the weights with their names in Hugging Face's checkpoint.

        Args:
            prefix: The name of the layer.
        """
        listed = [part for linear in self.linears for part in linear.stored(prefix, True)]
        for name, norm in zip(NORMS, self.norms, strict=True):
            listed += norm.stored(f"{prefix}.{name}")
        return listed

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        distances: Tensor | None,
        seed: Tensor,
        first_token_only: bool = False,
        training: bool = False,
    ) -> Tensor:
        """Applies the layer.

        Args:
            x: [batch * seq_length, hidden].
            mask: int32 [batch, seq_length], 0 for padding.
            distances: The embedding of each distance from a key to its query, from seq_length - 1
                down, [2 * seq_length, hidden]; None: there are none.
            seed: int32 [2].
            first_token_only: Compute the result for the first token of each text only.
            training: Whether dropout is applied.

        Returns:
            [batch * seq_length, hidden], or [batch, hidden] of the first tokens.
        """
        form = LayerForm(
            num_heads=self.num_heads,
            terms=self.terms,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            epsilon=self.epsilon,
            linears=tuple(linear.form for linear in self.linears),
            lora_dropout=self.lora.dropout if self.lora and training else 0.0,
            first_token_only=first_token_only,
            training=training,
            # As in `BertLayer.call`.
            fuse=fuses(self, training) and not first_token_only,
        )
        tensors = LayerTensors(
            tuple(linear.tensors() for linear in self.linears),
            tuple(norm.tensors() for norm in self.norms),
        )
        shares = training and not first_token_only
        transform = _shared_transform if shares else _transform
        return transform(x, mask, distances, seed, tensors, form=form)


def _transform(
    x: Tensor,
    mask: Tensor,
    distances: Tensor | None,
    seed: Tensor,
    tensors: LayerTensors,
    *,
    form: LayerForm,
) -> Tensor:
    """Applies a transformer layer whose weights are tensors; see `DebertaLayer.call`."""
    hidden, (batch, length) = x.shape[-1], batch_shape(mask)
    options: dict[str, Any] = {"training": form.training, "fuse": form.fuse}
    rate = kernel_rate(form.dropout, form.training)
    lora_rate = kernel_rate(form.lora_dropout, True) if form.lora_dropout else None

    def product(number: int, rows: Tensor, use: int = 0) -> Tensor:
        # Far from the seeds of the other layers and replicas.
        lora_seed = derive_seed(seed, 2**24 * (number + 1 + use))
        linear = tensors.linears[number]._replace(bias=None)
        first, *others = linear_products(rows, linear, form.linears[number], lora_rate, lora_seed)
        return sum(others, first)

    heads = ops.reshape(product(0, x), (batch, length, 3 * hidden))
    heads = fused.add_bias(heads, tensors.linears[0].bias)
    heads = ops.reshape(heads, (batch, length, 3, form.num_heads, hidden // form.num_heads))
    # Heads first: all texts' products with the distances are one product for each head.
    query, key, value = ops.unstack(ops.transpose(heads, (2, 3, 0, 1, 4)), 3)
    if form.first_token_only:
        query = query[:, :, :1]
    others = []
    if form.terms:
        if form.dropout and form.training:
            distances = fused.fused_dropout(
                distances, derive_seed(seed, 3), rate=rate, fuse=form.fuse
            )
        shares = len(form.linears) == 4
        number = 0 if shares else 4
        projected = product(number, distances, 4) + tensors.linears[number].bias
        kinds = projected.shape[-1] // hidden
        projected = ops.reshape(projected, (2 * length, kinds, form.num_heads, query.shape[-1]))
        parts = ops.unstack(ops.transpose(projected, (1, 2, 0, 3)), kinds)
        # Projected as a query a distance meets keys, as a key queries.
        terms = ("p2c", "c2p", "") if shares else form.terms
        named = dict(zip(terms, parts, strict=True))
        score = _scores_of_first if form.first_token_only else _scores_of_distances
        others = [score(term, query, key, named[term]) for term in form.terms]
    weights = fused_summed_weights(
        ops.matmul(query, ops.swapaxes(key, -1, -2)),
        mask,
        seed,
        *others,
        scale=((1 + len(form.terms)) * query.shape[-1]) ** -0.5,
        rate=kernel_rate(form.attention_dropout, form.training),
        **options,
    )
    context = ops.transpose(ops.matmul(weights, value), (1, 2, 0, 3))
    attended = product(1, ops.reshape(context, (-1, hidden)))
    if form.first_token_only:
        x = ops.reshape(x, (batch, length, hidden))[:, 0]

    random = {"rate": rate, "epsilon": form.epsilon, **options}
    _, output_bias, inner_bias, outer_bias = (linear.bias for linear in tensors.linears[:4])
    x = fused.fused_residual_norm(
        attended, output_bias, x, *tensors.norms[0], derive_seed(seed, 1), **random
    )
    inner = fused.fused_gelu(product(2, x), inner_bias, approximate=False, **options)
    return fused.fused_residual_norm(
        product(3, inner), outer_bias, x, *tensors.norms[1], derive_seed(seed, 2), **random
    )


_shared_transform = traced_once(_transform)


def _scores_of_distances(term: str, query: Tensor, key: Tensor, distances: Tensor) -> Tensor:
    """Returns the scores of queries (`c2p`) or keys (`p2c`) and the distances between them.

    Args:
        term: `c2p` or `p2c`.
        query: [heads, batch, seq_length, head_size].
        key: Likewise.
        distances: What is made of the distances' embeddings, [heads, 2 * seq_length, head_size].

    Returns:
        [heads, batch, seq_length, seq_length], by query and key.
    """
    heads, batch, length, size = ops.shape(key)
    if term == "p2c":
        # From -(length - 1) up: seen from a key, the next query is one further.
        distances = ops.flip(ops.roll(distances, 1, axis=1), axis=1)
    rows = ops.reshape(query if term == "c2p" else key, (heads, batch * length, size))
    scores = ops.matmul(rows, ops.swapaxes(distances, -1, -2))
    placed = by_token(ops.reshape(scores, (heads, batch, length, 2 * length)))
    return placed if term == "c2p" else ops.swapaxes(placed, -1, -2)


def _scores_of_first(term: str, query: Tensor, key: Tensor, distances: Tensor) -> Tensor:
    """Returns `_scores_of_distances` of the first query alone, [heads, batch, 1, seq_length]."""
    length = ops.shape(key)[2]
    # From it to the keys the distances are 0 and down.
    seen = ops.expand_dims(distances[:, length - 1 : 2 * length - 1], 1)
    if term == "p2c":
        return ops.expand_dims(ops.sum(key * seen, axis=-1), 2)
    return ops.matmul(query, ops.swapaxes(seen, -1, -2))
