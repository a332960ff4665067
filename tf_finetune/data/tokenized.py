"""Rows as token ids: made once, cached on disk if asked, gathered into batches."""

import os.path
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

from tf_finetune import __version__
from tf_finetune.errors import UserError
from tf_finetune.files import open_file, replaced_file
from tf_finetune.text.fingerprint import hash_parts
from tf_finetune.text.long_texts import pack_long
from tf_finetune.text.preprocessor import TextPreprocessor

Batch: TypeAlias = tuple[Any, Any, tf.Tensor]
"""`(features, labels, weights)`, as `keras.Model.fit` takes them. Weights are float32 [batch] or
[batch, length]; rows and tokens of weight 0 do not count."""

TOKENIZE_BATCH = 512
# The errors of numpy and zipfile for a file that is truncated, damaged or not a cache file.
_READ_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class Collate(Protocol):
    """Makes batches of rows. Each wing has its own; it runs in the graph of a dataset."""

    def __call__(self, columns: Mapping[str, Any], real: tf.Tensor, length: tf.Tensor) -> Batch:
        """Makes a batch.

        Args:
            columns: The values of the batch's rows, from `TokenizedRows.columns`.
            real: bool [batch], False for a row that only fills the batch up.
            length: int32 [], the tokens that rows are padded to.
        """

    def count_tokens(self, features: Any, labels: Any, weights: tf.Tensor) -> tf.Tensor:
        """Returns the tokens of a batch, padding and filling rows left out, as float32 []."""

    def check_training(self, columns: Mapping[str, Any]) -> None:
        """Checks that rows can be trained on, before their batches are planned.

        Args:
            columns: Those of all rows, as of `TokenizedRows`.

        Raises:
            UserError: They cannot; the message names a row.
        """


@dataclass(frozen=True)
class TokenizedRows:
    """Rows as token ids, ready to be gathered into batches.

    Attributes:
        columns: All that `collate` needs of each row: tensors [n, ...] or ragged [n, (length)].
        lengths: int32 [n], tokens of each row after truncation.
        full_lengths: int32 [examples], tokens of each example before truncation.
        max_seq_length: The length that rows were truncated to.
        collate: Makes batches of the columns.
        buckets: Lengths that batches are padded to; None: chosen for the batches at hand.
        pieces: int32 [examples], the number of rows that hold each example, one after the other,
            and share its weight of 1; None: each row is an example.
    """

    columns: Mapping[str, tf.Tensor | tf.RaggedTensor]
    lengths: np.ndarray
    full_lengths: np.ndarray
    max_seq_length: int
    collate: Collate
    buckets: Sequence[int] | None = None
    pieces: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def first_rows(self) -> np.ndarray:
        """Int [examples], the first row of each example."""
        if self.pieces is None:
            return np.arange(len(self))
        return np.cumsum(self.pieces) - self.pieces

    @property
    def row_weight(self) -> float | None:
        """The mean weight of a row whose example has others; None: each row has its own."""
        return None if self.pieces is None else len(self.pieces) / len(self)

    def mean_by_example(self, values: np.ndarray) -> np.ndarray:
        """Averages float32 [n, ...] over the rows of each example: float32 [examples, ...]."""
        if self.pieces is None:
            return values
        counts = self.pieces.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
        return np.add.reduceat(values, self.first_rows, axis=0) / counts

    @cached_property
    def order(self) -> np.ndarray:
        """Int [n], the rows from the shortest to the longest."""
        return np.argsort(self.lengths, kind="stable")


def gather_batch(
    columns: Mapping[str, Any], collate: Collate, planned: tf.Tensor, padded: tf.Tensor
) -> Batch:
    """Gathers the rows of a batch, in the graph of a dataset.

    Args:
        columns: Those of all rows, as of `TokenizedRows`.
        collate: Makes the batch of the columns of its rows.
        planned: int32 [batch], the rows; -1 where the batch is filled up.
        padded: int32 [n], the bucket of each row; a batch gets its largest.
    """
    real = planned >= 0
    # A filling row repeats the first row of its batch, so that it does not lengthen the batch.
    rows = tf.where(real, planned, tf.maximum(planned[0], 0))
    chosen = {name: tf.gather(value, rows) for name, value in columns.items()}
    return collate(chosen, real, tf.reduce_max(tf.gather(padded, rows)))


@dataclass(frozen=True)
class PackedTexts:
    """Texts as packed token ids.

    Attributes:
        features: Feature name to int32 [n, (length)], or string [n] for encoders that read text.
        lengths: int32 [n], tokens of each row after truncation.
        full_lengths: int32 [examples], tokens of each example before truncation.
        pieces: See `TokenizedRows`.
    """

    features: dict[str, tf.Tensor | tf.RaggedTensor]
    lengths: np.ndarray
    full_lengths: np.ndarray
    pieces: np.ndarray | None = None


def pack_texts(
    texts: Sequence[Sequence[str]],
    preprocessor: TextPreprocessor,
    max_seq_length: int,
    long_text: str = "truncate",
) -> PackedTexts:
    """Turns texts into packed token ids, once for the whole run.

    Args:
        texts: For each segment the text of each row.
        preprocessor: The encoder's.
        max_seq_length: Longest row in tokens, special tokens included.
        long_text: What rows are made of longer texts; see `pack_long`.

    Returns:
        The token ids, kept in memory (4 bytes a token and feature).

    Raises:
        UserError: No texts, a `max_seq_length` that is too small or too large; or see `pack_long`.
    """

    # AutoGraph would take 0.6 s (docs/performance.md), and has nothing to convert here.
    @tf.autograph.experimental.do_not_convert
    def pack(*segments: tf.Tensor) -> tuple[dict[str, tf.RaggedTensor], tf.Tensor, tf.Tensor]:
        tokens = preprocessor.tokenize(segments)
        features, pieces = pack_long(preprocessor, tokens, max_seq_length, long_text)
        return features, preprocessor.packed_lengths(tokens), pieces

    if not len(texts[0]):
        raise UserError("There are no examples.")
    # Called eagerly first: in a graph TensorFlow would wrap the UserError of a bad max_seq_length.
    pack(*(tf.constant([""]) for _ in texts))
    columns = tuple(tf.constant(list(column), tf.string) for column in texts)
    dataset = tf.data.Dataset.from_tensor_slices(columns).batch(TOKENIZE_BATCH)
    dataset = without_autotuning(dataset.map(pack, num_parallel_calls=os.cpu_count()))
    batches, full_lengths, numbers = zip(*dataset, strict=True)
    features = {name: tf.concat([batch[name] for batch in batches], axis=0) for name in batches[0]}
    full, pieces = (np.concatenate([*map(np.array, parts)]) for parts in (full_lengths, numbers))
    ragged = [value for value in features.values() if isinstance(value, tf.RaggedTensor)]
    lengths = np.minimum(full, max_seq_length)
    if ragged:
        lengths = ragged[0].row_lengths().numpy().astype(np.int32)
    return PackedTexts(features, lengths, full, pieces if pieces.max() > 1 else None)


def pack_texts_cached(
    texts: Sequence[Sequence[str]],
    preprocessor: TextPreprocessor,
    max_seq_length: int,
    cache_dir: str | None,
    long_text: str = "truncate",
) -> PackedTexts:
    """Packs texts, or reads an earlier run's packed texts from the cache; see `packed_cached`.

    Args:
        texts: See `pack_texts`.
        preprocessor: See `pack_texts`; one without a `fingerprint` is never cached.
        max_seq_length: See `pack_texts`.
        cache_dir: The folder of the cache; None: no cache.
        long_text: See `pack_texts`.

    Raises:
        UserError: See `pack_texts`.
        OSError: The folder cannot be written.
    """
    fingerprint = preprocessor.fingerprint() if cache_dir else None
    if fingerprint is None:
        return pack_texts(texts, preprocessor, max_seq_length, long_text)
    # One string, as it was before there were other kinds of rows.
    head = f"{fingerprint} {max_seq_length} {len(texts)} {len(texts[0])}"
    head += "" if long_text == "truncate" else f" {long_text}"
    parts = [head, *(text for column in texts for text in column)]
    return packed_cached(
        cache_dir, parts, lambda: pack_texts(texts, preprocessor, max_seq_length, long_text)
    )


def packed_cached(
    cache_dir: str | None, parts: Sequence[str], make: Callable[[], PackedTexts]
) -> PackedTexts:
    """Makes packed texts, or reads those of an earlier run from the cache.

    A file's name is its cache key: a hash of all that the ids depend on and of our version, so a
    file is never out of date. Its checksums reveal a damaged one, which is made anew.

    Args:
        cache_dir: The folder of the cache; None: no cache.
        parts: All that the ids depend on.
        make: Makes them.

    Raises:
        OSError: The folder cannot be written.
    """
    if cache_dir is None:
        return make()
    first, *others = parts
    path = os.path.join(cache_dir, f"{hash_parts([f'{__version__} {first}', *others])}.npz")
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except _READ_ERRORS as error:
        print(f"warning: {path} is damaged ({error}); the texts are tokenized again.")
    packed = make()
    _write(path, packed)
    return packed


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset without tf.data's tuning thread, so that its iterators end at once.

    The thread sleeps up to a minute between its rounds and often misses the call to end; dropping
    the iterator waits for the thread.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _read(path: str) -> PackedTexts:
    with open_file(path) as stream, np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    lengths, full_lengths = arrays.pop("lengths"), arrays.pop("full_lengths")
    pieces = arrays.pop("pieces", None)
    features: dict[str, Any] = {}
    for name in [name.removesuffix(" splits") for name in arrays if name.endswith(" splits")]:
        splits = arrays.pop(f"{name} splits")
        features[name] = tf.RaggedTensor.from_row_splits(arrays.pop(f"{name} values"), splits)
    features |= {name: tf.constant(value) for name, value in arrays.items()}
    return PackedTexts(features, lengths, full_lengths, pieces)


def _write(path: str, packed: PackedTexts) -> None:
    arrays: dict[str, Any] = {"lengths": packed.lengths, "full_lengths": packed.full_lengths}
    if packed.pieces is not None:
        arrays["pieces"] = packed.pieces
    for name, value in packed.features.items():
        if isinstance(value, tf.RaggedTensor):
            arrays[f"{name} values"] = value.values.numpy()
            arrays[f"{name} splits"] = value.row_splits.numpy()
        else:
            arrays[name] = value.numpy()
    with replaced_file(path) as file:
        np.savez(file, **arrays)
