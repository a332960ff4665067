"""Lifts a BERT, or a kin of it, out of a SavedModel: its variables become Keras layers."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.bert_weights import (
    WeightError,
    by_canonical_name,
    canonical_name,
    make_bert,
    shares_layers,
)

# TF Models' and RoBERTa's.
_EPSILONS = (1e-12, 1e-5)
# Of ALBERT's releases.
_SHARED_LAYERS = (12, 24)


def lift_encoders(
    variables: Sequence[tf.Variable], num_layers: int | None = None, dropout: float = 0.1
) -> Iterator[BertEncoder]:
    """Makes every encoder that fits a SavedModel's variables.

    Kernels of [hidden, heads, head_size] give the number of heads. For kernels of [hidden, hidden]
    every divisor of hidden is tried, heads of size 64 first. No variable tells which GELU the
    SavedModel has, nor what its norms add to the variance. So the caller must compare outputs.

    Args:
        variables: The SavedModel's float variables.
        num_layers: How many layers the SavedModel has, if it says so; of layers that share their
            weights, which cannot be counted.
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
    found = by_canonical_name(weights)
    shared = shares_layers(found)
    name = f"transformer/{'' if shared else 'layer_0/'}self_attention/query/kernel"
    if name not in found:
        raise WeightError(f"it has no variable {name!r}")
    shape = found[name][1].shape
    config: dict[str, Any] = {"dropout": dropout}
    if "type_embeddings/embeddings" not in found:
        config["num_types"] = 0
    if not any(canonical.startswith("pooler_transform/") for canonical in found):
        config["has_pooler"] = False
    for count, num_heads, epsilon, approximate_gelu in itertools.product(
        _SHARED_LAYERS if shared and num_layers is None else (num_layers,),
        (shape[1],) if len(shape) == 3 else _possible_heads(shape[0]),
        _EPSILONS,
        (True, False),  # The tanh formula first: it is the gelu of TF Models.
    ):
        yield make_bert(
            weights,
            num_heads=num_heads,
            num_layers=count,
            epsilon=epsilon,
            approximate_gelu=approximate_gelu,
            **config,
        )


def _possible_heads(hidden: int) -> list[int]:
    divisors = [heads for heads in range(1, hidden + 1) if hidden % heads == 0]
    return sorted(divisors, key=lambda heads: abs(hidden // heads - 64))
