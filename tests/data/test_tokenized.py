import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.data import tokenized
from tf_finetune.data.tokenized import (
    PackedTexts,
    TokenizedRows,
    gather_batch,
    pack_texts,
    pack_texts_cached,
    without_autotuning,
)
from tf_finetune.errors import UserError
from tf_finetune.text.preprocessor import RawText
from tf_finetune.text.wordpiece import BertPreprocessor

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "A"]
PAIRS = (["a b", "", "A"], ["b", "a a a", "b b"])


@pytest.fixture
def count(monkeypatch):
    """How often texts were packed."""
    calls = []
    monkeypatch.setattr(
        tokenized, "pack_texts", lambda *arguments: calls.append(1) or pack_texts(*arguments)
    )
    return lambda: len(calls)


def assert_same(ours: PackedTexts, theirs: PackedTexts) -> None:
    assert ours.features.keys() == theirs.features.keys()
    for name, value in ours.features.items():
        assert value.dtype == theirs.features[name].dtype == tf.int32
        assert value.to_list() == theirs.features[name].to_list()
    for name in ("lengths", "full_lengths"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype


def test_packed_texts_and_their_lengths():
    packed = pack_texts(PAIRS, BertPreprocessor(VOCABULARY, lower_case=False), 6)
    assert packed.features["input_word_ids"].to_list() == [
        [2, 4, 5, 3, 5, 3],
        [2, 3, 4, 4, 4, 3],
        [2, 6, 3, 5, 5, 3],
    ]
    assert packed.lengths.tolist() == packed.full_lengths.tolist() == [6, 6, 6]
    packed = pack_texts(PAIRS, BertPreprocessor(VOCABULARY), 5)
    assert packed.lengths.tolist() == [5, 5, 5] and packed.full_lengths.tolist() == [6, 6, 6]
    with pytest.raises(UserError, match="no examples"):
        pack_texts(([], []), BertPreprocessor(VOCABULARY), 6)


def test_the_second_run_reads_what_the_first_has_packed(tmp_path, count):
    cache = str(tmp_path / "new" / "cache")
    first = pack_texts_cached(PAIRS, BertPreprocessor(VOCABULARY), 6, cache)
    second = pack_texts_cached(PAIRS, BertPreprocessor(VOCABULARY), 6, cache)
    assert count() == 1 and len(os.listdir(cache)) == 1
    assert_same(second, first)


@pytest.mark.parametrize(
    ("texts", "preprocessor", "length"),
    [
        (PAIRS, BertPreprocessor(VOCABULARY), 7),
        (PAIRS, BertPreprocessor([*VOCABULARY, "c"]), 6),
        (PAIRS, BertPreprocessor(VOCABULARY, lower_case=False), 6),
        (PAIRS, BertPreprocessor(VOCABULARY, strip_accents=False), 6),
        ((["a b", "", "A"], ["b", "a a a", "b a"]), BertPreprocessor(VOCABULARY), 6),
        ((["a", " b", "A"], ["b", "a a a", "b b"]), BertPreprocessor(VOCABULARY), 6),
    ],
)
def test_what_is_not_the_same_is_packed(tmp_path, count, texts, preprocessor, length):
    pack_texts_cached(PAIRS, BertPreprocessor(VOCABULARY), 6, str(tmp_path))
    pack_texts_cached(texts, preprocessor, length, str(tmp_path))
    assert count() == 2 and len(os.listdir(tmp_path)) == 2


def test_what_is_made_of_long_texts_is_a_part_of_the_key(tmp_path, count):
    preprocessor = BertPreprocessor(VOCABULARY)
    texts = (["a", "a b A b a b"],)
    ways = ("truncate", "head_tail", "window")
    first = [pack_texts_cached(texts, preprocessor, 6, str(tmp_path), way) for way in ways]
    again = [pack_texts_cached(texts, preprocessor, 6, str(tmp_path), way) for way in ways]
    assert count() == 3 and len(os.listdir(tmp_path)) == 3
    for ours, theirs in zip(again, first, strict=True):
        assert_same(ours, theirs)
    assert [len(packed.lengths) for packed in again] == [2, 2, 3]
    assert again[0].pieces is again[1].pieces is None and again[2].pieces.tolist() == [1, 2]
    assert again[2].full_lengths.tolist() == [3, 8]
    default = pack_texts_cached(texts, preprocessor, 6, str(tmp_path))
    assert count() == 3
    assert_same(default, first[0])


def test_rows_are_averaged_by_example():
    lengths = np.array([2, 8, 8, 8, 5], np.int32)
    rows = TokenizedRows({}, lengths, lengths[:3], 8, lambda *arguments: arguments)
    values = np.array([[1, 2], [3, 4], [5, 9], [7, 8], [2, 2]], np.float32)
    assert rows.mean_by_example(values) is values and rows.first_rows.tolist() == [*range(5)]
    rows = dataclasses.replace(rows, pieces=np.array([1, 3, 1], np.int32))
    found = rows.mean_by_example(values)
    assert found.dtype == np.float32 and found.tolist() == [[1, 2], [5, 7], [2, 2]]
    assert rows.first_rows.tolist() == [0, 1, 4] and rows.row_weight == pytest.approx(0.6)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_torn_file_is_never_used(tmp_path, count, capsys, damage):
    preprocessor = BertPreprocessor(VOCABULARY)
    first = pack_texts_cached(PAIRS, preprocessor, 6, str(tmp_path))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    place = data.index(np.int32(4).tobytes() + np.int32(5).tobytes())  # the ids of a and b
    data[place] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    assert_same(pack_texts_cached(PAIRS, preprocessor, 6, str(tmp_path)), first)
    assert count() == 2 and "is damaged" in capsys.readouterr().out
    pack_texts_cached(PAIRS, preprocessor, 6, str(tmp_path))
    assert count() == 2


def test_texts_for_an_encoder_that_reads_strings_are_not_kept(tmp_path, count):
    pack_texts_cached(PAIRS, RawText(), 6, str(tmp_path))
    assert count() == 1 and not os.listdir(tmp_path)


def test_rows_are_gathered_by_number_and_batches_filled_up():
    """A filling row repeats the first of its batch and makes it no longer."""
    columns = {
        "ids": tf.ragged.constant([[1], [2, 2], [3, 3, 3]]),
        "label": tf.constant([[0.1, 1.0], [0.2, 2.0], [0.3, 3.0]]),
    }
    lengths = np.array([1, 2, 3], np.int32)
    rows = TokenizedRows(columns, lengths, lengths, 8, lambda *arguments: arguments)
    assert len(rows) == 3
    chosen, real, length = gather_batch(
        rows.columns, rows.collate, tf.constant([1, 0, -1]), tf.constant([4, 6, 8])
    )
    assert chosen["ids"].to_list() == [[2, 2], [1], [2, 2]]
    np.testing.assert_allclose(chosen["label"], [[0.2, 2], [0.1, 1], [0.2, 2]])
    assert real.numpy().tolist() == [True, True, False] and int(length) == 6


def test_the_order_is_from_the_shortest_and_stable():
    lengths = np.array([3, 1, 3, 2, 1], np.int32)
    rows = TokenizedRows({}, lengths, lengths, 8, lambda *arguments: arguments)
    assert rows.order.tolist() == [1, 4, 3, 0, 2]


def test_no_thread_tunes_a_dataset():
    dataset = without_autotuning(tf.data.Dataset.range(3))
    assert dataset.options().autotune.enabled is False
    assert list(dataset.as_numpy_iterator()) == [0, 1, 2]
