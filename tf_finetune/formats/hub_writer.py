"""Writes an encoder in TF Hub's format, with the exporter of TF Models."""

import os
import tempfile
from pathlib import Path

import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.files import replaced_directory
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.saved_model import SavedModelNetwork
from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.bert_weights import beyond_bert, read_bert
from tf_finetune.text.wordpiece import BertPreprocessor
from tf_finetune.text.words import WordRules

TF_MODELS_EPSILON = 1e-12


def save_hub_encoder(encoder: Encoder, directory: str | os.PathLike[str]) -> None:
    """Writes a SavedModel `encoder`, and `preprocessor` for a BERT, after TF Hub's text API.

    Args:
        encoder: A native BERT, or a wrapped SavedModel, which is written with its trained weights.
            Of a new pooler, which TF Hub's API cannot do without, a notice is printed.
        directory: Where to write; an existing one is replaced when all is written.

    Raises:
        UserError: The encoder is native, but no BERT that TF Models' exporter can write.
    """
    check_hub_encoder(encoder)
    with replaced_directory(directory) as target:
        if isinstance(encoder.network, SavedModelNetwork):
            encoder.network.saved.write(str(target / "encoder"), encoder.network.values)
            return
        if encoder.has_new_pooler:
            print(
                f"notice: {encoder.handle} has no pooler of its own; the pooled_output of what is "
                "written is random unless a training with --pooling=pooled has taught it. "
                "sequence_output is not concerned."
            )
        assert isinstance(encoder.preprocessor, BertPreprocessor)
        _save_bert(encoder.network, encoder.preprocessor, target)


def check_hub_encoder(encoder: Encoder) -> None:
    """Checks that an encoder can be written in TF Hub's format.

    Raises:
        UserError: It is native, but no BERT that TF Models' exporter can write.
    """
    preprocessor, network = encoder.preprocessor, encoder.network
    if isinstance(network, SavedModelNetwork):
        return
    if not (isinstance(network, BertEncoder) and isinstance(preprocessor, BertPreprocessor)):
        name = type(getattr(network, "backbone", network)).__name__
        raise UserError(
            f"{encoder.handle}: only a BERT with a WordPiece vocabulary can be written in TF Hub "
            f"format, not a {name} with a {type(preprocessor).__name__}."
        )
    if others := beyond_bert(network):
        raise UserError(
            f"{encoder.handle}: it has {' and '.join(others)}, which TF Models' exporter cannot "
            "write. Export a classifier with it instead: --do_export without --export_encoder."
        )
    if preprocessor.strip_accents != preprocessor.lower_case:
        raise UserError(
            f"{encoder.handle}: its tokenizer has strip_accents={preprocessor.strip_accents} and "
            f"do_lower_case={preprocessor.lower_case}; TF Models' exporter knows them only as one."
        )
    if preprocessor.rules != WordRules() or "[CLS]" not in preprocessor.vocabulary:
        raise UserError(
            f"{encoder.handle}: its tokenizer has {preprocessor.rules} and the special token "
            f"{preprocessor.vocabulary[preprocessor.start_id]}; TF Models' exporter knows only "
            f"{WordRules()} and [CLS]."
        )
    if network.epsilon != TF_MODELS_EPSILON:
        raise UserError(
            f"{encoder.handle}: its layer norms add {network.epsilon} to the variance; TF Models' "
            f"exporter can only write {TF_MODELS_EPSILON}."
        )


def _save_bert(network: BertEncoder, preprocessor: BertPreprocessor, target: Path) -> None:
    # These import tf_keras and take seconds; nothing else here needs them.
    from official.legacy.bert import configs
    from official.nlp.tools import export_tfhub_lib

    attention_dropout = network.attention_dropout
    config = configs.BertConfig(
        vocab_size=network.vocabulary_size,
        hidden_size=network.hidden_size,
        num_hidden_layers=network.num_layers,
        num_attention_heads=network.num_heads,
        intermediate_size=network.intermediate_size,
        # "gelu" is the tanh formula in TF Models.
        hidden_act="gelu" if network.approximate_gelu else _exact_gelu,
        hidden_dropout_prob=network.dropout,
        attention_probs_dropout_prob=(
            network.dropout if attention_dropout is None else attention_dropout
        ),
        max_position_embeddings=network.max_seq_length,
        type_vocab_size=network.num_types,
        embedding_size=network.embedding_size,
    )
    network_to_fill = export_tfhub_lib.get_bert_encoder(config)
    values = read_bert(network)
    for variable in network_to_fill.variables:
        value = values[variable.name.removesuffix(":0")]
        variable.assign(value.reshape(variable.shape))
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
            default_seq_length=min(128, network.max_seq_length),
            **text,
        )


def _exact_gelu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=False)
