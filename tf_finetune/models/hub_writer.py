"""Writes an encoder in TF Hub's format, with the exporter of TF Models."""

import os
import tempfile
from pathlib import Path

import keras
import keras_hub
import tensorflow as tf

from tf_finetune.data.text import BertPreprocessor
from tf_finetune.errors import UserError
from tf_finetune.files import replaced_directory
from tf_finetune.models.lift import variables_by_hub_name
from tf_finetune.models.native import Encoder, activation_of, layer_norm_epsilon_of
from tf_finetune.models.saved_model import SavedModelNetwork

TF_MODELS_EPSILON = 1e-12


def save_hub_encoder(encoder: Encoder, directory: str | os.PathLike[str]) -> None:
    """Writes a SavedModel `encoder`, and `preprocessor` for a BERT, after TF Hub's text API.

    Args:
        encoder: A native BERT, or a wrapped SavedModel, which is written as it was trained.
        directory: Where to write; one that is there is replaced when all is written.

    Raises:
        UserError: The encoder is of Keras layers, but no BERT that TF Models' exporter can write.
    """
    if isinstance(encoder.network, SavedModelNetwork):
        with replaced_directory(directory) as target:
            encoder.network.saved.write(str(target / "encoder"), encoder.network.values)
        return
    preprocessor, backbone = encoder.preprocessor, encoder.network.to_backbone()
    is_bert = isinstance(backbone, keras_hub.models.BertBackbone)
    if not (is_bert and isinstance(preprocessor, BertPreprocessor)):
        raise UserError(
            f"{encoder.handle}: only a BERT with a WordPiece vocabulary can be written in TF Hub "
            f"format, not a {type(backbone).__name__} with a {type(preprocessor).__name__}."
        )
    if preprocessor.strip_accents != preprocessor.lower_case:
        raise UserError(
            f"{encoder.handle}: its tokenizer has strip_accents={preprocessor.strip_accents} and "
            f"do_lower_case={preprocessor.lower_case}; TF Models' exporter knows them only as one."
        )
    epsilon = layer_norm_epsilon_of(backbone)
    if epsilon != TF_MODELS_EPSILON:
        raise UserError(
            f"{encoder.handle}: its layer norms add {epsilon} to the variance; TF Models' exporter "
            f"can only write {TF_MODELS_EPSILON}."
        )
    with replaced_directory(directory) as target:
        _save_bert(backbone, preprocessor, target)


def _save_bert(
    backbone: keras_hub.models.BertBackbone, preprocessor: BertPreprocessor, target: Path
) -> None:
    # These import tf_keras and take seconds; nothing else here needs them.
    from official.legacy.bert import configs
    from official.nlp.tools import export_tfhub_lib

    config = configs.BertConfig(
        vocab_size=backbone.vocabulary_size,
        hidden_size=backbone.hidden_dim,
        num_hidden_layers=backbone.num_layers,
        num_attention_heads=backbone.num_heads,
        intermediate_size=backbone.intermediate_dim,
        # By "gelu" TF Models means the tanh formula.
        hidden_act=_exact_gelu if activation_of(backbone) is keras.activations.gelu else "gelu",
        hidden_dropout_prob=backbone.dropout,
        attention_probs_dropout_prob=backbone.dropout,
        max_position_embeddings=backbone.max_sequence_length,
        type_vocab_size=backbone.num_segments,
    )
    network_to_fill = export_tfhub_lib.get_bert_encoder(config)
    values = variables_by_hub_name(backbone)
    for variable in network_to_fill.variables:
        variable.assign(values[variable.name.removesuffix(":0")].numpy())
    with tempfile.TemporaryDirectory() as scratch:
        vocabulary_file = Path(scratch) / "vocab.txt"
        vocabulary_file.write_text(
            "".join(f"{token}\n" for token in preprocessor.vocabulary), encoding="utf-8"
        )
        checkpoint = tf.train.Checkpoint(model=network_to_fill, encoder=network_to_fill)
        text = {"vocab_file": str(vocabulary_file), "do_lower_case": preprocessor.lower_case}
        export_tfhub_lib.export_model(
            str(target / "encoder"),
            bert_config=config,
            model_checkpoint_path=checkpoint.save(str(Path(scratch) / "weights")),
            with_mlm=False,
            **text,
        )
        export_tfhub_lib.export_preprocessing(
            str(target / "preprocessor"),
            tokenize_with_offsets=False,
            default_seq_length=min(128, backbone.max_sequence_length),
            **text,
        )


def _exact_gelu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=False)
