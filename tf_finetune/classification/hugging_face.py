"""The layout of a classifier in Hugging Face's format: what its head is there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_finetune.classification.heads import LinearHead, MlpHead
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoder_writer import check_writable, family_of
from tf_finetune.models.bert_names import BERT_NAMES
from tf_finetune.models.stored_weights import Stored


@dataclass(frozen=True)
class Layout:
    """What a head becomes.

    Attributes:
        kind: `…ForSequenceClassification`, or a folder of sentence-transformers.
        pooling: Of the latter; see `Pooling`.
        head: The head's weights with their names in the former.
        config: What the head adds to config.json.
    """

    kind: str
    pooling: str
    head: list[Stored] = field(default_factory=list)
    config: Mapping[str, Any] = field(default_factory=dict)


SEQUENCE_CLASSIFICATION, SENTENCE_TRANSFORMERS = "sequence_classification", "sentence_transformers"


def find_layout(encoder: Encoder, model: keras.Model) -> Layout:
    """Finds the layout that computes what a model does.

    Args:
        encoder: The model's encoder.
        model: From `connect`.

    Raises:
        UserError: There is none; the message says what to choose instead.
    """
    check_writable(encoder)
    head, pooling, native = model.get_layer("head"), _pooling(encoder, model), encoder.native_head
    if has_native_head(encoder, model):
        stored = stored_head(head, native.dense or "", native.out, native.norm or "")
        return Layout(SEQUENCE_CLASSIFICATION, pooling, stored)
    if isinstance(head, MlpHead) and head.norm is None and pooling == "cls":
        if native.dense is None and head.activation == "tanh":
            # The pooler of BERT and ALBERT is such a layer on the first token.
            pooler = f"{family_of(encoder).prefix}{BERT_NAMES[encoder.network.names].pooler}"
            return Layout(SEQUENCE_CLASSIFICATION, pooling, stored_head(head, pooler, native.out))
        if native.dense == "pooler.dense":  # DeBERTa's, whose activation config.json says.
            stored = stored_head(head, native.dense, native.out)
            config = {"pooler_hidden_act": head.activation}
            return Layout(SEQUENCE_CLASSIFICATION, pooling, stored, config)
    is_ours = isinstance(head, LinearHead) or (isinstance(head, MlpHead) and head.norm is None)
    if is_ours and pooling != "pooled":
        return Layout(SENTENCE_TRANSFORMERS, pooling)
    raise UserError(
        f"--export_formats=hugging_face: --pooling={pooling} with --head={type(head).__name__} has "
        f"no form in Hugging Face's format for {encoder.handle}. Choose --head=native; or "
        "--pooling=mean, max or cls with --head=linear or mlp; or leave hugging_face out."
    )


def has_native_head(encoder: Encoder, model: keras.Model) -> bool:
    """Whether a model has the head that its encoder's architecture has in transformers."""
    head, native = model.get_layer("head"), encoder.native_head
    if _pooling(encoder, model) != native.pooling:
        return False
    if native.dense is None:
        return isinstance(head, LinearHead)
    return isinstance(head, MlpHead) and (
        (head.activation, head.use_bias, head.norm is not None, head.norm_bias)
        == (native.activation, native.use_bias, native.norm is not None, native.norm_bias)
    )


def _pooling(encoder: Encoder, model: keras.Model) -> str:
    """Returns a model's pooling; without a pooler the pooled output is the first token's row."""
    pooling = model.get_layer("pooling").mode
    return "cls" if pooling == "pooled" and not encoder.has_pooler else pooling


def stored_head(head: Any, dense: str, out: str, norm: str = "") -> list[Stored]:
    """Lists a head's weights with their names in a checkpoint.

    Args:
        head: A `LinearHead` or `MlpHead`.
        dense: The name of the hidden layer of an `MlpHead`.
        out: That of the layer of the logits.
        norm: That of the norm, if there is one.
    """
    stored = []
    if isinstance(head, MlpHead):
        stored.append(Stored(head.hidden.kernel, (f"{dense}.weight",), transposed=True))
        if head.use_bias:
            stored.append(Stored(head.hidden.bias, (f"{dense}.bias",)))
        if head.norm is not None:
            stored.append(Stored(head.norm.gamma, (f"{norm}.weight",)))
            if head.norm_bias:
                stored.append(Stored(head.norm.beta, (f"{norm}.bias",)))
    stored.append(Stored(head.logits.kernel, (f"{out}.weight",), transposed=True))
    stored.append(Stored(head.logits.bias, (f"{out}.bias",)))
    return stored


def dense_modules(head: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Returns activation, weight [outputs, inputs] and bias of each of a head's layers."""
    layers = [("linear", head.logits)]
    if isinstance(head, MlpHead):
        layers.insert(0, (head.activation, head.hidden))
    return [
        (
            activation,
            ops.convert_to_numpy(layer.kernel).T,
            ops.convert_to_numpy(layer.bias)
            if layer.use_bias
            else np.zeros(layer.units, "float32"),
        )
        for activation, layer in layers
    ]
