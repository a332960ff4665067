"""Every character against the normalizer and splitter of Hugging Face's `tokenizers`."""

import unicodedata

import pytest
import tensorflow as tf
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from tests.thorough import mostly
from tf_finetune.text.words import WordRules, split_words

# Their categories have changed: a Canadian full stop, a Hanunoo and two Mongolian signs.
RECLASSIFIED = {0x166D, 0x1734, 0x1885, 0x1886}
BASIC_PLANE = [*range(0xD800), *range(0xE000, 0x10000)]


def differences(points: list[int], lower_case: bool) -> set[int]:
    """The characters that, between two letters, do not become what they do there."""
    texts = [f"a{chr(point)}b" for point in points]
    words = split_words(
        tf.constant(texts),
        lower_case=lower_case,
        strip_accents=lower_case,
        rules=WordRules(),
        too_long="[UNK]",
    ).to_list()
    normalizer, splitter = BertNormalizer(lowercase=lower_case), BertPreTokenizer()
    differing = set()
    for point, text, row in zip(points, texts, words, strict=True):
        split = splitter.pre_tokenize_str(normalizer.normalize_str(text))
        if [word.decode() for word in row if word] != [word for word, _ in split]:
            differing.add(point)
    return differing


def are_new(points: set[int]) -> bool:
    """Whether all came into Unicode after its version 3.2, the oldest that Python knows."""
    return all(unicodedata.ucd_3_2_0.category(chr(point)) == "Cn" for point in points)


@pytest.mark.parametrize("lower_case", [True, False])
def test_basic_plane(lower_case: bool) -> None:
    differing = differences(BASIC_PLANE, lower_case)
    assert are_new(differing - RECLASSIFIED)
    assert len(differing) < 150


@pytest.mark.slow
@pytest.mark.parametrize("lower_case", mostly(True, others=[False]))
def test_every_character(lower_case: bool) -> None:
    # tokenization.py of google-research/bert has U+2B820, where `tokenizers` has U+2B920.
    mistyped = set(range(0x2B820, 0x2B920))
    differing = differences([*BASIC_PLANE, *range(0x10000, 0x110000)], lower_case)
    assert mistyped <= differing
    assert are_new(differing - mistyped - RECLASSIFIED)
    assert len(differing - mistyped) < 700


def test_what_is_too_long() -> None:
    words = split_words(
        tf.constant(["aaa aaaa,bb ééé éééé"]),
        lower_case=False,
        strip_accents=False,
        rules=WordRules(max_input_chars_per_word=3),
        too_long="?",
    )
    assert [word for word in words.to_list()[0] if word] == [
        *[b"aaa", b"?", b",", b"bb"],
        *["ééé".encode(), b"?"],
    ]
