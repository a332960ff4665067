"""Turns a language model's examples into token ids, with the ids that are learnt."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tf_finetune.data.batches import make_eval_dataset
from tf_finetune.data.conversations import Example
from tf_finetune.data.dialogue_reader import DialogueReader
from tf_finetune.data.readers import Row as DataRow
from tf_finetune.data.tokenized import PackedTexts, TokenizedRows, packed_cached
from tf_finetune.errors import UserError
from tf_finetune.generation.collate import IDS, TARGETS, DialogueCollate
from tf_finetune.generation.dialogue_format import DialogueFormat
from tf_finetune.runs.paths import expand_path
from tf_finetune.text.answers import Row, truncate
from tf_finetune.text.answers import tokenize as to_rows

# Examples that are rendered and cut into tokens at a time.
CHUNK = 256


@dataclass(frozen=True)
class TokenizedDialogues:
    """Examples as token ids.

    Attributes:
        rows: Those that have an answer to learn.
        numbers: int32 [n], the number of each row's example.
        answer_bytes: int32 [n], the UTF-8 bytes of each row's answers, without end tokens.
    """

    rows: TokenizedRows
    numbers: np.ndarray
    answer_bytes: np.ndarray

    def batches(self, batch_size: int) -> tf.data.Dataset:
        """Makes batches that hold each row once, in the order of their lengths."""
        return make_eval_dataset(self.rows, batch_size)

    @property
    def answer_tokens(self) -> np.ndarray:
        """Returns the number of tokens that each example has to learn, int [examples]."""
        counts = np.zeros(len(self.rows.full_lengths), np.int64)
        targets = self.rows.columns[TARGETS]
        counts[self.numbers] = tf.reduce_sum(tf.cast(targets >= 0, tf.int32), axis=1).numpy()
        return counts

    @property
    def cut(self) -> np.ndarray:
        """Returns which examples have lost tokens, bool [examples]."""
        return self.rows.full_lengths > self.rows.max_seq_length

    @property
    def dropped(self) -> np.ndarray:
        """Returns which examples were left out, bool [examples]."""
        dropped = np.ones(len(self.rows.full_lengths), bool)
        dropped[self.numbers] = False
        return dropped


def tokenize(
    examples: Sequence[Example],
    form: DialogueFormat,
    max_seq_length: int,
    cache_dir: str | None = None,
) -> TokenizedDialogues:
    """Turns examples into token ids, once for the whole run.

    Args:
        examples: The examples, each with an answer.
        form: How they become texts.
        max_seq_length: The most tokens of a row.
        cache_dir: Folder that keeps the ids for later runs on the same texts; None: no cache.

    Returns:
        The rows, kept in memory (8 bytes a token). An example of whose answers nothing is left
        within `max_seq_length` is left out.

    Raises:
        UserError: No example is left, or the template refuses one.
    """

    def make() -> PackedTexts:
        rows, full = [], []
        for example_rows, lengths in _rows(examples, form, max_seq_length):
            rows += example_rows
            full += lengths
        return _packed(rows, full, form)

    cache_dir = expand_path(cache_dir, "cache_dir") if cache_dir else None
    parts = (
        [form.fingerprint, str(max_seq_length), *map(example_key, examples)] if cache_dir else []
    )
    packed = packed_cached(cache_dir, parts, make)
    features = dict(packed.features)
    numbers, answer_bytes = (features.pop(name).numpy() for name in ("numbers", "answer_bytes"))
    if not len(numbers):
        raise UserError(
            f"None of the {len(examples):,} rows has an answer within --max_seq_length="
            f"{max_seq_length}. Give a greater one."
        )
    rows = TokenizedRows(
        features, packed.lengths, packed.full_lengths, max_seq_length, DialogueCollate()
    )
    return TokenizedDialogues(rows, numbers, answer_bytes)


def _rows(
    examples: Sequence[Example], form: DialogueFormat, max_seq_length: int
) -> Iterator[tuple[list[Row | None], list[int]]]:
    """Yields the rows of some examples after the other, None where nothing is left to learn."""
    waiting = iter(examples)
    while chunk := list(islice(waiting, CHUNK)):
        whole = to_rows(form.chat.tokenizer, [form.example(example) for example in chunk])
        cut = [without_rest(truncate(row, max_seq_length)) for row in whole]
        yield cut, [len(row.ids) for row in whole]


def without_rest(row: Row | None) -> Row | None:
    """Leaves out what comes after the last answer: nothing learns from it."""
    return row and dataclasses.replace(row, ids=row.ids[: row.answers[-1][1]])


def _packed(rows: Sequence[Row | None], full: Sequence[int], form: DialogueFormat) -> PackedTexts:
    kept = [(number, row) for number, row in enumerate(rows) if row is not None]
    answer_bytes = [count_answer_bytes(row, form) for _, row in kept]
    return PackedTexts(
        features={
            IDS: ragged([row.ids[:-1] for _, row in kept]),
            TARGETS: ragged([row.targets for _, row in kept]),
            "numbers": tf.constant([number for number, _ in kept], tf.int32),
            "answer_bytes": tf.constant(answer_bytes, tf.int32),
        },
        lengths=np.array([len(row.ids) - 1 for _, row in kept], np.int32),
        full_lengths=np.array(full, np.int32),
    )


def count_answer_bytes(row: Row, form: DialogueFormat) -> int:
    """Returns the UTF-8 bytes of a row's answers, without end tokens."""
    decode = form.chat.tokenizer.decode
    return sum(len(decode(row.ids[start:end]).encode()) for start, end in row.answers)


def ragged(rows: Sequence[Sequence[int]]) -> tf.RaggedTensor:
    """Returns rows of ids as int32 [n, (length)]."""
    lengths = np.array([len(row) for row in rows], np.int64)
    values = np.fromiter((id for row in rows for id in row), np.int32, int(lengths.sum()))
    return tf.RaggedTensor.from_row_lengths(values, lengths)


def example_key(example: Example) -> str:
    """Returns what the ids of an example depend on."""
    return repr(dataclasses.replace(example, location="", id=None))


@dataclass(frozen=True)
class StreamTokenizer:
    """Turns streamed rows into the columns of `tokenize`; see `RowTokenizer`.

    Attributes:
        reader: Turns rows into examples.
        form: How they become texts.
        max_seq_length: The most tokens of a row.
    """

    reader: DialogueReader
    form: DialogueFormat
    max_seq_length: int

    signature: ClassVar[Mapping[str, tf.TypeSpec]] = {
        name: tf.RaggedTensorSpec((None, None), tf.int32, row_splits_dtype=tf.int64)
        for name in (IDS, TARGETS)
    }

    def read(self, rows: Sequence[DataRow]) -> Mapping[str, Any]:
        """Checks rows and cuts them into tokens; one without an answer left learns nothing."""
        if not rows:
            return {IDS: ragged([[0]]), TARGETS: ragged([[-1]])}
        found: list[Row | None] = []
        for chunk, _ in _rows(
            [self.reader.read(row) for row in rows], self.form, self.max_seq_length
        ):
            found += chunk
        return {
            IDS: ragged([row.ids[:-1] if row else [0] for row in found]),
            TARGETS: ragged([row.targets if row else [-1] for row in found]),
        }

    def tokenize(self, arrays: Mapping[str, Any]) -> tuple[dict[str, Any], tf.Tensor]:
        """Returns the arrays as they are, and the rows' lengths."""
        return dict(arrays), tf.cast(arrays[IDS].row_lengths(), tf.int32)
