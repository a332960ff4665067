"""`Decoder`: a language model's network with its text side and its handle."""

from dataclasses import dataclass

import keras

from tf_finetune.formats.language_model import LanguageModelFiles
from tf_finetune.models.gpt2_config import GPT2Config
from tf_finetune.models.llama_config import LlamaConfig
from tf_finetune.text.chat import ChatFormat
from tf_finetune.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Decoder:
    """A language model.

    Attributes:
        network: Takes the dict of `token_ids`, `segments` and `positions`, each int32 [batch,
            length], and returns [batch, length, hidden]; see `LlamaDecoder`.
        config: Its sizes and form.
        chat: How it reads conversations, and where its answers end.
        files: What it was loaded from.
    """

    network: keras.layers.Layer
    config: LlamaConfig | GPT2Config
    chat: ChatFormat
    files: LanguageModelFiles

    @property
    def handle(self) -> str:
        """The source it was loaded from, as the user wrote it."""
        return self.files.handle

    @property
    def tokenizer(self) -> Tokenizer:
        """Turns text into ids and back."""
        return self.files.tokenizer
