"""The head and the labels that a checkpoint of transformers brings."""

from typing import Any

from tf_finetune.classification.hugging_face import stored_head
from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder
from tf_finetune.formats.huggingface import open_tensors
from tf_finetune.formats.language_model import float32


def load_head_weights(encoder: Encoder, head: Any) -> None:
    """Gives a native head the weights of its encoder's checkpoint.

    Args:
        encoder: From a folder in Hugging Face's format.
        head: From `make_head`, built.

    Raises:
        UserError: The checkpoint has no such head, or one of another shape.
    """
    assert encoder.source is not None
    directory, native = encoder.source.directory, encoder.native_head
    tensors = open_tensors(directory)
    stored = stored_head(head, native.dense or "", native.out, native.norm or "")
    names = [name for part in stored for name in part.names]
    if missing := [name for name in names if name not in tensors]:
        raise UserError(
            f"{directory} holds no classification head: its weights lack {missing[0]}. Give a "
            "checkpoint of transformers' …ForSequenceClassification, or --encoder in place of "
            "--init_from."
        )
    try:
        for part in stored:
            part.assign(lambda name: float32(name, tensors[name]()))
    except ValueError as error:
        raise UserError(
            f"{directory}: {error}, as its config.json says. Compare its files with the original's."
        ) from error
