"""Texts without what rarely changes their meaning."""

import string
import unicodedata

# What is dropped at both ends of a text.
_ENDS = string.whitespace + string.punctuation + "“”„‘’‚«»‹›–—―•·…¡¿。、「」『』【】《》〈〉"


def normalized(text: str) -> str:
    """Returns a text without what rarely changes its meaning.

    It is in NFKC, case-folded, each run of blanks is one space, and punctuation at its ends is
    dropped unless there is nothing else.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = " ".join(text.casefold().split())
    return text.strip(_ENDS) or text
