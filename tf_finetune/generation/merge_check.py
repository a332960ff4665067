"""Checks that a model directory holds what was trained, by logits in float32."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_finetune.data.dialogues import DialogueData
from tf_finetune.errors import UserError
from tf_finetune.formats.decoder import Decoder
from tf_finetune.formats.decoders import build_decoder
from tf_finetune.generation.answers import Question
from tf_finetune.generation.generator import Generator
from tf_finetune.generation.merge import copy_training
from tf_finetune.generation.questions import make_questions
from tf_finetune.generation.saved_model import all_logits

# How much text is compared: the end of each row, with its answer.
ROWS, TOKENS = 4, 64
# The greatest difference of a logit by rounding in float32, of the greatest logit above 1.
TOLERANCE = 1e-3
_TEXT = "A model says the same before and after it has been written to a file."


@dataclass(frozen=True)
class MergeCheck:
    """How far the logits of a directory's model are from those of the model that was trained.

    Attributes:
        dtype: Of the directory's weights.
        tokens: How many were compared.
        largest: The greatest logit.
        difference: The greatest difference of a logit, trained model and directory.
        trained: The same, trained model and base: what training has changed.
        kept: The same, directory and base.
    """

    dtype: str
    tokens: int
    largest: float
    difference: float
    trained: float
    kept: float

    def check(self) -> None:
        """Checks that the directory's model is the trained one.

        Raises:
            UserError: It differs by more than rounding, or it is the base although that was
                trained.
        """
        differs = self.dtype == "float32" and self.difference > TOLERANCE * max(1.0, self.largest)
        # A sum of logits that are not finite is none.
        if differs or not np.isfinite(self.difference):
            raise UserError(
                f"The merged model differs from the trained one: a logit by {self.difference:.3g}, "
                f"of up to {self.largest:.3g}. Nothing was exported. If the base's files have been "
                "changed since the training, restore them."
            )
        if self.kept < self.trained / 5:
            raise UserError(
                f"The merged model equals its base: {self.dtype}, in which the base's weights are "
                "stored, rounds away what was trained. Nothing was exported. Train longer or with "
                "a higher --learning_rate."
            )

    @property
    def warning(self) -> str | None:
        """What a user should know; None: nothing."""
        if not self.trained:
            return "the model computes what its base does: training has changed nothing."
        if self.difference > self.trained / 2:
            return (
                f"rounded to {self.dtype}, the merged model differs from the trained one by a "
                f"logit of {self.difference:.2g}; training has changed one by {self.trained:.2g}."
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """Returns the part `export` of metrics.json."""
        return {
            "dtype": self.dtype,
            "compared_tokens": self.tokens,
            "logit_difference": self.difference,
            "base_logit_difference": self.trained,
        }

    def __str__(self) -> str:
        return (
            f"greatest logit difference of trained and merged model {self.difference:.2g}, of "
            f"trained and base model {self.trained:.2g} ({self.tokens} tokens, weights in "
            f"{self.dtype})"
        )


def probe_rows(generator: Generator, data: DialogueData | None) -> list[list[int]]:
    """Returns token ids of the end of some rows, with their answers; without rows of a sentence."""
    splits = [data.test, data.validation, data.train] if data else []
    examples = next((examples for examples in splits if examples), ())[:ROWS]
    questions = make_questions(examples, generator.is_raw)
    rows = [_ids(generator, question)[-TOKENS:] for question in questions]
    found = [row for row in rows if row]
    return found or [generator.decoder.tokenizer.encode(_TEXT, []).ids]


def check_merged(
    decoder: Decoder, merged: Decoder, rows: Sequence[Sequence[int]], dtype: str
) -> MergeCheck:
    """Compares a model of a directory with the one that was trained, and that with its base.

    Args:
        decoder: The trained one. It may compute in any precision: it is compared as it computes in
            float32.
        merged: That of the directory, in float32.
        rows: Token ids, some rows.
        dtype: The directory's.
    """
    with float32_on_cpu():
        exact = build_decoder(decoder.files, lora=decoder.network.lora)
        base = _logits(exact, rows)
        copy_training(decoder, exact)
        trained = _logits(exact, rows)
        written = _logits(merged, rows)

    def difference(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.abs(first - second).max())

    return MergeCheck(
        dtype=dtype,
        tokens=len(written),
        largest=float(np.abs(trained).max()),
        difference=difference(trained, written),
        trained=difference(trained, base),
        kept=difference(written, base),
    )


@contextmanager
def float32_on_cpu() -> Iterator[None]:
    """Makes new networks compute in float32, where the hardware does not round products."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        with tf.device("CPU"):
            yield
    finally:
        keras.config.set_dtype_policy(policy)


def _ids(generator: Generator, question: Question) -> list[int]:
    tokenizer, chat = generator.decoder.tokenizer, generator.decoder.chat
    answer = question.reference or ""
    if isinstance(question.prompt, str):
        return tokenizer.encode(question.prompt + answer, []).ids
    prompt = chat.prompt(question.prompt)
    return tokenizer.encode(prompt.text + answer, prompt.special).ids


def _logits(decoder: Decoder, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the logits of all tokens, float32 [tokens, vocabulary]."""
    found = []
    for row in rows:
        ids = tf.constant([row], tf.int32)
        found.append(all_logits(decoder.network, ids, tf.ones_like(ids))[0].numpy())
    return np.concatenate(found)
