"""TF Hub SavedModels as encoders: lifted into Keras layers, or wrapped whole in one layer."""

import gc
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.formats.encoder import Encoder, native_encoder
from tf_finetune.formats.lift import lift_encoders
from tf_finetune.formats.saved_model import TOKEN_INPUTS, SavedModel, SavedModelNetwork
from tf_finetune.models.bert import BertEncoder
from tf_finetune.models.bert_weights import WeightError, canonical_name
from tf_finetune.models.precision import float32_compute
from tf_finetune.text.hub import HubPreprocessor
from tf_finetune.text.preprocessor import RawText, TextPreprocessor
from tf_finetune.text.wordpiece import (
    BertPreprocessor,
    bert_preprocessor,
    is_cased,
    read_vocabulary,
)

# In 6 layers float32 rounding makes a difference of some 1e-6, another layer norm or activation one
# of some 1e-3.
LIFT_TOLERANCE = 1e-4


def load_hub(
    handle: str,
    path: Path,
    *,
    mode: Literal["auto", "native", "saved_model"],
    preprocessor: Path | None,
    dropout: float | None,
) -> Encoder:
    """Makes an encoder of a SavedModel that follows TF Hub's text API.

    Args:
        handle: The handle, as the user wrote it.
        path: The SavedModel's directory.
        mode: `native` lifts or fails, `saved_model` wraps, `auto` lifts if possible, else wraps.
        preprocessor: A TF Hub preprocessor's directory, used in place of the vocabulary that the
            SavedModel carries.
        dropout: A lifted encoder's dropout rate; None: 0.1, as all BERTs were trained.

    Returns:
        The encoder.

    Raises:
        UserError: The SavedModel cannot be used.
    """
    saved = SavedModel(str(path))
    text: TextPreprocessor
    if saved.takes_text:
        text = RawText()
    elif preprocessor:
        text = HubPreprocessor(str(preprocessor))
    else:
        text = _own_preprocessor(handle, saved.module)
    if mode != "saved_model":
        try:
            lifted = _lift(saved, 0.1 if dropout is None else dropout)
        except WeightError as error:
            if mode == "native":
                raise UserError(
                    f"--encoder={handle}: cannot be made of Keras layers: {error}. "
                    "Use --encoder_mode=saved_model."
                ) from error
            logging.getLogger(__name__).warning(
                "%s stays a SavedModel, in float32 and whole: %s", handle, error
            )
        else:
            del saved
            gc.collect()  # Its functions form a reference cycle that keeps every variable alive.
            has_pooler = lifted.pooler is not None
            return native_encoder(
                handle,
                lifted,
                text,
                has_pooler=has_pooler,
                pooling="pooled" if has_pooler else "cls",
            )
    if dropout is not None:
        raise UserError(
            f"--encoder_dropout={dropout}: a SavedModel's dropout is fixed. Leave the flag out."
        )
    positions = [
        variable.shape[0]
        for variable in saved.variables
        if canonical_name(variable.name) == "position_embedding/embeddings"
    ]
    text.max_positions = positions[0] if positions else None
    network = SavedModelNetwork(str(path), saved)
    network.build()
    return Encoder(
        handle=handle,
        network=network,
        preprocessor=text,
        hidden_size=saved.widths["pooled_output"],
        blocks=(),
        mode="saved_model",
    )


def _lift(saved: SavedModel, dropout: float) -> BertEncoder:
    if saved.takes_text:
        raise WeightError("it takes raw strings")
    smallest = np.inf
    for encoder in lift_encoders(saved.variables, saved.num_layers(), dropout):
        smallest = min(smallest, _largest_difference(saved, encoder))
        if smallest <= LIFT_TOLERANCE:
            return encoder
    raise WeightError(
        f"its variables are a BERT's, but its outputs differ by {smallest:.1e} from one's"
    )


def _largest_difference(saved: SavedModel, encoder: BertEncoder) -> float:
    """Returns the largest difference of any output, on random tokens with a pair and padding.

    Both compute in float32.
    """
    length = min(16, encoder.max_seq_length)
    ids = np.random.default_rng(0).integers(0, encoder.vocabulary_size, [2, length])
    columns = np.arange(length)
    values = (
        ids,
        np.stack([columns < length, columns < length - length // 4]),
        np.stack([columns >= length // 2, columns < 0]) & (encoder.num_types > 1),
    )
    inputs = {
        name: tf.constant(value.astype("int32"))
        for name, value in zip(TOKEN_INPUTS, values, strict=True)
    }
    expected = saved.run(saved.inputs(inputs))
    with float32_compute(encoder):
        actual = encoder(inputs, training=False)
    mask = values[1]
    differences = [np.abs(expected["pooled_output"] - actual["pooled_output"])]
    if "sequence_output" in expected:
        # Outputs at padding are undefined; leave them out.
        differences.append(np.abs(expected["sequence_output"] - actual["sequence_output"])[mask])
    return max(float(difference.max()) for difference in differences)


def _own_preprocessor(handle: str, saved_model: Any) -> BertPreprocessor:
    try:
        vocabulary_file = saved_model.vocab_file.asset_path.numpy().decode()
    except AttributeError:
        raise UserError(
            f"--encoder={handle}: the SavedModel carries no vocabulary (`vocab_file`). "
            "Name its preprocessor with --preprocessor."
        ) from None
    vocabulary = read_vocabulary(Path(vocabulary_file))
    if hasattr(saved_model, "do_lower_case"):
        lower_case = bool(saved_model.do_lower_case.numpy())
    else:
        lower_case = not is_cased(vocabulary)
    return bert_preprocessor(handle, vocabulary, lower_case)
