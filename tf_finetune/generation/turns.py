"""Whose turn it is, of the answers that wait for a row."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # The server counts its requests without TensorFlow.
    from tf_finetune.generation.replies import Reply


def most_of_one(count: int) -> int:
    """Returns how many of some places one asker may have: the last quarter is left to others."""
    return count - count // 4


def in_turn(waiting: "Iterable[Reply]", live: "Sequence[Reply]", rows: int) -> "list[Reply]":
    """Returns the answers that get the free rows, in turn.

    A row goes to the asker who has the fewest, and of several to the one who has waited longest.

    Args:
        waiting: The answers that wait, the first one longest.
        live: Those that have a row.
        rows: The number of rows.
    """
    has: Counter[Hashable] = Counter(reply.ask.asker for reply in live)
    turns: list[tuple[int, Reply]] = []
    for reply in waiting:
        asker = reply.ask.asker
        # Who is not named asks for nothing else.
        turns.append((0 if asker is None else has[asker], reply))
        has[asker] += 1
    turns.sort(key=lambda pair: pair[0])
    able = [reply for turn, reply in turns if turn < most_of_one(rows)]
    return able[: rows - len(live)]
