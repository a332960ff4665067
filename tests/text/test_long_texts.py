"""What is kept of long texts, against plain Python on lists, and what pieces promise."""

import itertools
from collections.abc import Sequence

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_finetune.errors import UserError
from tf_finetune.text.long_texts import pack_long
from tf_finetune.text.preprocessor import RawText, TextPreprocessor, TokenPreprocessor

PAD, START, END = 100, 101, 102


class Numbers(TokenPreprocessor):
    """Packs given tokens; two ids stand between two segments, as in RoBERTa."""

    def __init__(self) -> None:
        super().__init__(pad_id=PAD, start_id=START, end_id=END, separator_ids=[END, END])


PREPROCESSOR = Numbers()
# Each text is 0, 1, 2, ...: a token tells its place.
one = st.lists(st.tuples(st.integers(0, 40)), min_size=1, max_size=4)
two = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4)
texts = st.one_of(one, two)


def segments(sizes: Sequence[Sequence[int]]) -> list[tf.RaggedTensor]:
    return [
        tf.ragged.constant([[*range(size)] for size in column], tf.int32, ragged_rank=1)
        for column in zip(*sizes, strict=True)
    ]


def packed(sizes: Sequence[Sequence[int]], room: int, long_text: str) -> list[list[list[int]]]:
    """Returns the ids of the rows of each text."""
    length = room + (2 if len(sizes[0]) == 1 else 4)
    features, pieces = pack_long(PREPROCESSOR, segments(sizes), length, long_text)
    assert pieces.dtype == tf.int32
    rows = iter(features["input_word_ids"].to_list())
    by_text = [[*itertools.islice(rows, count)] for count in pieces.numpy().tolist()]
    assert not [*rows] and all(len(row) <= length for text in by_text for row in text)
    return by_text


def parts(row: list[int], count: int) -> list[list[int]]:
    """Takes a row apart again."""
    assert row[0] == START and row[-1] == END
    if count == 1:
        return [row[1:-1]]
    middle = row.index(END)
    assert row[middle + 1] == END
    return [row[1:middle], row[middle + 2 : -1]]


def fair(sizes: Sequence[int], room: int) -> list[int]:
    """Of two texts the longer one loses its last token until both fit."""
    kept = [*sizes]
    while sum(kept) > room:
        kept[kept[0] <= kept[-1] and len(kept) > 1] -= 1
    return kept


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(2, 24))
def test_both_ends_fill_the_fair_share(sizes: list[tuple[int, ...]], room: int) -> None:
    for whole, (row,) in zip(sizes, packed(sizes, room, "head_tail"), strict=True):
        for size, kept, part in zip(whole, fair(whole, room), parts(row, len(whole)), strict=True):
            head = (kept + 2) // 4
            assert part == [*range(head), *range(size - (kept - head), size)]


def test_both_ends_are_those_of_the_paper() -> None:
    ((row,),) = packed([(1000,)], 510, "head_tail")
    assert row[1:-1] == [*range(128), *range(1000 - 382, 1000)]


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(2, 24))
def test_pieces_reach_from_beginning_to_end(sizes: list[tuple[int, ...]], room: int) -> None:
    for whole, rows in zip(sizes, packed(sizes, room, "window"), strict=True):
        kept = fair(whole, room)
        taken = zip(*(parts(row, len(whole)) for row in rows), strict=True)
        needed = 1
        for size, share, pieces in zip(whole, kept, taken, strict=True):
            if size == share:
                assert all(piece == [*range(size)] for piece in pieces)
                continue
            assert all(piece == [*range(piece[0], piece[0] + share)] for piece in pieces)
            assert pieces[0][0] == 0 and pieces[-1][-1] == size - 1
            step = share - share // 4
            steps = [b[0] - a[0] for a, b in itertools.pairwise(pieces)]
            assert max(steps) <= step and max(steps) - min(steps) <= 1
            needed = max(needed, 1 + -(-(size - share) // step))
        assert len(rows) == needed


@pytest.mark.parametrize("long_text", ["head_tail", "window"])
@settings(max_examples=30, deadline=None)
@given(sizes=texts)
def test_what_fits_is_left_alone(long_text: str, sizes: list[tuple[int, ...]]) -> None:
    assert packed(sizes, 80, long_text) == packed(sizes, 80, "truncate")


def test_truncation_is_that_of_the_preprocessor() -> None:
    sizes = [(30, 4), (4, 30), (0, 0), (30, 30)]
    features, _ = pack_long(PREPROCESSOR, segments(sizes), 20)
    expected = PREPROCESSOR.pack(segments(sizes), 20)
    for name, value in expected.items():
        assert features[name].to_list() == value.to_list()


@pytest.mark.parametrize("long_text", ["head_tail", "window"])
def test_type_ids_tell_the_texts_apart(long_text: str) -> None:
    features, _ = pack_long(PREPROCESSOR, segments([(30, 30)]), 14, long_text)
    for row in features["input_type_ids"].to_list():
        assert row == [0] * 8 + [1] * 6


@pytest.mark.parametrize("long_text", ["truncate", "head_tail", "window"])
def test_a_length_without_room_is_refused(long_text: str) -> None:
    with pytest.raises(UserError, match="max_seq_length=5 is too small"):
        pack_long(PREPROCESSOR, segments([(30, 30)]), 5, long_text)


@pytest.mark.parametrize(
    ("preprocessor", "long_text", "complaint"),
    [
        (RawText(), "window", "the encoder reads text itself"),
        (RawText(), "head_tail", "--long_text=head_tail: the encoder"),
        (PREPROCESSOR, "middle", "long_text=middle: allowed are"),
    ],
)
def test_what_cannot_be_done_is_said(
    preprocessor: TextPreprocessor, long_text: str, complaint: str
) -> None:
    tokens = [tf.constant(["a"])] if isinstance(preprocessor, RawText) else segments([(3,)])
    with pytest.raises(UserError, match=complaint):
        pack_long(preprocessor, tokens, 8, long_text)
