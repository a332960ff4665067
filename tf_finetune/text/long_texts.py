"""What an encoder reads of texts that are longer than its rows: the beginning, both ends, or all.

- `truncate` keeps the beginning.
- `head_tail` keeps the beginning and the end: a quarter of the room for the one, the rest for the
  other, as Sun et al., 2019, "How to Fine-Tune BERT for Text Classification?" do (128 and 382 of
  510 tokens).
- `window` makes several rows of such a text, its *pieces*: a window of the room's size slides over
  it. Each piece has at least a quarter of its tokens in common with the next, so that what one
  border cuts stands whole in the neighbour; the last one ends where the text ends.

Of two texts each gets its fair share of the room first, see `fair_lengths`. One that fits into it
stands whole in every piece; where neither fits, both windows go from beginning to end together, so
that every token is in some piece.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.text.preprocessor import RawText, TextPreprocessor
from tf_finetune.text.segments import fair_lengths


def pack_long(
    preprocessor: TextPreprocessor,
    tokens: Sequence[tf.RaggedTensor],
    max_seq_length: int,
    long_text: str = "truncate",
) -> tuple[dict[str, Any], tf.Tensor]:
    """Packs segments into rows of at most `max_seq_length` tokens.

    Args:
        preprocessor: The encoder's.
        tokens: From its `tokenize`.
        max_seq_length: The most tokens of a row, special tokens included.
        long_text: `truncate`, `head_tail` or `window`.

    Returns:
        The features of `TextPreprocessor.pack`, and int32 [batch], the number of rows that each
        text became: 1 but for `window`. Rows of one text follow one another.

    Raises:
        UserError: See `TextPreprocessor.pack`; the encoder reads text and cuts it itself, so that
            only `truncate` is allowed; or there is no such `long_text`.
    """
    if long_text not in ("truncate", "head_tail", "window"):
        raise UserError(f"long_text={long_text}: allowed are truncate, head_tail and window.")
    full = preprocessor.packed_lengths(tokens)
    pieces = tf.ones_like(full)
    if long_text == "truncate":
        return preprocessor.pack(tokens, max_seq_length), pieces
    if isinstance(preprocessor, RawText):
        raise UserError(
            f"--long_text={long_text}: the encoder reads text itself, and cuts it by its own rule. "
            "Leave the flag out, or choose an encoder that reads token ids."
        )
    lengths = [segment.row_lengths() for segment in tokens]
    special = tf.cast(full, tf.int64) - tf.add_n(lengths)
    kept = fair_lengths(lengths, max_seq_length - special)
    if long_text == "head_tail":
        tokens = [_both_ends(segment, room) for segment, room in zip(tokens, kept, strict=True)]
    else:
        pieces = tf.reduce_max(tf.stack([*map(_count_windows, lengths, kept)]), axis=0)
        tokens = [
            _windows(segment, room, pieces) for segment, room in zip(tokens, kept, strict=True)
        ]
        pieces = tf.cast(pieces, tf.int32)
    return preprocessor.pack(tokens, max_seq_length), pieces


def _both_ends(segment: tf.RaggedTensor, kept: tf.Tensor) -> tf.RaggedTensor:
    """Keeps so many tokens of each row, int64 [batch], of its beginning and its end."""
    head = (kept + 2) // 4
    starts, limits = segment.row_starts(), segment.row_limits()
    return _gather(
        segment,
        tf.stack([starts, limits - (kept - head)], axis=1),
        tf.stack([head, kept - head], axis=1),
    )


def _count_windows(length: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """Counts the windows that reach from a row's beginning to its end, int64 [batch]."""
    step = tf.maximum(room - room // 4, 1)
    return 1 + (length - room + step - 1) // step


def _windows(segment: tf.RaggedTensor, room: tf.Tensor, pieces: tf.Tensor) -> tf.RaggedTensor:
    """Cuts each row into so many windows, int64 [batch], of equal size and at equal distances."""
    number = tf.ragged.range(pieces).values
    left = tf.repeat(segment.row_lengths() - room, pieces)
    shift = left * number // tf.repeat(tf.maximum(pieces - 1, 1), pieces)
    starts, sizes = (tf.repeat(value, pieces) for value in (segment.row_starts(), room))
    return _gather(segment, (starts + shift)[:, tf.newaxis], sizes[:, tf.newaxis])


def _gather(segment: tf.RaggedTensor, starts: tf.Tensor, sizes: tf.Tensor) -> tf.RaggedTensor:
    """Makes each row of some ranges of the values, int64 [rows, ranges]."""
    first = tf.reshape(starts, [-1])
    indices = tf.ragged.range(first, first + tf.reshape(sizes, [-1]))
    return tf.RaggedTensor.from_row_splits(
        tf.gather(segment.values, indices.values),
        indices.row_splits[:: starts.shape[1]],
        validate=False,
    )
