"""The normalizers of tokenizer.json files, with TensorFlow ops."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text

from tf_finetune.errors import UserError
from tf_finetune.text.tokenizer_json import REMEDY
from tf_finetune.text.words import lower

Normalizer = Callable[[tf.Tensor], tf.Tensor]

# What Unicode calls White_Space, for a character class of RE2, whose \s is ASCII's.
WHITE_SPACE = (
    r"\t\n\x0B\x0C\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"
)
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
# The regular expressions that are in use, as RE2 writes them.
_PATTERNS = {" {2,}": " {2,}", r"\s{2,}|[\n\r\t]": rf"[{WHITE_SPACE}]{{2,}}|[\n\r\t]"}
_KINDS = (*_FORMS, "Lowercase", "StripAccents", "Strip", "Replace")


def make_normalizer(component: Mapping[str, Any]) -> Normalizer:
    """Makes the function of one normalizer.

    Args:
        component: A part of the section `normalizer` of a tokenizer.json.

    Returns:
        A function of string [batch] that returns string [batch].

    Raises:
        UserError: It is of no known kind.
    """
    kind = component["type"]
    if kind in _FORMS:
        return lambda text: tf_text.normalize_utf8(text, kind)
    if kind == "Lowercase":
        return _lower
    if kind == "StripAccents":
        return lambda text: tf.strings.regex_replace(text, r"\p{M}", "")
    if kind == "Strip":
        left, right = (component.get(f"strip_{side}") for side in ("left", "right"))
        sides = [rf"^[{WHITE_SPACE}]+"] * bool(left) + [rf"[{WHITE_SPACE}]+$"] * bool(right)
        return lambda text: tf.strings.regex_replace(text, "|".join(sides), "") if sides else text
    if kind == "Replace":
        return _replace(component)
    raise UserError(f"normalizer {kind!r}; only {', '.join(_KINDS)} can be read. {REMEDY}")


def _lower(text: tf.Tensor) -> tf.Tensor:
    # The op takes NUL for the end of a text; no vocabulary has either character.
    return lower(tf.strings.regex_replace(text, r"\x00", "\ufdd0"))


def collapses_blanks(component: Mapping[str, Any]) -> bool:
    """Returns whether a normalizer makes one blank of many."""
    pattern = component.get("pattern")
    return (
        component["type"] == "Replace"
        and isinstance(pattern, dict)
        and pattern.get("Regex") in _PATTERNS
        and component.get("content") in (" ", "▁")
    )


def _replace(component: Mapping[str, Any]) -> Normalizer:
    pattern, content = component.get("pattern"), component.get("content")
    if not isinstance(pattern, dict) or not isinstance(content, str):
        raise UserError(f"a Replace of {pattern!r} by {content!r}, which is damaged")
    expression = _PATTERNS.get(str(pattern.get("Regex")))
    if isinstance(pattern.get("String"), str) and pattern["String"]:
        expression = re.escape(pattern["String"])
    if expression is None:
        choices = " or ".join(repr(known) for known in _PATTERNS)
        raise UserError(
            f"normalizer 'Replace' of {pattern!r}; only a String, {choices} can be read. {REMEDY}"
        )
    rewrite = content.replace("\\", "\\\\")
    return lambda text: tf.strings.regex_replace(text, expression, rewrite)
