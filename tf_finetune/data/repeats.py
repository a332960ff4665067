"""Texts that stand in the data more than once: within a split, and in several."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_finetune.data.labelled import Examples
from tf_finetune.data.normalize import normalized
from tf_finetune.data.problem import known_labels

# At most so many pairs of rows are told of each kind.
MOST_PAIRS = 1000
Pairs = Sequence[tuple[int, int]]


def describe_repeats(splits: Mapping[str, Examples]) -> dict[str, Any]:
    """Finds rows whose texts stood before, in the same split or in an earlier one.

    Texts are alike if they differ, but are equal once they are `normalized`.

    Args:
        splits: The examples, in the order of the splits.

    Returns:
        A JSON object. `within`: for each split the rows that repeat an earlier one's texts, and of
        these, as `other_label`, those whose label is another. `across`: for each split and each
        one before it (`stand_in`) the rows whose texts are `equal` or `alike` to one there. All
        are numbers of `rows` with the first `pairs` of locations.
    """
    within = {}
    first: dict[str, dict[Hashable, int]] = {split: {} for split in splits}
    for split, rows in splits.items():
        pairs = []
        for row, key in enumerate(_keys(rows)):
            earlier = first[split].setdefault(key, row)
            if earlier != row:
                pairs.append((earlier, row))
        other = _with_other_label(rows.labels, pairs)
        within[split] = {**_told(pairs, rows, rows), "other_label": _told(other, rows, rows)}
    return {"within": within, "across": _across(splits, first)}


def _across(
    splits: Mapping[str, Examples], first: Mapping[str, Mapping[Hashable, int]]
) -> list[dict[str, Any]]:
    """Describes the rows that stand in an earlier split too; `first` are the rows of each text."""
    if len(splits) < 2:
        return []
    start, *later = splits
    keys = {split: list(_keys(splits[split], normalized)) for split in later}
    # Of the first split, mostly by far the largest, only what is looked up later is kept.
    wanted = set().union(*keys.values())
    alike: dict[str, dict[Hashable, int]] = {start: {}}
    for row, normal in enumerate(_keys(splits[start], normalized)):
        if normal in wanted:
            alike[start].setdefault(normal, row)
    described = []
    for split in later:
        for earlier, known in alike.items():
            pairs: dict[str, list[tuple[int, int]]] = {"equal": [], "alike": []}
            for row, (key, normal) in enumerate(
                zip(_keys(splits[split]), keys[split], strict=True)
            ):
                if key in first[earlier]:
                    pairs["equal"].append((first[earlier][key], row))
                elif normal in known:
                    pairs["alike"].append((known[normal], row))
            told = {k: _told(v, splits[earlier], splits[split]) for k, v in pairs.items()}
            described.append({"split": split, "stand_in": earlier, **told})
        alike[split] = {}
        for row, normal in enumerate(keys[split]):
            alike[split].setdefault(normal, row)
    return described


def _keys(rows: Examples, change: Callable[[str], str] | None = None) -> Iterable[Hashable]:
    """Returns the text of each row, a tuple for two columns, changed if asked."""
    columns = [map(change, column) if change else column for column in rows.texts]
    return columns[0] if len(columns) == 1 else zip(*columns, strict=True)


def _with_other_label(labels: np.ndarray | None, pairs: Pairs) -> Pairs:
    """Returns the pairs of rows whose labels are known and differ."""
    if labels is None or not pairs:
        return []
    one, other = np.array(pairs).T
    differ = labels[one] != labels[other]
    differ = differ if differ.ndim == 1 else differ.any(axis=1)
    known = known_labels(labels)
    return [pairs[place] for place in np.flatnonzero(differ & known[one] & known[other]).tolist()]


def _told(pairs: Pairs, ones: Examples, others: Examples) -> dict[str, Any]:
    """Describes pairs of a row of `ones` and one of `others`."""
    places = [[_place(ones, one), _place(others, other)] for one, other in pairs[:MOST_PAIRS]]
    return {"rows": len(pairs), "pairs": places}


def _place(rows: Examples, row: int) -> str:
    return rows.locations[row] if len(rows.locations) else f"row {row + 1}"
