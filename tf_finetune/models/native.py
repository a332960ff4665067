"""Encoders made of Keras layers: a KerasHub backbone behind TF Hub's names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras
import keras_hub
import tensorflow as tf

from tf_finetune.data.text import RawText, TextPreprocessor
from tf_finetune.errors import UserError
from tf_finetune.models.bert import EPSILON, BertEncoder


@dataclass(frozen=True)
class Encoder:
    """A text encoder and what goes with it.

    Attributes:
        handle: What it was loaded from, as the user wrote it.
        network: Takes the dict of `input_word_ids`, `input_mask` and `input_type_ids`, each int32
            [batch, seq_length], and returns a dict of `pooled_output` [batch, hidden_size] and
            `sequence_output` [batch, seq_length, hidden_size]. An encoder of raw strings takes
            `text_a` and, for two segments, `text_b`, string [batch], and has no `sequence_output`.
        preprocessor: Turns text into what `network` takes.
        hidden_size: The width of `pooled_output`.
        max_seq_length: The longest input in tokens; None means that there is no limit.
        blocks: The embedding layers, then the layers of each transformer block from the lowest
            up; empty for a wrapped SavedModel. For freezing and layer-wise learning rates.
        mode: `native` for Keras layers, `saved_model` for a wrapped SavedModel.
    """

    handle: str
    network: keras.layers.Layer
    preprocessor: TextPreprocessor
    hidden_size: int
    max_seq_length: int | None
    blocks: tuple[tuple[keras.layers.Layer, ...], ...]
    mode: Literal["native", "saved_model"]

    @property
    def takes_text(self) -> bool:
        """Whether `network` takes raw strings."""
        return isinstance(self.preprocessor, RawText)


@keras.saving.register_keras_serializable("tf_finetune")
class BackboneNetwork(keras.layers.Layer):
    """A KerasHub backbone that takes and returns tensors under TF Hub's names.

    Args:
        backbone: The backbone; its layers are used, not copied.
        **kwargs: Passed to `keras.layers.Layer`.
    """

    def __init__(self, backbone: keras_hub.models.Backbone, **kwargs: Any) -> None:
        kwargs.setdefault("name", "encoder")
        super().__init__(**kwargs)
        self.backbone = backbone
        self._names = {"token_ids": "input_word_ids", "padding_mask": "input_mask"}
        if "segment_ids" in backbone.input:
            self._names["segment_ids"] = "input_type_ids"

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: the backbone was built when it was made."""
        self.built = True

    def call(
        self, inputs: Mapping[str, tf.Tensor], training: bool | None = None
    ) -> dict[str, tf.Tensor]:
        """Encodes token ids.

        Args:
            inputs: `input_word_ids`, `input_mask` and `input_type_ids`, int32 [batch, seq_length].
            training: Whether dropout is applied.

        Returns:
            `pooled_output` [batch, hidden] and `sequence_output` [batch, seq_length, hidden].
        """
        outputs = self.backbone(
            {own: inputs[name] for own, name in self._names.items()}, training=training
        )
        if not isinstance(outputs, Mapping):
            outputs = {"sequence_output": outputs}
        sequence = outputs["sequence_output"]
        pooled = outputs["pooled_output"] if "pooled_output" in outputs else sequence[:, 0]
        return {"pooled_output": pooled, "sequence_output": sequence}

    @property
    def blocks(self) -> tuple[tuple[keras.layers.Layer, ...], ...]:
        """The embedding layers, then the layers of each transformer block from the lowest up."""
        layers = self.backbone.layers
        # KerasHub names them transformer_layer_0, disentangled_attention_encoder_layer_0, ...
        transformer = [layer for layer in layers if re.search(r"layer_\d+$", layer.name)]
        embeddings = tuple(
            layer for layer in layers[: layers.index(transformer[0])] if layer.weights
        )
        return (embeddings, *((layer,) for layer in transformer))

    def to_backbone(self) -> keras_hub.models.Backbone:
        """Returns the backbone, which has the weights as they are now."""
        return self.backbone

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        config = super().get_config()
        config["backbone"] = keras.saving.serialize_keras_object(self.backbone)
        if isinstance(self.backbone, keras_hub.models.BertBackbone):
            # KerasHub's configuration takes these two for granted.
            config["activation"] = keras.activations.serialize(activation_of(self.backbone))
            config["layer_norm_epsilon"] = layer_norm_epsilon_of(self.backbone)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BackboneNetwork":
        """Returns the layer that `get_config` described, with fresh weights."""
        backbone = keras.saving.deserialize_keras_object(config.pop("backbone"))
        if "activation" in config:
            set_activation(backbone, keras.activations.deserialize(config.pop("activation")))
            set_layer_norm_epsilon(backbone, config.pop("layer_norm_epsilon"))
        return cls(backbone, **config)


def activation_of(backbone: keras_hub.models.BertBackbone) -> Callable[..., Any]:
    """Returns the activation function of the feed-forward layers."""
    return backbone.transformer_layers[0].activation


def set_activation(backbone: keras_hub.models.BertBackbone, activation: Callable[..., Any]) -> None:
    """Sets the activation function of the feed-forward layers, which KerasHub fixes."""
    for block in backbone.transformer_layers:
        block.activation = activation
        block._feedforward_intermediate_dense.activation = activation


def layer_norm_epsilon_of(backbone: keras_hub.models.BertBackbone) -> float:
    """Returns what the layer norms add to the variance."""
    return backbone.embeddings_layer_norm.epsilon


def set_layer_norm_epsilon(backbone: keras_hub.models.BertBackbone, epsilon: float) -> None:
    """Sets what the layer norms add to the variance, which KerasHub fixes."""
    backbone.embeddings_layer_norm.epsilon = epsilon
    for block in backbone.transformer_layers:
        block.layer_norm_epsilon = epsilon
        block._self_attention_layer_norm.epsilon = epsilon
        block._feedforward_layer_norm.epsilon = epsilon


def with_global_policy(
    backbone: keras_hub.models.BertBackbone,
) -> keras_hub.models.BertBackbone:
    """Returns the backbone, or its copy, with Keras' global dtype policy."""
    policy = keras.config.dtype_policy()
    if backbone.dtype_policy.name == policy.name:
        return backbone
    copy = type(backbone).from_config({**backbone.get_config(), "dtype": policy})
    copy.set_weights(backbone.get_weights())
    set_activation(copy, activation_of(backbone))
    set_layer_norm_epsilon(copy, layer_norm_epsilon_of(backbone))
    return copy


def is_text_encoder(backbone: keras_hub.models.Backbone) -> bool:
    """Returns whether KerasHub classifies text with it, from `token_ids` and `padding_mask`."""
    names = set(backbone.input) if isinstance(backbone.input, Mapping) else set()
    known = {task.backbone_cls for task in keras_hub.models.TextClassifier.__subclasses__()}
    required = {"token_ids", "padding_mask"}
    return required <= names <= required | {"segment_ids"} and type(backbone) in known


def native_encoder(
    handle: str, backbone: keras_hub.models.Backbone, preprocessor: TextPreprocessor
) -> Encoder:
    """Returns the encoder that a backbone makes.

    Args:
        handle: What the user loads.
        backbone: Its layers and weights.
        preprocessor: Its vocabulary and casing.

    Returns:
        The encoder.

    Raises:
        UserError: The vocabulary has more tokens than the backbone has embeddings.
    """
    vocabulary = getattr(preprocessor, "vocabulary", ())
    if len(vocabulary) > backbone.vocabulary_size:
        raise UserError(
            f"--encoder={handle}: its vocabulary has {len(vocabulary)} tokens, its network "
            f"embeddings for {backbone.vocabulary_size}. Give it its own vocabulary."
        )
    network = _network(backbone)
    preprocessor.max_positions = getattr(backbone, "max_sequence_length", None)
    return Encoder(
        handle=handle,
        network=network,
        preprocessor=preprocessor,
        hidden_size=backbone.hidden_dim,
        max_seq_length=preprocessor.max_positions,
        blocks=network.blocks,
        mode="native",
    )


def _network(backbone: keras_hub.models.Backbone) -> BertEncoder | BackboneNetwork:
    """Returns our fast network where it computes what the backbone does, else the backbone."""
    if (
        isinstance(backbone, keras_hub.models.BertBackbone)
        and activation_of(backbone) is not keras.activations.gelu
        and layer_norm_epsilon_of(backbone) == EPSILON
    ):
        return BertEncoder.from_backbone(backbone)
    return BackboneNetwork(backbone)
