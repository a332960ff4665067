from itertools import combinations

import numpy as np
import pytest

from tf_finetune.data.plan import (
    NEW_LENGTH_TOKENS,
    choose_buckets,
    count_steps,
    plan_training,
    xla_buckets,
)

LENGTHS = np.minimum(np.arange(100) % 29 + 2, 24)


def test_every_epoch_sees_every_row_once_in_a_new_order():
    plan = plan_training(LENGTHS, 8, num_steps=26, seed=1)
    first, second = plan[:13], plan[13:]
    for epoch in (first, second):
        assert sorted(epoch[epoch >= 0]) == list(range(100))
        assert (epoch < 0).sum() == 4
    assert not np.array_equal(first, second)


def test_the_order_depends_on_the_seed_alone():
    plans = [plan_training(LENGTHS, 8, 20, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])
    # A longer training begins as a shorter one.
    np.testing.assert_array_equal(plan_training(LENGTHS, 8, 40, 1)[:20], plans[0])


def test_batches_hold_rows_of_similar_length():
    lengths = np.random.default_rng(0).integers(4, 128, 10_000)
    plan = plan_training(lengths, 32, 312, seed=0)
    padded = sum(len(batch) * lengths[batch].max() for batch in plan)
    at_random = sum(len(b) * b.max() for b in np.split(lengths[:9984], 312))
    assert padded < 1.05 * lengths.sum() < 0.7 * at_random


@pytest.mark.parametrize(("epochs", "steps"), [(1, 13), (2, 26), (0.5, 7), (2.5, 33)])
def test_fractional_epochs(epochs, steps):
    assert count_steps(100, 8, epochs) == steps


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
