"""KerasHub's presets as encoders: a BERT as `BertEncoder`, others wrapped under TF Hub's names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from keras import ops

from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder, native_encoder
from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.bert_weights import make_bert
from tf_finetune.text.hub import KerasHubPreprocessor
from tf_finetune.text.wordpiece import bert_preprocessor

if TYPE_CHECKING:
    import keras_hub


def load_keras_hub(handle: str, preset: str, dropout: float | None) -> Encoder:
    """Loads a KerasHub preset of BERT, or of another encoder that KerasHub classifies text with.

    Args:
        handle: The handle, as the user wrote it.
        preset: A directory in KerasHub's format, or a name that KerasHub can download.
        dropout: The dropout rate; None: the preset's own.

    Returns:
        The encoder.

    Raises:
        UserError: It cannot be loaded or is no text encoder.
    """
    import keras_hub

    options = {} if dropout is None else {"dropout": dropout}
    backbone = _from_preset(keras_hub.models.Backbone, handle, preset, options)
    if not is_text_encoder(backbone):
        raise UserError(
            f"--encoder={handle}: a {type(backbone).__name__} is no text encoder with token_ids "
            "and padding_mask. Choose a BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ALBERT or DeBERTa."
        )
    tokenizer = _from_preset(keras_hub.tokenizers.Tokenizer, handle, preset, {})
    if isinstance(tokenizer, keras_hub.models.BertTokenizer):
        text = bert_preprocessor(handle, tokenizer.get_vocabulary(), tokenizer.lowercase)
    else:
        text = KerasHubPreprocessor(tokenizer)
    network = (
        from_backbone(backbone)
        if isinstance(backbone, keras_hub.models.BertBackbone)
        else BackboneNetwork(backbone)
    )
    return native_encoder(handle, network, text)


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
        """Returns the arguments of `from_config`."""
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


def from_backbone(
    backbone: "keras_hub.models.BertBackbone", dropout: float | None = None
) -> BertEncoder:
    """Makes an encoder with a copy of a KerasHub backbone's weights, in its dtype policy.

    Args:
        backbone: The backbone.
        dropout: Replaces the backbone's rate; None keeps it.

    Returns:
        The encoder.
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
        f"{name}/{variable.name}": ops.convert_to_numpy(variable)
        for name, layer in layers.items()
        for variable in layer.variables
    }
    variables["position_embedding/embeddings"] = ops.convert_to_numpy(
        backbone.position_embedding.position_embeddings
    )
    return make_bert(
        variables,
        num_heads=backbone.num_heads,
        dropout=backbone.dropout if dropout is None else dropout,
        dtype=backbone.dtype_policy,
    )


def _from_preset(part: Any, handle: str, preset: str, options: dict[str, Any]) -> Any:
    try:
        return part.from_preset(preset, **options)
    # KerasHub, Kaggle's and Hugging Face's clients and safetensors share no exception class.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        remedy = (
            "Compare its files with the original's."
            if Path(preset).is_dir()
            else "Without network access, download it elsewhere and give its directory."
        )
        raise UserError(
            f"--encoder={handle}: KerasHub cannot load its {part.__name__}: {reason}. {remedy}"
        ) from error
