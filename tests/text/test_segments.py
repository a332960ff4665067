"""Truncation and joining against the plain Python of google-research/bert."""

import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.text.segments import fair_lengths, join_segments

rows = st.lists(st.integers(0, 9), max_size=6)


def truncate_pair(first: list[int], second: list[int], room: int) -> None:
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(rows, rows), min_size=1, max_size=4), st.integers(2, 12))
def test_pairs(pairs: list[tuple[list[int], list[int]]], room: int) -> None:
    segments = [
        tf.ragged.constant([*column], tf.int32, ragged_rank=1)
        for column in zip(*pairs, strict=True)
    ]
    lengths = fair_lengths([segment.row_lengths() for segment in segments], room)
    ids, numbers = join_segments(segments, lengths, start_id=50, separator_ids=[51, 52], end_id=53)
    assert ids.dtype == numbers.dtype == tf.int32
    for (first, second), row, types in zip(pairs, ids.to_list(), numbers.to_list(), strict=True):
        first, second = [*first], [*second]
        truncate_pair(first, second, room)
        assert row == [50, *first, 51, 52, *second, 53]
        assert types == [0] * (len(first) + 3) + [1] * (len(second) + 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(rows, min_size=1, max_size=4), st.integers(1, 8))
def test_single_segments(texts: list[list[int]], room: int) -> None:
    segment = tf.ragged.constant(texts, tf.int32, ragged_rank=1)
    lengths = fair_lengths([segment.row_lengths()], room)
    ids, numbers = join_segments([segment], lengths, start_id=50, separator_ids=[51], end_id=53)
    assert ids.to_list() == [[50, *text[:room], 53] for text in texts]
    assert not numbers.values.numpy().any()
