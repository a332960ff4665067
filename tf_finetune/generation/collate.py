"""Makes batches of a language model's rows: one document a row, or several packed into one."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_finetune.data.packing import pack_best_fit
from tf_finetune.data.tokenized import Batch, TokenizedRows

# The columns of `TokenizedRows`, ragged int32 [n, (length)]: the ids that are read, and the id that
# follows each of them, -1 where it is not learnt.
IDS, TARGETS = "ids", "targets"
# Of packed rows: how long each document is, ragged int32 [n, (documents)].
DOCUMENTS = "documents"
# A shorter prefix saves less than it costs to compute it apart.
MIN_PREFIX = 16
# Rows that are compared at a time; more take more memory.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class DialogueCollate:
    """Makes the features, labels and weights of a language model; see `Collate`."""

    def __call__(self, columns: Mapping[str, Any], real: tf.Tensor, length: tf.Tensor) -> Batch:
        """Returns int32 [batch, length] features and labels, and float32 [batch, length] weights.

        The labels are the targets, and a weight is 1 where there is one.
        """
        shape = tf.stack([-1, length])
        ids = columns[IDS].to_tensor(0, shape=shape)
        targets = columns[TARGETS].to_tensor(-1, shape=shape)
        # A row that fills a batch up has nothing to learn.
        targets = tf.where(real[:, tf.newaxis], targets, -1)
        places = tf.tile(tf.range(length)[tf.newaxis], [tf.shape(ids)[0], 1])
        if DOCUMENTS in columns:
            sizes = columns[DOCUMENTS]
            ends = tf.cumsum(sizes.to_tensor(0), axis=1)
            segments = tf.searchsorted(ends, places, side="right") + 1
            starts = tf.pad(ends, [[0, 0], [1, 0]])
            positions = places - tf.gather(starts, segments - 1, batch_dims=1)
            used = ends[:, -1:]
        else:
            segments, positions = tf.ones_like(ids), places
            used = tf.cast(columns[IDS].row_lengths(), tf.int32)[:, tf.newaxis]
        segments = tf.where(places < used, segments, 0)
        features = {
            "token_ids": ids,
            "segments": segments,
            "positions": tf.where(segments > 0, positions, 0),
            "targets": targets,
        }
        return features, targets, tf.cast(targets >= 0, tf.float32)

    def count_tokens(self, features: Any, labels: Any, weights: tf.Tensor) -> tf.Tensor:
        """Returns the tokens of the rows with a target, as float32 []."""
        real = tf.reduce_any(weights > 0, axis=1, keepdims=True)
        return tf.reduce_sum(tf.cast((features["segments"] > 0) & real, tf.float32))

    def check_training(self, columns: Mapping[str, Any]) -> None:
        """Accepts all rows: those without a target were dropped before."""


def shared_prefix(rows: TokenizedRows) -> tuple[int, ...]:
    """Returns the token ids that all rows begin with, up to the first that is learnt from.

    Empty where they are fewer than are worth computing apart, or rows are packed.
    """
    if DOCUMENTS in rows.columns:
        return ()
    # A row keeps a token of its own.
    count = int(rows.lengths.min()) - 1
    first = rows.columns[IDS][0, :count]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        ids, targets = (rows.columns[name][part, :count].to_tensor() for name in (IDS, TARGETS))
        same = tf.reduce_all((ids == first[:count]) & (targets < 0), axis=0).numpy()
        count = count if same.all() else int(np.argmin(same))
        if count < MIN_PREFIX:
            return ()
    return tuple(first[:count].numpy().tolist())


def pack_rows(rows: TokenizedRows) -> TokenizedRows:
    """Packs rows together into rows of at most `max_seq_length` tokens.

    Attention stays within each document, and its positions start from 0.
    """
    packs = pack_best_fit(rows.lengths, rows.max_seq_length)
    order = np.concatenate(packs)
    counts = np.array([len(pack) for pack in packs])
    lengths = np.add.reduceat(rows.lengths[order], np.cumsum(counts) - counts)

    def joined(column: tf.RaggedTensor) -> tf.RaggedTensor:
        values = tf.gather(column, order).values
        return tf.RaggedTensor.from_row_lengths(values, lengths)

    columns = {name: joined(rows.columns[name]) for name in (IDS, TARGETS)}
    sizes = tf.constant(rows.lengths[order], tf.int32)
    columns[DOCUMENTS] = tf.RaggedTensor.from_row_lengths(sizes, counts)
    return dataclasses.replace(
        rows,
        columns=columns,
        lengths=lengths.astype(np.int32),
        full_lengths=lengths.astype(np.int32),
        buckets=(rows.max_seq_length,),
    )
