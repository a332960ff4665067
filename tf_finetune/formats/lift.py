"""Lifts a BERT out of a SavedModel: its variables, found by name, become Keras layers."""

from collections.abc import Iterator, Sequence

import tensorflow as tf

from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.bert_weights import (
    WeightError,
    by_canonical_name,
    canonical_name,
    make_bert,
)


def lift_encoders(variables: Sequence[tf.Variable], dropout: float = 0.1) -> Iterator[BertEncoder]:
    """Makes every encoder that fits a SavedModel's variables.

    Kernels of [hidden, heads, head_size] give the number of heads. For kernels of [hidden, hidden]
    every divisor of hidden is tried, heads of size 64 first. No variable tells which GELU the
    SavedModel has. So the caller must compare outputs.

    Args:
        variables: The SavedModel's float variables.
        dropout: The encoders' dropout rate.

    Yields:
        Encoders with the SavedModel's weights, in Keras' global dtype policy.

    Raises:
        WeightError: A variable is unknown, missing, duplicate, or of another shape.
    """
    weights = {}
    for variable in variables:
        if canonical_name(variable.name) is None:
            raise WeightError(f"variable {variable.name} is none of a BERT's")
        if variable.name in weights:
            raise WeightError(f"two variables are called {variable.name}")
        weights[variable.name] = variable.numpy()
    query = by_canonical_name(weights).get("transformer/layer_0/self_attention/query/kernel")
    if query is None:
        raise WeightError("it has no variable 'transformer/layer_0/self_attention/query/kernel'")
    shape = query[1].shape
    for num_heads in [shape[1]] if len(shape) == 3 else _possible_heads(shape[0]):
        # The tanh formula first: it is the gelu of TF Models.
        for approximate_gelu in (True, False):
            yield make_bert(
                weights, num_heads=num_heads, dropout=dropout, approximate_gelu=approximate_gelu
            )


def _possible_heads(hidden: int) -> list[int]:
    divisors = [heads for heads in range(1, hidden + 1) if hidden % heads == 0]
    return sorted(divisors, key=lambda heads: abs(hidden // heads - 64))
