"""Packs short rows together into rows of one length."""

from collections.abc import Sequence

import numpy as np


def pack_best_fit(lengths: Sequence[int] | np.ndarray, max_length: int) -> list[list[int]]:
    """Packs rows by best-fit decreasing: the longest first, each where least room remains.

    Rows of one length are placed at once: the pack with the least room that fits one of them takes
    as many as it can, since afterwards it has less room than any other that fits. So millions of
    rows take seconds.

    Args:
        lengths: int [n], the length of each row, at least 1.
        max_length: The most that rows of a pack may have together.

    Returns:
        The row numbers of each pack. The same lengths are always packed alike.

    Raises:
        ValueError: A row is empty, or longer than a pack.
    """
    sizes = np.asarray(lengths, np.int64)
    if not len(sizes):
        return []
    if sizes.min() < 1 or sizes.max() > max_length:
        raise ValueError(
            f"Rows of {sizes.min()} to {sizes.max()} tokens, not of 1 to {max_length}."
        )
    packs: list[list[int]] = []
    # The packs by the room that remains in them, and a bit for each room that some pack has.
    by_room: dict[int, list[list[int]]] = {}
    rooms = 0
    order = np.argsort(-sizes, kind="stable")
    starts = np.flatnonzero(np.diff(sizes[order], prepend=0))
    for group in np.split(order, starts[1:]):
        size, rows, done = int(sizes[group[0]]), group.tolist(), 0
        while done < len(rows):
            fitting = rooms >> size
            room = size + (fitting & -fitting).bit_length() - 1 if fitting else max_length
            left = len(rows) - done
            many = room // size
            count = -(-left // many)
            if fitting:
                found = by_room[room]
                chosen, by_room[room] = found[:count], found[count:]
                if not by_room[room]:
                    rooms ^= 1 << room
            else:
                chosen = [[] for _ in range(count)]
                packs += chosen
            for pack in chosen:
                pack += rows[done : done + many]
                done += many
            # All are full of this length, but perhaps the last.
            last = many - max(0, done - len(rows))
            for taken, filled in ((many, chosen[:-1]), (last, chosen[-1:])):
                if filled:
                    by_room.setdefault(room - taken * size, []).extend(filled)
                    rooms |= 1 << room - taken * size
    return packs
