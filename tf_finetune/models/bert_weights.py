"""The weights of a BERT from any format, under the names of TF Models."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_finetune.models.bert import INITIALIZER, BertEncoder
from tf_finetune.models.encoder_weights import remake
from tf_finetune.models.layer_norm import Norm

_NORM = r"(?:layer_norm|LayerNorm)"
# The names of a variable in TF Models' exporter, its older TF Hub versions and Google's first BERT
# release, and its canonical name. Any prefix, such as `bert_encoder/`, may precede them.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"word_embeddings(?:/embeddings)?", "word_embeddings/embeddings"),
    (r"position_embeddings?(?:/(?:position_)?embeddings)?", "position_embedding/embeddings"),
    (r"(?:token_)?type_embeddings(?:/embeddings)?", "type_embeddings/embeddings"),
    (rf"(?:embeddings|embedding_postprocessor)/{_NORM}/(\w+)", r"embeddings/layer_norm/\1"),
    (r"embedding_projection/(\w+)", r"embedding_projection/\1"),
    (r"(?:pooler_transform|pooler/dense)/(\w+)", r"pooler_transform/\1"),
)
_LAYER_NAMES: tuple[tuple[str, str], ...] = (
    (r"(?:self_attention|attention/self)/(query|key|value)/(\w+)", r"self_attention/\1/\2"),
    (
        r"(?:self_attention/attention_output|self_attention_output|attention/output/dense)/(\w+)",
        r"self_attention/attention_output/\1",
    ),
    (
        rf"(?:self_attention_layer_norm|attention/output/{_NORM})/(\w+)",
        r"self_attention_layer_norm/\1",
    ),
    (r"intermediate/(?:dense/)?(\w+)", r"intermediate/\1"),
    (r"output/(?:dense/)?(\w+)", r"output/\1"),
    (rf"(?:output_layer_norm|output/{_NORM})/(\w+)", r"output_layer_norm/\1"),
)


class WeightError(Exception):
    """Weights are not those of a BERT; the message says why."""


def canonical_name(name: str) -> str | None:
    """Returns the name that TF Models' exporter gives to a BERT's variable today.

    Args:
        name: A variable's name, with any prefix and with or without `:0`.

    Returns:
        Such as `transformer/layer_0/self_attention/query/kernel`, or without `layer_0` in an
        ALBERT, whose layers share their weights; None if no BERT has it.
    """
    name = name.split(":")[0]
    if layer := re.search(r"(?:^|/)(layer_\d+|transformer)/(?!layer_\d)(.*)$", name):
        prefix = "transformer" if layer[1] == "transformer" else f"transformer/{layer[1]}"
        for pattern, canonical in _LAYER_NAMES:
            if found := re.fullmatch(pattern, layer[2]):
                return f"{prefix}/{found.expand(canonical)}"
        return None
    for pattern, canonical in _NAMES:
        if found := re.search(rf"(?:^|/){pattern}$", name):
            return found.expand(canonical)
    return None


def by_canonical_name(weights: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Maps the canonical name of each of a BERT's weights to its own name and its value.

    Args:
        weights: Under any names that `canonical_name` knows; others are left out.

    Raises:
        WeightError: Two weights have the same canonical name.
    """
    found: dict[str, tuple[str, np.ndarray]] = {}
    for name, value in weights.items():
        canonical = canonical_name(name)
        if canonical in found:
            raise WeightError(f"{found[canonical][0]} and {name} are both {canonical}")
        if canonical is not None:
            found[canonical] = name, value
    return found


def new_pooler(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Makes the pooler of a BERT that was saved without one, as language models are.

    Args:
        weights: Under names that `canonical_name` knows.

    Returns:
        Random weights, as BERT's training begins with, that differ with Keras' seed; none if
        `weights` has a pooler, or a part of one.
    """
    found = by_canonical_name(weights)
    if "word_embeddings/embeddings" not in found or any(n.startswith("pooler") for n in found):
        return {}
    width = found["word_embeddings/embeddings"][1].shape[-1]
    # A clone has a seed of its own; INITIALIZER's is as old as its module.
    kernel = INITIALIZER.clone()((width, width), "float32")
    return {
        "pooler_transform/kernel": ops.convert_to_numpy(kernel),
        "pooler_transform/bias": np.zeros(width, "float32"),
    }


def shares_layers(found: Mapping[str, Any]) -> bool:
    """Returns whether weights, by canonical name, are those of a BERT whose layers share them."""
    return "transformer/self_attention/query/kernel" in found


def make_bert(
    weights: Mapping[str, np.ndarray],
    *,
    num_heads: int,
    num_layers: int | None = None,
    num_types: int | None = None,
    **config: Any,
) -> BertEncoder:
    """Makes an encoder with the given weights.

    Args:
        weights: Under names that `canonical_name` knows. Kernels are [inputs, outputs]; either axis
            may be split into heads.
        num_heads: Number of attention heads.
        num_layers: How many layers share their weights, which no weight tells; others are counted.
        num_types: 0 for a BERT without token types; None: as many as the weights have.
        **config: More arguments of `BertEncoder`, such as `dropout` and `dtype`.

    Returns:
        The encoder, whose sizes are those of the weights.

    Raises:
        WeightError: A weight is missing, duplicate, not part of a BERT, or of another shape.
    """
    found = by_canonical_name(weights)
    shared = shares_layers(found)
    first = "transformer" if shared else "transformer/layer_0"
    try:
        vocabulary_size, width = found["word_embeddings/embeddings"][1].shape
        hidden_size, intermediate_size = found[f"{first}/intermediate/kernel"][1].shape
        positions = found["position_embedding/embeddings"][1].shape[0]
        if num_types is None:
            num_types = found["type_embeddings/embeddings"][1].shape[0]
    except KeyError as error:
        raise WeightError(f"it has no variable {error}") from error
    if not isinstance(num_heads, int) or num_heads < 1 or hidden_size % num_heads:
        raise WeightError(f"{hidden_size} columns cannot be split into {num_heads} heads")
    if not shared:
        numbers = (re.match(r"transformer/layer_(\d+)/", name) for name in found)
        num_layers = 1 + max(int(number[1]) for number in numbers if number)
    elif num_layers is None:
        raise WeightError("its layers share their weights, and nothing says how many they are")
    encoder = BertEncoder(
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_size,
        intermediate_size,
        positions,
        num_types,
        initializer="zeros",  # Random values cost time and would be overwritten.
        embedding_size=width,
        share_layers=shared,
        **config,
    )
    encoder.build()
    for own, names in _weights_of(encoder):
        shape = *own.shape[:-1], own.shape[-1] // len(names)
        values = [_pop(found, name, shape) for name in names]
        own.assign(values[0] if len(values) == 1 else np.concatenate(values, axis=-1))
    if found:
        raise WeightError(f"variable {min(found.values())[0]} has no place in a BERT")
    return encoder


def read_bert(encoder: BertEncoder) -> dict[str, np.ndarray]:
    """Returns the weights by canonical name, adapters merged in; kernels have two axes."""
    weights: dict[str, np.ndarray] = {}
    if encoder.lora is not None:
        encoder = remake(encoder, None)
    for own, names in _weights_of(encoder):
        parts = np.split(ops.convert_to_numpy(own), len(names), axis=-1)
        weights |= dict(zip(names, parts, strict=True))
    return weights


def beyond_bert(network: BertEncoder) -> list[str]:
    """Says what a network has that no BERT has."""
    found = {
        "layers that share their weights": network.share_layers,
        "no token types": not network.num_types,
        "no pooler": not network.has_pooler,
        "rows before that of the first position": network.position_offset,
        "a relative position bias": network.relative_buckets,
    }
    return [what for what, is_there in found.items() if is_there]


def _weights_of(encoder: BertEncoder) -> Iterator[tuple[Any, list[str]]]:
    """Yields each of our weights and the canonical names of those it joins on its last axis."""
    tables = encoder.embeddings
    yield tables.token, ["word_embeddings/embeddings"]
    yield tables.position, ["position_embedding/embeddings"]
    if tables.type is not None:
        yield tables.type, ["type_embeddings/embeddings"]
    layers: list[tuple[keras.layers.Layer, list[str]]] = [(tables.norm, ["embeddings/layer_norm"])]
    if tables.projection is not None:
        layers.append((tables.projection, ["embedding_projection"]))
    if encoder.pooler is not None:
        layers.append((encoder.pooler, ["pooler_transform"]))
    for index, layer in enumerate(encoder.layers):
        prefix = "transformer" if encoder.share_layers else f"transformer/layer_{index}"
        products = [f"{prefix}/self_attention/{part}" for part in ("query", "key", "value")]
        layers += [
            (layer.query_key_value, products),
            (layer.attention_output, [f"{prefix}/self_attention/attention_output"]),
            (layer.attention_norm, [f"{prefix}/self_attention_layer_norm"]),
            (layer.intermediate, [f"{prefix}/intermediate"]),
            (layer.output_dense, [f"{prefix}/output"]),
            (layer.output_norm, [f"{prefix}/output_layer_norm"]),
        ]
    for layer, names in layers:
        for variable in ("gamma", "beta") if isinstance(layer, Norm) else ("kernel", "bias"):
            yield getattr(layer, variable), [f"{name}/{variable}" for name in names]


def _pop(found: dict[str, tuple[str, np.ndarray]], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Removes a weight from `found` and returns it in the given shape."""
    if name not in found:
        raise WeightError(f"it has no variable {name!r}")
    own_name, value = found.pop(name)
    if value.size != np.prod(shape):
        raise WeightError(
            f"variable {own_name} has shape {value.shape} where a BERT of this size has {shape}"
        )
    return value.reshape(shape)
