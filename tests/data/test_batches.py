from itertools import combinations

import numpy as np
import pytest
import tensorflow as tf

from tf_finetune.data.batches import (
    NEW_LENGTH_TOKENS,
    choose_buckets,
    count_steps,
    eval_order,
    make_eval_dataset,
    make_train_dataset,
    plan_training,
    tokenize,
    xla_buckets,
)
from tf_finetune.data.labelled import Examples
from tf_finetune.errors import UserError
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


def test_every_epoch_sees_every_row_once_in_a_new_order(rows):
    plan = plan_training(rows.lengths, 8, num_steps=26, seed=1)
    first, second = plan[:13], plan[13:]
    for epoch in (first, second):
        assert sorted(epoch[epoch >= 0]) == list(range(100))
        assert (epoch < 0).sum() == 4
    assert not np.array_equal(first, second)


def test_the_order_depends_on_the_seed_alone(rows):
    plans = [plan_training(rows.lengths, 8, 20, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])
    # A longer training begins as a shorter one.
    np.testing.assert_array_equal(plan_training(rows.lengths, 8, 40, 1)[:20], plans[0])


def test_batches_hold_rows_of_similar_length():
    lengths = np.random.default_rng(0).integers(4, 128, 10_000)
    plan = plan_training(lengths, 32, 312, seed=0)
    padded = sum(len(batch) * lengths[batch].max() for batch in plan)
    at_random = sum(len(b) * b.max() for b in np.split(lengths[:9984], 312))
    assert padded < 1.05 * lengths.sum() < 0.7 * at_random


@pytest.mark.parametrize(("epochs", "steps"), [(1, 13), (2, 26), (0.5, 7), (2.5, 33)])
def test_fractional_epochs(rows, epochs, steps):
    assert count_steps(100, 8, epochs) == steps
    assert int(make_train_dataset(rows, 8, num_epochs=epochs).cardinality()) == steps


def test_training_batches_are_padded_to_a_bucket_and_masked(rows):
    seen = []
    for features, labels, weights in make_train_dataset(rows, 8, buckets=(8, 16, 24)):
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
    np.testing.assert_array_equal(labels, eval_order(rows.lengths))
    assert sum(float(tf.reduce_sum(w)) for _, _, w in batches) == 100


def test_a_skipped_data_set_goes_on_where_it_was(rows):
    whole = [y.numpy() for _, y, _ in make_train_dataset(rows, 8, num_epochs=2)]
    rest = [y.numpy() for _, y, _ in make_train_dataset(rows, 8, num_epochs=2).skip(17)]
    np.testing.assert_array_equal(np.stack(whole[17:]), np.stack(rest))


def test_no_thread_tunes_the_batches(rows):
    """Dropping an iterator that is tuned can take a minute: its thread sleeps that long."""
    for dataset in (make_train_dataset(rows, 8), make_eval_dataset(rows, 8)):
        assert dataset.options().autotune.enabled is False
        assert dataset.skip(3).options().autotune.enabled is False


@pytest.mark.parametrize("longest", [8, 10, 64, 128, 512])
def test_xla_has_six_lengths_at_most_and_the_longest_among_them(longest):
    buckets = xla_buckets(longest)
    assert buckets[-1] == longest and list(buckets) == sorted(set(buckets))
    assert len(buckets) <= 6


def cost(buckets, longest, batch_size):
    padded = sum(min(b for b in buckets if b >= n) for n in longest)
    return padded * batch_size + len(buckets) * NEW_LENGTH_TOKENS


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("batch_size", [1, 32, 500])
def test_the_chosen_lengths_cost_no_more_than_any_others(seed, batch_size):
    longest = np.random.default_rng(seed).integers(1, 31, size=40)
    buckets = choose_buckets(longest, batch_size, 30, NEW_LENGTH_TOKENS)
    assert max(buckets) <= 30 and all(b % 4 == 0 or b == 30 for b in buckets)
    *lower, highest = sorted({min(-(-int(n) // 4) * 4, 30) for n in longest})
    others = ((*some, highest) for k in range(len(lower) + 1) for some in combinations(lower, k))
    least = min(cost(other, longest, batch_size) for other in others)
    assert cost(buckets, longest, batch_size) == least


def test_buckets_that_are_too_short_are_refused_at_once(rows):
    with pytest.raises(ValueError, match="24 tokens is longer than the buckets"):
        make_train_dataset(rows, 8, buckets=(8, 16))
    shapes = {x["input_word_ids"].shape[1] for x, *_ in make_eval_dataset(rows, 8, buckets=(32, 8))}
    assert shapes == {8, 32}


def test_few_batches_share_a_length_and_many_do_not(rows):
    def shapes(**options):
        return {x["input_word_ids"].shape[1] for x, *_ in make_train_dataset(rows, 8, **options)}

    assert shapes(num_epochs=1) == {24}  # 13 batches of 8 rows
    assert len(shapes(num_epochs=40)) >= 3


@pytest.mark.parametrize("seed", range(8))
def test_a_short_training_needs_no_room_for_rows_it_never_sees(rows, seed):
    dataset = make_train_dataset(rows, 2, max_steps=1, seed=seed)
    plan = plan_training(rows.lengths, 2, 1, seed)
    [(features, labels, _)] = dataset
    np.testing.assert_array_equal(labels, plan[0])
    shape = tuple(features["input_word_ids"].shape)
    assert rows.lengths[plan].max() <= shape[1] < rows.lengths[plan].max() + 4
    assert dataset.batch_shapes == [shape]


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
