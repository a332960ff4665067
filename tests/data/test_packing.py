"""Packing by best fit, against a slow one and against first fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.data.packing import pack_best_fit


def slow_best_fit(lengths: np.ndarray, max_length: int) -> list[int]:
    """The rooms that remain where each row, the longest first, goes where least room remains."""
    rooms: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [place for place, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=rooms.__getitem__)] -= length
        else:
            rooms.append(max_length - length)
    return rooms


def first_fit(lengths: np.ndarray, max_length: int) -> int:
    rooms: list[int] = []
    for length in lengths.tolist():
        place = next((place for place, room in enumerate(rooms) if room >= length), None)
        if place is None:
            rooms.append(max_length - length)
        else:
            rooms[place] -= length
    return len(rooms)


@settings(max_examples=300, deadline=None)
@given(
    max_length=st.integers(1, 60),
    shares=st.lists(st.floats(0, 1), max_size=80),
)
def test_every_row_stands_once_and_as_best_fit_puts_it(
    max_length: int, shares: list[float]
) -> None:
    lengths = np.array([1 + int(share * (max_length - 1)) for share in shares], int)
    packs = pack_best_fit(lengths, max_length)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(packs)
    rooms = [max_length - int(lengths[pack].sum()) for pack in packs]
    assert min(rooms, default=0) >= 0
    assert sorted(rooms) == sorted(slow_best_fit(lengths, max_length))


@pytest.mark.parametrize("seed", range(5))
def test_packs_are_as_full_as_by_first_fit(seed: int) -> None:
    random = np.random.default_rng(seed)
    for lengths in (
        random.integers(1, 513, 1500),
        np.minimum(1 + random.gamma(1.5, 60, 1500).astype(int), 512),
        random.choice([30, 170, 300], 1500),
    ):
        assert len(pack_best_fit(lengths, 512)) <= first_fit(lengths, 512)


def test_the_same_lengths_are_packed_alike() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    packs = pack_best_fit(lengths, 100)
    assert packs == pack_best_fit(lengths.astype(np.int32), 100)
    assert packs == pack_best_fit(lengths.tolist(), 100)


def test_many_rows() -> None:
    lengths = np.minimum(1 + np.random.default_rng(0).gamma(1.5, 150, 300_000).astype(int), 2048)
    packs = pack_best_fit(lengths, 2048)
    assert lengths.sum() / (2048 * len(packs)) > 0.999


def test_no_rows() -> None:
    assert pack_best_fit([], 8) == []


@pytest.mark.parametrize("lengths", [[3, 9], [0, 3], [-1]])
def test_rows_that_fit_nowhere(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="not of 1 to 8"):
        pack_best_fit(lengths, 8)
