"""Lift a BERT out of a SavedModel: its variables, found by name, become a KerasHub backbone."""

import re
from collections.abc import Iterator, Mapping, Sequence

import keras
import keras_hub
import numpy as np
import tensorflow as tf

_NORM = r"(?:layer_norm|LayerNorm)"
# What TF Models' exporter, older TF Hub versions of it, and Google's first BERT release call the
# same variable; each may stand behind any prefix, such as `bert_encoder/`.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"word_embeddings(?:/embeddings)?", "word_embeddings/embeddings"),
    (r"position_embeddings?(?:/(?:position_)?embeddings)?", "position_embedding/embeddings"),
    (r"(?:token_)?type_embeddings(?:/embeddings)?", "type_embeddings/embeddings"),
    (rf"(?:embeddings|embedding_postprocessor)/{_NORM}/(\w+)", r"embeddings/layer_norm/\1"),
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


class CannotLiftError(Exception):
    """Why a SavedModel is not a BERT that can be lifted."""


def canonical_name(name: str) -> str | None:
    """Returns the name that TF Models' exporter gives to a BERT's variable today.

    Args:
        name: A variable's name in a SavedModel, with any prefix and with or without `:0`.

    Returns:
        Such as `transformer/layer_0/self_attention/query/kernel`; None if no BERT has it.
    """
    name = name.split(":")[0]
    if layer := re.search(r"(?:^|/)layer_(\d+)/(.*)$", name):
        for pattern, canonical in _LAYER_NAMES:
            if found := re.fullmatch(pattern, layer[2]):
                return f"transformer/layer_{layer[1]}/{found.expand(canonical)}"
        return None
    for pattern, canonical in _NAMES:
        if found := re.search(rf"(?:^|/){pattern}$", name):
            return found.expand(canonical)
    return None


def variables_by_hub_name(backbone: keras_hub.models.BertBackbone) -> dict[str, keras.Variable]:
    """Returns a backbone's variables under the names of TF Models' exporter.

    Args:
        backbone: A built backbone.

    Returns:
        Name, such as `transformer/layer_0/self_attention/query/kernel`, to variable.
    """
    layers = {
        "word_embeddings": backbone.token_embedding,
        "type_embeddings": backbone.segment_embedding,
        "embeddings/layer_norm": backbone.embeddings_layer_norm,
        "pooler_transform": backbone.pooled_dense,
    }
    for index, block in enumerate(backbone.transformer_layers):
        attention = block._self_attention_layer
        prefix = f"transformer/layer_{index}"
        layers |= {
            f"{prefix}/self_attention/query": attention.query_dense,
            f"{prefix}/self_attention/key": attention.key_dense,
            f"{prefix}/self_attention/value": attention.value_dense,
            f"{prefix}/self_attention/attention_output": attention.output_dense,
            f"{prefix}/self_attention_layer_norm": block._self_attention_layer_norm,
            f"{prefix}/intermediate": block._feedforward_intermediate_dense,
            f"{prefix}/output": block._feedforward_output_dense,
            f"{prefix}/output_layer_norm": block._feedforward_layer_norm,
        }
    variables = {
        f"{name}/{variable.name}": variable
        for name, layer in layers.items()
        for variable in layer.variables
    }
    variables["position_embedding/embeddings"] = backbone.position_embedding.position_embeddings
    return variables


def lift_backbones(
    variables: Sequence[tf.Variable], dropout: float = 0.1
) -> Iterator[keras_hub.models.BertBackbone]:
    """Builds the BERT backbones, in float32, that a SavedModel's variables can mean.

    The number of heads shows in kernels of [hidden, heads, head_size]. Kernels of [hidden, hidden]
    leave it open; then each possible one is tried, heads of 64 first, and the caller compares.

    Args:
        variables: The SavedModel's float variables.
        dropout: The backbones' dropout rate.

    Yields:
        Backbones with the SavedModel's weights.

    Raises:
        CannotLiftError: A variable is unknown, missing, there twice, or of another shape.
    """
    found = _by_canonical_name(variables)
    shapes = {name: tuple(variable.shape) for name, variable in found.items()}
    try:
        vocabulary_size, hidden = shapes["word_embeddings/embeddings"]
        query = shapes["transformer/layer_0/self_attention/query/kernel"]
        intermediate = shapes["transformer/layer_0/intermediate/kernel"][-1]
        positions = shapes["position_embedding/embeddings"][0]
        segments = shapes["type_embeddings/embeddings"][0]
    except KeyError as error:
        raise CannotLiftError(f"it has no variable {error}") from error
    num_layers = 1 + max(
        int(layer[1]) for name in found if (layer := re.match(r"transformer/layer_(\d+)/", name))
    )
    for heads in [query[1]] if len(query) == 3 else _possible_heads(hidden):
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            num_heads=heads,
            hidden_dim=hidden,
            intermediate_dim=intermediate,
            dropout=dropout,
            max_sequence_length=positions,
            num_segments=segments,
            dtype="float32",
        )
        _assign(variables_by_hub_name(backbone), found)
        yield backbone


def _by_canonical_name(variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    found: dict[str, tf.Variable] = {}
    for variable in variables:
        name = canonical_name(variable.name)
        if name is None:
            raise CannotLiftError(f"variable {variable.name} is none of a BERT's")
        if name in found:
            raise CannotLiftError(f"{found[name].name} and {variable.name} are both {name}")
        found[name] = variable
    return found


def _possible_heads(hidden: int) -> list[int]:
    divisors = [heads for heads in range(1, hidden + 1) if hidden % heads == 0]
    return sorted(divisors, key=lambda heads: abs(hidden // heads - 64))


def _assign(targets: Mapping[str, keras.Variable], found: Mapping[str, tf.Variable]) -> None:
    if missing := sorted(targets.keys() - found.keys()):
        raise CannotLiftError(f"it has no variable {missing[0]!r}")
    if surplus := sorted(found.keys() - targets.keys()):
        raise CannotLiftError(f"variable {found[surplus[0]].name} has no place in a BERT")
    for name, target in targets.items():
        value = found[name].numpy()
        if value.size != np.prod(target.shape):
            raise CannotLiftError(
                f"variable {found[name].name} has shape {value.shape} where a BERT of this size "
                f"has {tuple(target.shape)}"
            )
        target.assign(value.reshape(target.shape))
