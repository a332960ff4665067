"""Holds rows of the training data back for validation and test."""

import hashlib
import math
from collections.abc import Hashable, Sequence
from fractions import Fraction

from tf_finetune.data.normalize import normalized

# The lengths of the stretches within which shares are met: the first that is close enough is taken.
_LENGTHS = (10, 20, 50, 100, 1000, 10_000)
_CLOSE = 0.01


def held_out_rows(
    texts: Sequence[Sequence[str]],
    classes: Sequence[Hashable | None],
    validation_fraction: float | None,
    test_fraction: float | None,
) -> dict[str, list[int]]:
    """Divides rows into training, validation and test.

    Each class gives its share: in each stretch of its texts, such as 10 where a tenth is held back,
    a hash of the text chooses which are (selection sampling: Knuth, The Art of Computer
    Programming, 3.4.2, algorithm S). So the same file is always divided alike, rows that are added
    to its end never move those before them, and the first text of each class is trained on. Rows
    whose texts are equal once they are `normalized` go where the first of them went.

    Args:
        texts: For each text column the text of each row.
        classes: The class of each row; None for one that is not held out.
        validation_fraction: The share of rows to hold back for validation; None: none.
        test_fraction: The same for test.

    Returns:
        The rows of each split, in their order.
    """
    shares = {"validation": validation_fraction, "test": test_fraction}
    fractions = {split: _simple(share) for split, share in shares.items() if share}
    length = math.lcm(*(fraction.denominator for fraction in fractions.values()))
    quotas = {split: int(fraction * length) for split, fraction in fractions.items()}
    # Of each class: how many texts of its stretch are to come, and how many of them go where.
    open_stretches: dict[Hashable, dict[str, int]] = {}
    split_of: dict[bytes, str] = {}
    rows: dict[str, list[int]] = {"train": [], **{split: [] for split in fractions}}
    for row, (of_row, label) in enumerate(zip(zip(*texts, strict=True), classes, strict=True)):
        digest = _digest(of_row)
        split = split_of.get(digest)
        if split is None:
            split = "train"
            if label in open_stretches:
                split = _choose(open_stretches[label], quotas, length, digest)
            elif label is not None:
                open_stretches[label] = {"": 0}
            split_of[digest] = split
        rows[split].append(row)
    return rows


def _simple(share: float) -> Fraction:
    """Returns a fraction of small numbers that is close to a share."""
    for longest in _LENGTHS:
        found = Fraction(share).limit_denominator(longest)
        if abs(found - share) <= _CLOSE * share:
            return found
    return Fraction(share).limit_denominator(_LENGTHS[-1]) or Fraction(1, _LENGTHS[-1])


def _choose(stretch: dict[str, int], quotas: dict[str, int], length: int, digest: bytes) -> str:
    """Decides on the next text of a class, and counts it in its stretch."""
    if not stretch[""]:
        stretch.update({"": length, **quotas})
    place = int.from_bytes(digest[:8], "big") / 2**64 * stretch[""]
    stretch[""] -= 1
    for split in quotas:
        if place < stretch[split]:
            stretch[split] -= 1
            return split
        place -= stretch[split]
    return "train"


def _digest(texts: Sequence[str]) -> bytes:
    plain = "\0".join(map(normalized, texts))
    return hashlib.blake2b(plain.encode(errors="replace"), digest_size=16).digest()
