"""A BERT with TensorFlow's weights: Google's release, or `tf_model.h5` of transformers before 5."""

from pathlib import Path

from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder, native_encoder
from tf_finetune.formats.encoder_families import FAMILIES, read_arguments, with_activation
from tf_finetune.formats.handles import read_object
from tf_finetune.formats.tokenizer_files import read_tokenizer
from tf_finetune.formats.weight_files import read_weights
from tf_finetune.models.bert_weights import make_bert, new_pooler


def load_bert(
    handle: str, path: Path, dropout: float | None, hidden_act: str | None = None
) -> Encoder:
    """Loads a BERT whose weights TensorFlow has written.

    The `gelu` of a `bert_config.json` is the tanh formula, as in google-research/bert; that of a
    `config.json` is exact, as in transformers.

    Args:
        handle: The handle, as the user wrote it.
        path: A folder that contains `config.json` or `bert_config.json`, the weights (see
            `read_weights`) and the vocabulary (see `read_tokenizer`); or the prefix of a checkpoint
            in such a folder.
        dropout: The dropout rate; None: those in the configuration.
        hidden_act: See `load_hugging_face`.

    Returns:
        The encoder. A BERT that was saved without a pooler has a new one, of random weights.

    Raises:
        UserError: A file is missing or damaged, or the model is not a BERT.
    """
    directory = path if path.is_dir() else path.parent
    file = directory / "config.json"
    file = file if file.is_file() else directory / "bert_config.json"
    config = with_activation(read_object(file), hidden_act)
    if config.get("model_type", "bert") != "bert":
        raise UserError(
            f"{file} has model_type={config['model_type']!r}, whose weights are read from "
            "model.safetensors or pytorch_model.bin, and the folder has neither. Copy one of them "
            "from where the model comes from."
        )
    arguments = read_arguments(FAMILIES["bert"], config, file)
    if file.name == "bert_config.json" and hidden_act is None:
        arguments["approximate_gelu"] = True
    if dropout is not None:
        arguments |= {"dropout": dropout, "attention_dropout": dropout}
    options = ("dropout", "attention_dropout", "epsilon", "approximate_gelu")
    text = read_tokenizer(handle, directory)
    try:
        weights = read_weights(path)
        pooler = new_pooler(weights)
        network = make_bert(
            weights | pooler,
            num_heads=arguments["num_heads"],
            **{name: arguments[name] for name in options},
        )
    except UserError:
        raise
    # The exceptions of damaged files and indexes have no common class.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"its weights cannot be loaded: {reason}. Compare its files with the original's."
        ) from error
    return native_encoder(handle, network, text, has_new_pooler=bool(pooler))
