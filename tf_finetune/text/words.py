"""Text to words by BERT's rules, in the TensorFlow graph."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf
import tensorflow_text as tf_text

# As in google-research/bert's tokenization.py: characters that are removed, that count as a space,
# and that are words of their own (punctuation, every ASCII symbol, ideographs).
_REMOVED = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F\p{Cf}\p{Co}\x{FFFD}]"
_SPACE = r"[\t\n\r\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
_PUNCTUATION = r"!-/:-@\[-`{-~\p{P}"
_IDEOGRAPHS = (
    r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}"
    r"\x{20000}-\x{2A6DF}\x{2A700}-\x{2CEAF}\x{2F800}-\x{2FA1F}"
)
# Spaces that are removed with the control characters, where these are.
_UNCLEAN_SPACE = _SPACE[:-1] + r"\x0B\x0C\x{85}]"


@dataclass(frozen=True)
class WordRules:
    """How text becomes words; the names are those of a tokenizer.json.

    Attributes:
        clean_text: Whether to remove control characters.
        handle_chinese_chars: Whether each ideograph is a word.
        max_input_chars_per_word: The most characters of a word; a longer one is unknown.
    """

    clean_text: bool = True
    handle_chinese_chars: bool = True
    max_input_chars_per_word: int = 100


def split_words(
    text: tf.Tensor, *, lower_case: bool, strip_accents: bool, rules: WordRules, too_long: str
) -> tf.RaggedTensor:
    """Normalizes text and splits it at spaces and around punctuation and ideographs.

    Args:
        text: string [batch]; bytes that are not UTF-8 are left out.
        lower_case: Whether to lower-case.
        strip_accents: Whether to decompose characters (NFD) and drop non-spacing marks.
        rules: What else is done.
        too_long: Stands for a word that is too long.

    Returns:
        string [batch, (words)]; words may be empty.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="ignore")
    # The ops that follow take NUL for the end of a text; no vocabulary has either character.
    removed, left = (_REMOVED, "") if rules.clean_text else (r"\x00", "\x01")
    text = tf.strings.regex_replace(text, removed, left)
    if strip_accents:
        text = tf_text.normalize_utf8(text, "NFD")
        text = tf.strings.regex_replace(text, r"\p{Mn}", "")
    if lower_case:
        text = lower(text)
    alone = f"[{_PUNCTUATION}{_IDEOGRAPHS if rules.handle_chinese_chars else ''}]"
    space = _SPACE if rules.clean_text else _UNCLEAN_SPACE
    text = tf.strings.regex_replace(text, f"({alone})|{space}", r" \1 ")
    too_many = rules.max_input_chars_per_word + 1
    text = tf.strings.regex_replace(text, f"[^ ]{{{too_many},}}", too_long)
    return tf.strings.split(text, " ")


def tokenize_words(
    words: tf.RaggedTensor, tokenize: Callable[[tf.Tensor], tf.RaggedTensor]
) -> tf.RaggedTensor:
    """Cuts words into tokens, each different word once, for a batch repeats most of its words.

    Args:
        words: string [batch, (words)].
        tokenize: Takes string [words] and returns int32 [words, (tokens)].

    Returns:
        int32 [batch, (tokens)].
    """
    unique, indices = tf.unique(words.values)
    tokens = tf.gather(tokenize(unique), indices)
    splits = tf.gather(tokens.row_splits, words.row_splits)
    return tf.RaggedTensor.from_row_splits(tokens.values, splits, validate=False)


def lower(text: tf.Tensor) -> tf.Tensor:
    """Lower-cases string [batch], each character for itself and in every locale alike."""
    # Unicode lower-casing turns Σ at the end of a word into ς and, in a Turkish locale, I into ı:
    # lower-case Σ and the ASCII letters before it.
    text = tf.strings.lower(tf.strings.regex_replace(text, "Σ", "σ"))
    return tf.strings.lower(text, encoding="utf-8")
