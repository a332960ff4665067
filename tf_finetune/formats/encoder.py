"""`Encoder`: a network with its preprocessor and its handle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras

from tf_finetune.errors import UserError
from tf_finetune.formats.native_head import POOLED_HEAD, NativeHead
from tf_finetune.models.lora import Lora
from tf_finetune.text.preprocessor import RawText, TextPreprocessor


@dataclass(frozen=True)
class Source:
    """A folder in Hugging Face's format.

    Attributes:
        directory: The folder.
        config: The content of its `config.json`.
    """

    directory: Path
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Encoder:
    """A text encoder with its preprocessor.

    Attributes:
        handle: The source it was loaded from, as the user wrote it.
        network: Takes the dict of `input_word_ids`, `input_mask` and `input_type_ids`, each int32
            [batch, seq_length], and returns a dict of `pooled_output` [batch, hidden_size] and
            `sequence_output` [batch, seq_length, hidden_size]. An encoder of raw strings takes
            `text_a` and, for two segments, `text_b`, string [batch], and has no `sequence_output`.
        preprocessor: Turns text into the inputs of `network`.
        hidden_size: The width of `pooled_output`.
        blocks: The embedding layers, then the layers of each transformer block from the lowest
            up; empty for a wrapped SavedModel. For freezing and layer-wise learning rates.
        mode: `native` for Keras layers, `saved_model` for a wrapped SavedModel.
        has_pooler: Whether `pooled_output` is a dense layer's; else it is the first token's row.
        has_new_pooler: Whether its pooler has learnt nothing, for it was saved without one.
        pooling: The pooling that it was trained with, or that its architecture has; see `Pooling`.
        native_head: The head that its architecture has in transformers.
        source: Its files in Hugging Face's format; None: it comes from another one.
    """

    handle: str
    network: keras.layers.Layer
    preprocessor: TextPreprocessor
    hidden_size: int
    blocks: tuple[tuple[keras.layers.Layer, ...], ...]
    mode: Literal["native", "saved_model"]
    has_pooler: bool = True
    has_new_pooler: bool = False
    pooling: str = "pooled"
    native_head: NativeHead = POOLED_HEAD
    source: Source | None = None

    @property
    def lora(self) -> Lora | None:
        """Its adapters' settings; None: it has none."""
        return getattr(self.network, "lora", None)

    @property
    def takes_text(self) -> bool:
        """Whether `network` takes raw strings."""
        return isinstance(self.preprocessor, RawText)

    @property
    def foreign(self) -> str:
        """What the network is, if it is not of our own layers, for a message."""
        if self.mode == "saved_model":
            return "a wrapped SavedModel"
        return f"a {type(getattr(self.network, 'backbone', self.network)).__name__} of KerasHub"

    @property
    def max_seq_length(self) -> int | None:
        """The longest input in tokens; None: there is no limit."""
        return self.preprocessor.max_positions


def native_encoder(
    handle: str, network: Any, preprocessor: TextPreprocessor, **others: Any
) -> Encoder:
    """Makes an encoder of a network of Keras layers.

    Args:
        handle: The handle, as the user wrote it.
        network: A `BertEncoder`, or a layer with the same attributes for its sizes and blocks.
        preprocessor: The network's; its `max_positions` is set here.
        **others: Further attributes of `Encoder`.

    Returns:
        The encoder.

    Raises:
        UserError: The vocabulary has more tokens than the network has embeddings.
    """
    vocabulary = getattr(preprocessor, "vocabulary", ())
    if len(vocabulary) > network.vocabulary_size:
        raise UserError(
            f"--encoder={handle}: its vocabulary has {len(vocabulary)} tokens, its network "
            f"embeddings for {network.vocabulary_size}. Give it its own vocabulary."
        )
    preprocessor.max_positions = network.max_seq_length
    return Encoder(
        handle=handle,
        network=network,
        preprocessor=preprocessor,
        hidden_size=network.hidden_size,
        blocks=network.blocks,
        mode="native",
        **others,
    )
