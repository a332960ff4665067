"""Guesses of what an answer goes on with."""

import pytest

from tf_finetune.generation import drafts as module
from tf_finetune.generation.drafts import Drafts

TEXT = [1, 2, 3, 4, 5, 9, 3, 4, 7, 8]


def test_what_followed_the_longest_equal_end_is_guessed():
    drafts = Drafts()
    drafts.learn(TEXT, 0)
    # After 2 3 4, not after the later 3 4.
    assert drafts.guess([[2, 3, 4]], [9]) == [[5, 9, 3, 4, 7, 8]]
    # The last time that it was said counts.
    assert drafts.guess([[6, 3, 4]], [9]) == [[7, 8]]
    assert drafts.guess([[6, 6, 4]], [9]) == [[7, 8]]
    assert drafts.guess([[6, 6, 6]], [9]) == [[]]


def test_no_more_is_guessed_than_is_of_use():
    drafts = Drafts()
    drafts.learn(TEXT, 0)
    texts = [[1], [1], [1]]
    assert drafts.guess(texts, [2, 0, -1]) == [[2, 3], [], []]
    assert [drafts.most_tokens(batch) for batch in (1, 8, 9, 16, 32, 33, 500)] == [
        8,
        8,
        7,
        4,
        2,
        1,
        1,
    ]
    assert drafts.guess([[1]] * 16, [9] * 16) == [[2, 3, 4]] * 16
    assert not any(drafts.guess([[1]] * 64, [9] * 64))


def test_a_text_that_grows_is_learnt_as_it_grows():
    drafts = Drafts()
    text = [1, 2]
    drafts.learn(text, 0)
    assert drafts.guess([text], [5]) == [[]]
    text += [3, 1, 2]
    drafts.learn(text, 2)
    assert drafts.guess([text], [5]) == [[3, 1, 2]]


def test_guesses_that_do_not_pay_are_left_and_tried_again():
    drafts = Drafts()
    drafts.learn(TEXT, 0)
    texts, limits = [[1]] * 16, [9] * 16
    for _ in range(8):
        assert any(drafts.guess(texts, limits))
        drafts.judge([1] * 8 + [0] * 8)
        if drafts._right < 0.875:
            break
    tried = [any(drafts.guess(texts, limits)) for _ in range(2 * module.TRY_AGAIN)]
    assert tried == ([False] * (module.TRY_AGAIN - 1) + [True]) * 2
    # With fewer rows a guess costs less.
    assert any(drafts.guess([[1]], [9]))
    for _ in range(6):
        drafts.judge([3] * 16)
    assert all(any(drafts.guess(texts, limits)) for _ in range(20))


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_NGRAMS", 30)
    drafts = Drafts()
    for start in range(0, 1000, 10):
        drafts.learn(list(range(start, start + 10)), 0)
        assert len(drafts._after) <= 30 + 3 * 10
    assert drafts.guess([[990]], [2]) == [[991, 992]]
