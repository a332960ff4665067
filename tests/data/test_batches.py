from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.classification.tokenize import tokenize
from tf_finetune.data.batches import (
    from_dataset,
    make_eval_dataset,
    make_train_dataset,
    plan_batches,
)
from tf_finetune.data.labelled import Examples
from tf_finetune.data.plan import plan_training
from tf_finetune.errors import UserError
from tf_finetune.runs.config import LoopConfig
from tf_finetune.text.preprocessor import RawText
from tf_finetune.text.wordpiece import BertPreprocessor

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c"]


@pytest.fixture(scope="module")
def rows():
    """Row i is the word a, i % 29 times, and its label is i."""
    texts = [" ".join(["a"] * (i % 29)) for i in range(100)]
    examples = Examples((texts,), np.arange(100, dtype=np.int32))
    return tokenize(examples, BertPreprocessor(VOCABULARY), 24)


def test_tokenize_measures_lengths_before_and_after_truncation(rows):
    words = np.arange(100) % 29
    np.testing.assert_array_equal(rows.full_lengths, words + 2)
    np.testing.assert_array_equal(rows.lengths, np.minimum(words + 2, 24))


@pytest.mark.parametrize(("epochs", "steps"), [(1, 13), (2, 26), (0.5, 7), (2.5, 33)])
def test_fractional_epochs(rows, epochs, steps):
    assert int(make_train_dataset(rows, 8, num_epochs=epochs).cardinality()) == steps
    batches = plan_batches(rows, 8, LoopConfig(num_train_epochs=epochs))
    assert (batches.num_steps, batches.steps_per_epoch) == (steps, 13)


def test_training_batches_are_padded_to_a_bucket_and_masked(rows):
    seen = []
    for features, labels, weights in make_train_dataset(replace(rows, buckets=(8, 16, 24)), 8):
        ids = features["input_word_ids"].numpy()
        assert ids.shape[0] == 8 and ids.shape[1] in (8, 16, 24)
        np.testing.assert_array_equal(features["input_mask"].numpy(), ids != 0)
        expected = np.minimum(labels.numpy() % 29 + 2, 24)
        np.testing.assert_array_equal((ids != 0).sum(axis=1), expected)
        assert ids.shape[1] == min(b for b in (8, 16, 24) if b >= expected.max())
        seen += list(labels.numpy()[weights.numpy() > 0])
    assert sorted(seen) == list(range(100))


@pytest.mark.parametrize("batch_size", [3, 8, 100, 1000])
def test_evaluation_counts_each_row_once(rows, batch_size):
    batches = list(make_eval_dataset(rows, batch_size))
    labels = np.concatenate([y[w > 0] for _, y, w in batches])
    np.testing.assert_array_equal(labels, rows.order)
    assert sum(float(tf.reduce_sum(w)) for _, _, w in batches) == 100


def test_a_skipped_data_set_goes_on_where_it_was(rows):
    whole = [y.numpy() for _, y, _ in make_train_dataset(rows, 8, num_epochs=2)]
    rest = [y.numpy() for _, y, _ in make_train_dataset(rows, 8, num_epochs=2).skip(17)]
    np.testing.assert_array_equal(np.stack(whole[17:]), np.stack(rest))


def test_a_training_goes_on_at_any_step(rows):
    batches = plan_batches(rows, 8, LoopConfig(num_train_epochs=2), seed=3)
    whole = [y.numpy() for _, y, _ in make_train_dataset(rows, 8, num_epochs=2, seed=3)]
    for step in (0, 17):
        rest = [y.numpy() for _, y, _ in batches.start(tf.distribute.get_strategy(), step)]
        np.testing.assert_array_equal(np.stack(whole[step:]), np.stack(rest))


def test_tokens_are_counted_without_padding_and_filling_rows(rows):
    batches = plan_batches(rows, 8, LoopConfig(num_train_epochs=1))
    counts = [
        float(batches.count_tokens(*batch))
        for batch in batches.start(tf.distribute.get_strategy(), 0)
    ]
    assert sum(counts) == rows.lengths.sum()


def test_no_thread_tunes_the_batches(rows):
    """Dropping an iterator that is tuned can take a minute: its thread sleeps that long."""
    for dataset in (make_train_dataset(rows, 8), make_eval_dataset(rows, 8)):
        assert dataset.options().autotune.enabled is False
        assert dataset.skip(3).options().autotune.enabled is False


def test_buckets_that_are_too_short_are_refused_at_once(rows):
    with pytest.raises(ValueError, match="24 tokens is longer than the buckets"):
        make_train_dataset(replace(rows, buckets=(8, 16)), 8)
    shapes = {
        x["input_word_ids"].shape[1]
        for x, *_ in make_eval_dataset(replace(rows, buckets=(32, 8)), 8)
    }
    assert shapes == {8, 32}


def test_few_batches_share_a_length_and_many_do_not(rows):
    def shapes(**options):
        return {x["input_word_ids"].shape[1] for x, *_ in make_train_dataset(rows, 8, **options)}

    assert shapes(num_epochs=1) == {24}  # 13 batches of 8 rows
    assert len(shapes(num_epochs=40)) >= 3


def test_shapes_are_those_of_the_batches_in_the_order_of_their_first(rows):
    loop = LoopConfig(num_train_epochs=40)
    seen = [
        tuple(x["input_word_ids"].shape) for x, *_ in make_train_dataset(rows, 8, num_epochs=40)
    ]
    assert list(plan_batches(rows, 8, loop).shapes) == list(dict.fromkeys(seen))


@pytest.mark.parametrize("seed", range(8))
def test_a_short_training_needs_no_room_for_rows_it_never_sees(rows, seed):
    dataset = make_train_dataset(rows, 2, max_steps=1, seed=seed)
    plan = plan_training(rows.lengths, 2, 1, seed)
    [(features, labels, _)] = dataset
    np.testing.assert_array_equal(labels, plan[0])
    shape = tuple(features["input_word_ids"].shape)
    assert rows.lengths[plan].max() <= shape[1] < rows.lengths[plan].max() + 4
    assert plan_batches(rows, 2, LoopConfig(max_steps=1), seed=seed).shapes == [shape]


def test_raw_text_passes_through():
    examples = Examples((["one", "two words", ""], ["x", "y", "z"]), None)
    rows = tokenize(examples, RawText(), 16)
    ((features, _, weights),) = make_eval_dataset(rows, 4)
    assert sorted(features["text_a"].numpy()) == [b"", b"one", b"two words"]
    assert weights.numpy().tolist() == [1, 1, 1]


def test_raw_text_longer_than_the_longest_bucket():
    texts = ["word " * 200, "short"] * 3
    rows = tokenize(Examples((texts,), np.zeros(6, np.int32)), RawText(), 16)
    assert rows.lengths.tolist() == [16, 1] * 3
    for dataset in (make_eval_dataset(rows, 6), make_train_dataset(rows, 6)):
        assert sum(len(labels) for _, labels, _ in dataset) == 6


def test_no_examples_and_no_positions():
    with pytest.raises(UserError, match="no examples"):
        tokenize(Examples(([],), None), BertPreprocessor(VOCABULARY), 16)
    preprocessor = BertPreprocessor(VOCABULARY)
    preprocessor.max_positions = 64
    with pytest.raises(UserError, match="max_seq_length=65: the encoder has positions for 64"):
        tokenize(Examples((["a"],), None), preprocessor, 65)


def test_labels_do_not_come_from_the_cache(tmp_path):
    preprocessor = BertPreprocessor(VOCABULARY)
    for labels in (np.array([0, 1], np.int32), np.array([0.5, 2], np.float32), None):
        rows = tokenize(Examples((["a b", "c"],), labels), preprocessor, 16, str(tmp_path))
        assert ("label" in rows.columns) == (labels is not None)
        expected = np.zeros(2, np.int32) if labels is None else labels[rows.order]
        (found,) = (y.numpy() for _, y, _ in make_eval_dataset(rows))
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dataset_of_the_users_own():
    dataset = tf.data.Dataset.range(10).map(lambda x: ({"x": [x]}, [0], [1.0]))
    batches = from_dataset(dataset)
    assert (batches.num_steps, batches.steps_per_epoch) == (10, 10)
    assert float(batches.count_tokens(*next(iter(dataset)))) == 0
    rest = [int(x["x"][0]) for x, *_ in batches.start(tf.distribute.get_strategy(), 7)]
    assert rest == [7, 8, 9]
    assert from_dataset(dataset, steps_per_epoch=5).steps_per_epoch == 5
    with pytest.raises(UserError, match=r"no known end. Make it finite with take\(\)"):
        from_dataset(dataset.repeat())


def test_the_error_of_a_row_is_raised_as_it_was():
    batches = from_dataset(tf.data.Dataset.range(1))
    internal = tf.errors.InternalError(None, None, "from the background")
    with pytest.raises(tf.errors.InternalError), batches.own_errors():
        raise internal
    batches.failures.append(UserError("row 7"))
    with pytest.raises(UserError, match="row 7"), batches.own_errors():
        raise internal
    with pytest.raises(ZeroDivisionError), batches.own_errors():
        raise ZeroDivisionError
