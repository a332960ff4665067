"""Texts to the features of an encoder, with TensorFlow ops that a SavedModel can contain."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.text.segments import fair_lengths, join_segments


class TextPreprocessor(tf.Module):
    """Turns one or two segments of text into the features of an encoder.

    Every method works eagerly, in `tf.data` and in `tf.function`; an instance can be an attribute
    of a `tf.Module` that is written with `tf.saved_model.save`.

    Attributes:
        max_segments: The most segments that an example may have.
        max_positions: The most tokens that the encoder takes; None: there is no limit.
    """

    max_segments: int = 2
    max_positions: int | None = None

    def tokenize(self, segments: Sequence[tf.Tensor]) -> list[tf.RaggedTensor]:
        """Cuts each segment into tokens.

        Args:
            segments: One or two string [batch].

        Returns:
            For each segment, int32 [batch, (tokens)], without special tokens, not truncated.
        """
        raise NotImplementedError

    def pack(self, tokens: Sequence[tf.RaggedTensor], max_seq_length: int) -> dict[str, Any]:
        """Truncates the segments, joins them and adds the special tokens.

        Args:
            tokens: The result of `tokenize`.
            max_seq_length: The most tokens of a row, special tokens included.

        Returns:
            Feature name to int32 [batch, (length)].

        Raises:
            UserError: `max_seq_length` is too small for one token of each segment, or more than
                `max_positions`.
        """
        raise NotImplementedError

    def packed_lengths(self, tokens: Sequence[tf.RaggedTensor]) -> tf.Tensor:
        """Counts each row's tokens before truncation, special ones included: int32 [batch]."""
        raise NotImplementedError

    def pad(
        self, packed: dict[str, Any], length: int | tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Pads the rows that `pack` returns to one length.

        Args:
            packed: The result of `pack`.
            length: Tokens of each padded row; None: as many as the longest row has.

        Returns:
            The encoder's features, int32 [batch, length].
        """
        raise NotImplementedError

    def fingerprint(self) -> str | None:
        """Returns a cache key that only preprocessors with equal results share; None: no key."""
        return None

    def __call__(self, segments: Sequence[tf.Tensor], max_seq_length: int) -> dict[str, tf.Tensor]:
        """Turns string [batch] segments into features padded to the longest row."""
        return self.pad(self.pack(self.tokenize(segments), max_seq_length))


class RawText(TextPreprocessor):
    """For encoders that take raw strings: passes them on as `text_a` and `text_b`."""

    def tokenize(self, segments: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the segments."""
        return list(segments)

    def packed_lengths(self, tokens: Sequence[tf.Tensor]) -> tf.Tensor:
        """Counts each row's words, split at white space, in place of tokens: int32 [batch]."""
        words = [tf.strings.split(segment).row_lengths() for segment in tokens]
        return tf.cast(tf.add_n(words), tf.int32)

    def pack(self, tokens: Sequence[tf.Tensor], max_seq_length: int) -> dict[str, tf.Tensor]:
        """Names the segments; nothing is truncated."""
        return dict(zip(("text_a", "text_b"), tokens, strict=False))

    def pad(
        self, packed: dict[str, tf.Tensor], length: int | tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Returns `packed`."""
        return packed


class TokenPreprocessor(TextPreprocessor):
    """Packs token ids as `<start> a <end>`, or `<start> a <separator> b <end>`.

    Attributes:
        pad_id: Pads rows.
        start_id: Opens a row.
        separator_ids: Stand between two segments, and have the first one's type id.
        end_id: Closes a row.
        second_type_id: The type id of the second segment and its end: 1, or 0 for encoders that
            know no types (RoBERTa).
    """

    def __init__(
        self,
        *,
        pad_id: int,
        start_id: int,
        end_id: int,
        separator_ids: Sequence[int] | None = None,
        second_type_id: int = 1,
    ) -> None:
        """Keeps the special ids; `separator_ids` is `[end_id]` by default, as in BERT."""
        super().__init__()
        self.pad_id = pad_id
        self.start_id = start_id
        self.end_id = end_id
        self.separator_ids = [end_id] if separator_ids is None else list(separator_ids)
        self.second_type_id = second_type_id

    def packed_lengths(self, tokens: Sequence[tf.RaggedTensor]) -> tf.Tensor:
        """Counts each row's tokens before truncation, special ones included: int32 [batch]."""
        lengths = [segment.row_lengths() for segment in tokens]
        return tf.cast(tf.add_n(lengths) + self._num_special(len(tokens)), tf.int32)

    def pack(
        self, tokens: Sequence[tf.RaggedTensor], max_seq_length: int
    ) -> dict[str, tf.RaggedTensor]:
        """Returns `input_word_ids` and `input_type_ids`: 0, then the second segment's."""
        special = self._num_special(len(tokens))
        if max_seq_length < special + len(tokens):
            raise UserError(
                f"max_seq_length={max_seq_length} is too small: {special} special tokens and one "
                f"token of each text need max_seq_length={special + len(tokens)} or more"
            )
        if self.max_positions is not None and max_seq_length > self.max_positions:
            raise UserError(
                f"max_seq_length={max_seq_length}: the encoder has positions for "
                f"{self.max_positions} tokens. Give at most that."
            )
        lengths = fair_lengths(
            [segment.row_lengths() for segment in tokens], max_seq_length - special
        )
        ids, type_ids = join_segments(
            tokens,
            lengths,
            start_id=self.start_id,
            separator_ids=self.separator_ids,
            end_id=self.end_id,
        )
        return {"input_word_ids": ids, "input_type_ids": type_ids * self.second_type_id}

    def pad(
        self, packed: dict[str, tf.RaggedTensor], length: int | tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Returns the packed ids, padded, and `input_mask` (1 for tokens, 0 for padding)."""
        ids = packed["input_word_ids"]
        shape = None if length is None else tf.stack([-1, length])
        return {
            "input_word_ids": ids.to_tensor(self.pad_id, shape=shape),
            "input_mask": tf.ones_like(ids).to_tensor(0, shape=shape),
            "input_type_ids": packed["input_type_ids"].to_tensor(0, shape=shape),
        }

    def _num_special(self, num_segments: int) -> int:
        return 2 + (num_segments - 1) * len(self.separator_ids)
