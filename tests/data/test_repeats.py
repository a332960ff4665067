"""Texts that occur several times, against slow counts and by hand."""

import itertools

import numpy as np
import pytest

from tf_finetune.data.labelled import Examples
from tf_finetune.data.repeats import MOST_PAIRS, describe_repeats, normalized


def examples(texts: list[str], labels: list[int] | None = None) -> Examples:
    encoded = None if labels is None else np.array(labels, np.int32)
    return Examples((texts,), encoded, [f"f:{row}" for row in range(len(texts))])


@pytest.mark.parametrize(
    "texts",
    [
        ("What is it?", " what  is it", "“WHAT IS IT”", "what is\u00a0it…", "- what is it"),
        ("straße", "STRASSE."),
        ("ﬁlm １", "film 1"),
        ("e\u0301te", "éte"),
        ("?", "?"),
    ],
)
def test_what_is_alike(texts: tuple[str, ...]) -> None:
    assert len({normalized(text) for text in texts}) == 1


@pytest.mark.parametrize("texts", [(":)", ":("), ("cote", "côte"), ("a b", "ab"), ("a.b", "a b")])
def test_what_is_not_alike(texts: tuple[str, ...]) -> None:
    assert len({normalized(text) for text in texts}) == len(texts)


def test_repeats_equal_a_slow_count() -> None:
    random = np.random.default_rng(0)
    words = [form for n in range(25) for form in (f"w{n}", f"W{n}", f"w{n}.")]
    splits = {
        split: examples(
            [words[n] for n in random.integers(0, len(words), size)],
            random.integers(-1, 2, size).tolist(),
        )
        for split, size in (("train", 50), ("validation", 30), ("test", 40))
    }
    found = describe_repeats(splits)
    for split, rows in splits.items():
        (texts,), labels = rows.texts, rows.labels
        assert labels is not None
        pairs = [(texts.index(t), row) for row, t in enumerate(texts) if t in texts[:row]]
        other = [(a, b) for a, b in pairs if -1 < labels[a] != labels[b] > -1]
        assert found["within"][split]["pairs"] == [[f"f:{a}", f"f:{b}"] for a, b in pairs]
        assert found["within"][split]["rows"] == len(pairs) > 0
        assert found["within"][split]["other_label"] == {
            "rows": len(other),
            "pairs": [[f"f:{a}", f"f:{b}"] for a, b in other],
        }
    across = {(told["stand_in"], told["split"]): told for told in found["across"]}
    assert list(across) == [("train", "validation"), ("train", "test"), ("validation", "test")]
    for (one, other_split), told in across.items():
        (ones,), (others,) = splits[one].texts, splits[other_split].texts
        plain = [text.strip(".").lower() for text in ones]
        equal = [(ones.index(t), row) for row, t in enumerate(others) if t in ones]
        alike = [
            (plain.index(t.strip(".").lower()), row)
            for row, t in enumerate(others)
            if t not in ones and t.strip(".").lower() in plain
        ]
        for kind, pairs in (("equal", equal), ("alike", alike)):
            expected = {"rows": len(pairs), "pairs": [[f"f:{a}", f"f:{b}"] for a, b in pairs]}
            assert told[kind] == expected and pairs


def test_pairs_are_alike_only_as_pairs() -> None:
    train, test = Examples((["a", "b"], ["x", "y"])), Examples((["A!", "a"], ["X", "Y"]))
    (told,) = describe_repeats({"train": train, "test": test})["across"]
    assert told["equal"]["rows"] == 0
    assert told["alike"] == {"rows": 1, "pairs": [["row 1", "row 1"]]}


def test_labels_of_several_kinds_are_compared() -> None:
    hot = np.array([[1, 0], [1, 1], [np.nan, np.nan], [1, 0]], np.float32)
    numbers = np.array([1, 2, np.nan, 1], np.float32)
    for labels in (hot, numbers):
        rows = Examples((["a"] * 4,), labels)
        told = describe_repeats({"train": rows})["within"]["train"]
        assert told["rows"] == 3
        assert told["other_label"] == {"rows": 1, "pairs": [["row 1", "row 2"]]}


def test_no_more_pairs_than_anyone_reads() -> None:
    rows = examples(["a"] * (MOST_PAIRS + 9))
    found = describe_repeats({"train": rows, "test": rows})
    for told in itertools.chain(found["within"].values(), [found["across"][0]["equal"]]):
        assert told["rows"] >= MOST_PAIRS + 8 and len(told["pairs"]) == MOST_PAIRS
