"""Encoders made of Keras layers: ours for a BERT, KerasHub's behind TF Hub's names for others."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import keras
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.models.bert import BertEncoder
from tf_finetune.text.preprocessor import RawText, TextPreprocessor

if TYPE_CHECKING:
    import keras_hub


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

    def __init__(self, backbone: "keras_hub.models.Backbone", **kwargs: Any) -> None:
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

    @property
    def hidden_size(self) -> int:
        """The width of the outputs."""
        return self.backbone.hidden_dim

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens."""
        return self.backbone.vocabulary_size

    @property
    def max_seq_length(self) -> int | None:
        """Number of positions; None if there is no limit."""
        return getattr(self.backbone, "max_sequence_length", None)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        config = super().get_config()
        config["backbone"] = keras.saving.serialize_keras_object(self.backbone)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BackboneNetwork":
        """Returns the layer that `get_config` described, with fresh weights."""
        import keras_hub  # noqa: F401  # knows the backbone's class

        backbone = keras.saving.deserialize_keras_object(config.pop("backbone"))
        return cls(backbone, **config)


def is_text_encoder(backbone: "keras_hub.models.Backbone") -> bool:
    """Returns whether KerasHub classifies text with it, from `token_ids` and `padding_mask`."""
    import keras_hub

    names = set(backbone.input) if isinstance(backbone.input, Mapping) else set()
    known = {task.backbone_cls for task in keras_hub.models.TextClassifier.__subclasses__()}
    required = {"token_ids", "padding_mask"}
    return required <= names <= required | {"segment_ids"} and type(backbone) in known


def native_encoder(
    handle: str, network: BertEncoder | BackboneNetwork, preprocessor: TextPreprocessor
) -> Encoder:
    """Returns the encoder that a network of Keras layers makes.

    Args:
        handle: What the user loads.
        network: Its layers and weights.
        preprocessor: Its vocabulary and casing.

    Returns:
        The encoder.

    Raises:
        UserError: The vocabulary has more tokens than the network has embeddings.
    """
    vocabulary = getattr(preprocessor, "vocabulary", ())
    if len(vocabulary) > network.vocabulary_size:
        raise UserError(
            f"--encoder={handle}: its vocabulary has {len(vocabulary)} tokens, its network "
            f"embeddings for {network.vocabulary_size}. Give it its own vocabulary."
        )
    preprocessor.max_positions = network.max_seq_length
    return Encoder(
        handle=handle,
        network=network,
        preprocessor=preprocessor,
        hidden_size=network.hidden_size,
        max_seq_length=network.max_seq_length,
        blocks=network.blocks,
        mode="native",
    )
