"""`load_encoder`: from any kind of handle to a text encoder."""

from pathlib import Path
from typing import Any, Literal

from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.encoder_adapters import with_lora
from tf_finetune.formats.encoder_families import find_family
from tf_finetune.formats.encoder_layers import with_layers
from tf_finetune.formats.handles import describe, find_kind, local_path
from tf_finetune.formats.hf_hub import download, with_commit
from tf_finetune.formats.hub import load_hub
from tf_finetune.formats.huggingface_encoders import load_hugging_face
from tf_finetune.formats.keras_hub import load_keras_hub
from tf_finetune.formats.saved_model import TF1_REMEDY
from tf_finetune.models.lora import Lora

Mode = Literal["auto", "native", "saved_model"]

_HF = "hf://"
# What is read of a repository of the Hugging Face Hub, the first kind that it has.
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "tf_model*.h5")


def load_encoder(
    handle: str,
    *,
    mode: Mode = "auto",
    preprocessor: str | None = None,
    dropout: float | None = None,
    hidden_act: str | None = None,
    num_layers: int | None = None,
    lora: Lora | None = None,
) -> Encoder:
    """Loads a text encoder. Its dtype policy is Keras' global one at the time of the call.

    Args:
        handle: One of
            a local directory: a TF2 SavedModel that follows the TF Hub text API, a KerasHub
            preset, an encoder in Hugging Face's format, or a BERT of Google's release;
            the prefix of the checkpoint in a directory of Google's, `.../bert_model.ckpt`;
            the `gs://` address of such a directory or checkpoint;
            `package:<module>`: such a directory in an installed Python package;
            a TF Hub or Kaggle URL of a SavedModel;
            `hf://org/name`, `hf://org/name@revision`: an encoder of the Hugging Face Hub;
            a KerasHub preset: its name, `kaggle://...` or `hf://...`.
        mode: `native`: as Keras layers, into which of SavedModels BERT and its kin can be lifted;
            `saved_model`: a SavedModel wrapped whole; `auto`: native where possible.
        preprocessor: Handle of a TF Hub preprocessor, for a SavedModel without a vocabulary.
        dropout: Replaces a native encoder's dropout rate; None keeps its own.
        hidden_act: Replaces the activation of an encoder in Hugging Face's format: `gelu`, the
            exact one, or `gelu_new`, the tanh formula; None keeps its own.
        num_layers: How many layers to keep, the lowest; None: all. See `with_layers`.
        lora: The adapters to train in place of the encoder's weights; None: none. Only an encoder
            of our own layers can have them.

    Returns:
        The encoder; its handle has the commit of a model of the Hugging Face Hub.

    Raises:
        UserError: The handle cannot be used; the message says why and what to do.
    """
    encoder = _load(handle, mode, preprocessor, dropout, hidden_act)
    return with_lora(with_layers(encoder, num_layers), lora)


def _load(
    handle: str,
    mode: Mode,
    preprocessor: str | None,
    dropout: float | None,
    hidden_act: str | None,
) -> Encoder:
    """Loads a whole encoder without adapters; see `load_encoder`."""
    path = _find(handle)
    if path and handle.startswith(_HF):
        handle = with_commit(handle, path)
    kind = find_kind(path) if path else "keras_hub"
    if kind == "tf1_hub":
        raise UserError(
            f"--encoder={handle}: a model in TF1 Hub format (tfhub_module.pb), which cannot be "
            f"trained in TensorFlow 2. {TF1_REMEDY}"
        )
    # A record of before the flag has the formula that all models had then.
    if kind != "hugging_face" and hidden_act not in (None, "gelu_new"):
        raise UserError(
            f"--hidden_act={hidden_act}: the activation of --encoder={handle} is fixed, as it is "
            "not in Hugging Face's format. Leave the flag out."
        )
    if path and kind == "saved_model":
        return load_hub(
            handle,
            path,
            mode=mode,
            preprocessor=local_path(preprocessor, "preprocessor") if preprocessor else None,
            dropout=dropout,
        )
    if mode == "saved_model":
        raise UserError(
            f"--encoder_mode=saved_model: --encoder={handle} is not a SavedModel. "
            "Use auto or native."
        )
    if preprocessor:
        raise UserError(
            f"--preprocessor={preprocessor}: --encoder={handle} carries its own vocabulary. "
            "Leave the flag out."
        )
    if path and kind == "hugging_face":
        return load_hugging_face(handle, path, dropout, hidden_act)
    if kind == "keras_hub":
        return load_keras_hub(handle, str(path or handle), dropout)
    raise UserError(f"--encoder={handle}: {describe(path)}")


def _find(handle: str) -> Path | None:
    """Returns the path of a handle's files; None for a preset that KerasHub finds itself."""
    if not handle.startswith(_HF):
        return local_path(handle)

    def check(config: dict[str, Any]) -> None:
        find_family(config, Path("config.json"))

    try:
        return download(handle.removeprefix(_HF), check, _WEIGHTS, "encoder")
    except UserError as error:
        raise UserError(f"--encoder={handle}: {error}") from error
