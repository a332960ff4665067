"""Rows that are held out of the training data: the same ones, of each class its share."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.data.held_out import held_out_rows

SHARES = st.sampled_from([None, 0.05, 0.1, 0.15, 0.2, 0.25, 1 / 3, 0.4])


def split_of(rows: dict[str, list[int]]) -> dict[int, str]:
    return {row: split for split, found in rows.items() for row in found}


@pytest.mark.parametrize("share", [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 1 / 3, 0.5])
@pytest.mark.parametrize("size", [20, 61, 500])
def test_each_class_gives_its_share(share: float, size: int) -> None:
    classes = [name for name in "abcde" for _ in range(size)]
    texts = [f"text {number}" for number in range(len(classes))]
    rows = held_out_rows([texts], classes, share, None)
    held = Counter(classes[row] for row in rows["validation"])
    for name in "abcde":
        # One stretch may be cut off, and the first text is never held out.
        assert abs(held[name] - share * size) <= 2


def test_both_shares() -> None:
    texts = [f"text {number}" for number in range(1000)]
    rows = held_out_rows([texts], ["a"] * 1000, 0.1, 0.2)
    assert {split: len(found) for split, found in rows.items()} == pytest.approx(
        {"train": 700, "validation": 100, "test": 200}, abs=2
    )
    assert sorted(row for found in rows.values() for row in found) == list(range(1000))


def test_a_small_share_of_many_rows() -> None:
    texts = [f"text {number}" for number in range(30_000)]
    rows = held_out_rows([texts], ["a"] * len(texts), 0.001, None)
    assert len(rows["validation"]) == pytest.approx(30, abs=2)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=2, max_size=60),
    more=st.lists(st.tuples(st.integers(0, 60), st.sampled_from("abcd")), max_size=40),
    validation=SHARES,
    test=SHARES,
)
def test_rows_are_counted_once_duplicates_stay_together_and_new_rows_move_none(
    rows: list, more: list, validation: float | None, test: float | None
) -> None:
    def divide(rows: list) -> dict[int, str]:
        texts = [f"Text  {number}" if row % 2 else f"text {number} " for row, (number, _) in rows]
        return split_of(held_out_rows([texts], [c for _, (_, c) in rows], validation, test))

    before = divide(list(enumerate(rows)))
    assert sorted(before) == list(range(len(rows)))
    of_text: dict[int, str] = {}
    for row, (number, _) in enumerate(rows):
        assert of_text.setdefault(number, before[row]) == before[row]
    after = divide(list(enumerate([*rows, *more])))
    assert {row: after[row] for row in before} == before


def test_the_first_text_of_each_class_is_trained_on() -> None:
    classes = [f"class {number}" for number in range(500)]
    rows = held_out_rows([classes], classes, 0.4, 0.4)
    assert rows["train"] == list(range(500))


def test_rows_without_a_class_are_not_held_out() -> None:
    texts = [f"text {number}" for number in range(100)]
    rows = held_out_rows([texts], [None, "a"] * 50, 0.4, None)
    assert set(range(0, 100, 2)) < set(rows["train"]) and len(rows["validation"]) >= 18


def test_pairs_are_held_out_by_both_texts() -> None:
    first, second = ["a"] * 200, [f"b{number}" for number in range(200)]
    rows = held_out_rows([first, second], ["x"] * 200, 0.2, None)
    assert 35 <= len(rows["validation"]) <= 42
