"""A BERT from the files that it was published in: Hugging Face's, or Google's release."""

from pathlib import Path

from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder, native_encoder
from tf_finetune.formats.handles import read_json
from tf_finetune.formats.tokenizer_files import read_tokenizer
from tf_finetune.formats.weight_files import read_weights
from tf_finetune.models.bert import EPSILON
from tf_finetune.models.bert_weights import make_bert, new_pooler

# The allowed values in `config.json`, the default first.
_BERT = {
    "model_type": ("bert",),
    "hidden_act": ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    "position_embedding_type": ("absolute",),
}


def load_bert(handle: str, path: Path, dropout: float | None) -> Encoder:
    """Loads a BERT in Hugging Face's format or that of Google's release.

    Its `gelu`, exact in Hugging Face's, becomes the tanh formula, as in Google's, KerasHub and TF
    Models.

    Args:
        handle: The handle, as the user wrote it.
        path: A folder that contains `config.json` or `bert_config.json`, the weights (see
            `read_weights`) and the vocabulary (see `read_tokenizer`); or the prefix of a checkpoint
            in such a folder.
        dropout: The dropout rate; None: the one in the configuration.

    Returns:
        The encoder. A BERT that was saved without a pooler has a new one, of random weights.

    Raises:
        UserError: A file is missing or damaged, or the model is not a BERT.
    """
    directory = path if path.is_dir() else path.parent
    config_file = directory / "config.json"
    if not config_file.is_file():
        config_file = directory / "bert_config.json"
    config = read_json(handle, config_file)
    for key, allowed in _BERT.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(
                f"--encoder={handle}: {config_file} has {key}={config[key]!r}; only "
                f"{' or '.join(allowed)} can be read. Load other architectures from a KerasHub "
                "preset or as a SavedModel."
            )
    text = read_tokenizer(handle, directory)
    if dropout is None:
        dropout = config.get("hidden_dropout_prob", 0.1)
    try:
        weights = read_weights(path)
        pooler = new_pooler(weights)
        network = make_bert(
            weights | pooler,
            num_heads=config.get("num_attention_heads", 0),
            dropout=dropout,
            epsilon=config.get("layer_norm_eps", EPSILON),
        )
    except UserError as error:
        raise UserError(f"--encoder={handle}: {error}") from error
    # The exceptions of damaged files and indexes have no common class.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"--encoder={handle}: its weights cannot be loaded: {reason}. "
            "Compare its files with the original's."
        ) from error
    return native_encoder(handle, network, text, has_new_pooler=bool(pooler))
