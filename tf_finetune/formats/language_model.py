"""`LanguageModelFiles`: what is read of a language model before there is a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune.errors import UserError
from tf_finetune.formats.tensors import float32
from tf_finetune.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class LanguageModelFiles:
    """The configuration, text side and open weights of a language model, in Hugging Face's terms.

    Attributes:
        handle: The source, as the user wrote it.
        config: The content of a `config.json`; other formats are translated to it.
        names: The names of the tensors that a causal language model of Hugging Face's has.
        load: Reads the tensor of such a name as Hugging Face stores it, in any dtype of floats.
        tokenizer: The checkpoint's own.
        chat_template: The source of its jinja template; None: it has none.
        tokens: The special tokens that a template may name, such as `eos_token`.
        stop_ids: The ids of all tokens that the checkpoint ends an answer with.
        directory: The folder in Hugging Face's format; None: the source is of another one.
    """

    handle: str
    config: dict[str, Any]
    names: frozenset[str]
    load: Callable[[str], np.ndarray]
    tokenizer: Tokenizer
    chat_template: str | None
    tokens: Mapping[str, str]
    stop_ids: tuple[int, ...]
    directory: Path | None

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor.

        Args:
            name: One of `names`.

        Returns:
            The tensor as Hugging Face stores it, float32.

        Raises:
            UserError: It is damaged, quantised, or holds values that are not finite.
        """
        try:
            return float32(name, self.load(name))
        except UserError as error:
            raise UserError(f"--model={self.handle}: {error}") from error
        # The exceptions of damaged files have no common class.
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"--model={self.handle}: tensor {name} cannot be read: {reason}. Compare the files "
                "with the original's."
            ) from error


def stop_ids(tokenizer: Tokenizer, tokens: Mapping[str, str], *found: Any) -> tuple[int, ...]:
    """Returns the ids that end an answer.

    Args:
        tokenizer: The tokenizer.
        tokens: The special tokens, of which `eos_token` is one of them.
        *found: Values of `eos_token_id`: an id, a list of ids, or None.

    Returns:
        The ids, each once, those of `found` first.
    """
    ids: list[Any] = []
    for value in found:
        ids += value if isinstance(value, list) else [value]
    if eos := tokens.get("eos_token"):
        ids.append(tokenizer.id_of(eos))
    return tuple(dict.fromkeys(id_ for id_ in ids if type(id_) is int))
