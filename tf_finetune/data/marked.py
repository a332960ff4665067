"""An example with the tokens marked that are learnt."""

import itertools
from collections.abc import Sequence

from tf_finetune.data.wording import escaped

_GREEN, _PLAIN = "\x1b[32m", "\x1b[0m"


def marked_example(pieces: Sequence[tuple[str, bool]], colour: bool) -> str:
    """Marks what is learnt of a text, as one stretch where it is one.

    Args:
        pieces: The text of each token, and whether it is learnt.
        colour: Mark by the colour of a terminal, else by double brackets.

    Returns:
        The text. Control characters other than line ends and tabs are escaped.
    """
    before, after = (_GREEN, _PLAIN) if colour else ("[[", "]]")
    parts = []
    for is_learnt, group in itertools.groupby(pieces, key=lambda piece: piece[1]):
        text = _printable("".join(piece for piece, _ in group))
        parts.append(f"{before}{text}{after}" if is_learnt and text else text)
    return "".join(parts)


def _printable(text: str) -> str:
    return "".join(char if char in "\n\t" else escaped(char) for char in text)
