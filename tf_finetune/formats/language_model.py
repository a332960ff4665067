"""`LanguageModelFiles`: what is read of a language model before there is a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_finetune.errors import UserError
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


def float32(name: str, value: np.ndarray) -> np.ndarray:
    """Returns a weight as float32.

    Raises:
        UserError: It is not of floating point numbers, or some are NaN or infinite.
    """
    if value.dtype.name not in ("float32", "float16", "bfloat16", "float64"):
        raise UserError(
            f"tensor {name} is of dtype {value.dtype.name}; only float32, float16, bfloat16 and "
            "float64 can be read. Take the checkpoint that is not quantised."
        )
    value = np.asarray(value, "float32")
    # A sum is several times faster than looking at each value, and not finite if one of them is.
    with np.errstate(all="ignore"):
        suspicious = not np.isfinite(value.sum())
    if suspicious and (bad := int(np.sum(~np.isfinite(value)))):
        raise UserError(
            f"tensor {name} has {bad} of {value.size} values that are NaN or infinite: the "
            "checkpoint was saved after a training had failed. Take an earlier one."
        )
    return value


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
