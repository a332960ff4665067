"""A BERT from a directory in Hugging Face's format."""

import json
import re
from pathlib import Path

import numpy as np
import safetensors

from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder, native_encoder
from tf_finetune.models.bert import EPSILON
from tf_finetune.models.bert_weights import canonical_name, make_bert
from tf_finetune.text.wordpiece import (
    bert_preprocessor,
    is_cased,
    read_vocabulary,
)

# The allowed values in `config.json`, the default first.
_HUGGING_FACE_BERT = {
    "model_type": ("bert",),
    "hidden_act": ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    "position_embedding_type": ("absolute",),
}


def load_hugging_face(handle: str, directory: Path, dropout: float | None) -> Encoder:
    """Loads a BERT in Hugging Face format.

    Its `gelu`, exact there, becomes the tanh formula, as in KerasHub and TF Models.

    Args:
        handle: The handle, as the user wrote it.
        directory: Contains `config.json`, `model.safetensors`, `vocab.txt` and, with the casing of
            its text, `tokenizer_config.json`.
        dropout: The dropout rate; None: the one in `config.json`.

    Returns:
        The encoder.

    Raises:
        UserError: A file is missing or the model is not a BERT.
    """
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    for key, allowed in _HUGGING_FACE_BERT.items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(
                f"--encoder={handle}: {directory / 'config.json'} has {key}={config[key]!r}; from "
                f"Hugging Face format only {' or '.join(allowed)} can be read. Load other "
                "architectures from a KerasHub preset or as a SavedModel."
            )
    vocabulary_file = directory / "vocab.txt"
    if not vocabulary_file.is_file():
        raise UserError(
            f"--encoder={handle}: {vocabulary_file} is missing. Put the model's WordPiece "
            "vocabulary there, one token a line."
        )
    tokenizer_file = directory / "tokenizer_config.json"
    tokenizer = json.loads(tokenizer_file.read_text("utf-8")) if tokenizer_file.is_file() else {}
    if tokenizer.get("tokenize_chinese_chars", True) is False:
        raise UserError(
            f"--encoder={handle}: {tokenizer_file} has tokenize_chinese_chars=false; only "
            "tokenizers that make each Chinese character a word can be read. Give the model as a "
            "SavedModel, and its preprocessor's SavedModel by --preprocessor."
        )
    if dropout is None:
        dropout = config.get("hidden_dropout_prob", 0.1)
    try:
        network = make_bert(
            _hugging_face_weights(directory),
            num_heads=config.get("num_attention_heads"),
            dropout=dropout,
            epsilon=config.get("layer_norm_eps", EPSILON),
        )
    # The exceptions of damaged files and indexes have no common class.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"--encoder={handle}: its weights cannot be loaded: {reason}. "
            "Compare its files with the original's."
        ) from error
    vocabulary = read_vocabulary(vocabulary_file)
    lower_case = tokenizer.get("do_lower_case", not is_cased(vocabulary))
    text = bert_preprocessor(handle, vocabulary, lower_case, tokenizer.get("strip_accents"))
    return native_encoder(handle, network, text)


def _hugging_face_weights(directory: Path) -> dict[str, np.ndarray]:
    """Returns a checkpoint's tensors, under TF names and with kernels [inputs, outputs]."""
    index = directory / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    weights = {}
    for name in sorted(names):
        with safetensors.safe_open(directory / name, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118  # it is no dict
                path = re.sub(r"\blayer/(\d+)/", r"layer_\1/", key.replace(".", "/"))
                path = re.sub("LayerNorm/weight$", "LayerNorm/gamma", path)
                path = re.sub("LayerNorm/bias$", "LayerNorm/beta", path)
                path = re.sub("embeddings/weight$", "embeddings", path)
                is_kernel = path.endswith("/weight")
                path = re.sub("/weight$", "/kernel", path)
                # Skip the tables of an unused head, which may be large.
                if canonical_name(path):
                    value = file.get_tensor(key)
                    weights[path] = value.T if is_kernel else value
    return weights
