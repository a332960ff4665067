import os

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.data import tokenized
from tf_finetune.data.labelled import Examples
from tf_finetune.data.tokenized import tokenize_cached
from tf_finetune.text.preprocessor import RawText
from tf_finetune.text.wordpiece import BertPreprocessor

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "A"]
PAIRS = Examples((["a b", "", "A"], ["b", "a a a", "b b"]), np.array([0, 1, 0], np.int32))


@pytest.fixture
def count(monkeypatch):
    """How often texts were tokenized."""
    calls = []
    tokenize = tokenized.tokenize
    monkeypatch.setattr(
        tokenized, "tokenize", lambda *arguments: calls.append(1) or tokenize(*arguments)
    )
    return lambda: len(calls)


def assert_same(ours, theirs):
    assert ours.packed.keys() == theirs.packed.keys()
    for name, value in ours.packed.items():
        assert value.dtype == theirs.packed[name].dtype == tf.int32
        assert value.to_list() == theirs.packed[name].to_list()
    for name in ("lengths", "full_lengths", "labels"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype


def test_the_second_run_reads_what_the_first_has_tokenized(tmp_path, count):
    cache = str(tmp_path / "new" / "cache")
    first = tokenize_cached(PAIRS, BertPreprocessor(VOCABULARY), 6, cache)
    second = tokenize_cached(PAIRS, BertPreprocessor(VOCABULARY), 6, cache)
    assert count() == 1 and len(os.listdir(cache)) == 1
    assert_same(second, first)


@pytest.mark.parametrize(
    ("examples", "preprocessor", "length"),
    [
        (PAIRS, BertPreprocessor(VOCABULARY), 7),
        (PAIRS, BertPreprocessor([*VOCABULARY, "c"]), 6),
        (PAIRS, BertPreprocessor(VOCABULARY, lower_case=False), 6),
        (PAIRS, BertPreprocessor(VOCABULARY, strip_accents=False), 6),
        (Examples((["a b", "", "A"], ["b", "a a a", "b a"])), BertPreprocessor(VOCABULARY), 6),
        (Examples((["a", " b", "A"], ["b", "a a a", "b b"])), BertPreprocessor(VOCABULARY), 6),
    ],
)
def test_what_is_not_the_same_is_tokenized(tmp_path, count, examples, preprocessor, length):
    tokenize_cached(PAIRS, BertPreprocessor(VOCABULARY), 6, str(tmp_path))
    tokenize_cached(examples, preprocessor, length, str(tmp_path))
    assert count() == 2 and len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_torn_file_is_never_used(tmp_path, count, capsys, damage):
    preprocessor = BertPreprocessor(VOCABULARY)
    first = tokenize_cached(PAIRS, preprocessor, 6, str(tmp_path))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    place = data.index(np.int32(4).tobytes() + np.int32(5).tobytes())  # the ids of a and b
    data[place] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    assert_same(tokenize_cached(PAIRS, preprocessor, 6, str(tmp_path)), first)
    assert count() == 2 and "is damaged" in capsys.readouterr().out
    tokenize_cached(PAIRS, preprocessor, 6, str(tmp_path))
    assert count() == 2


def test_texts_for_an_encoder_that_reads_strings_are_not_kept(tmp_path, count):
    tokenize_cached(PAIRS, RawText(), 6, str(tmp_path))
    assert count() == 1 and not os.listdir(tmp_path)
