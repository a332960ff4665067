"""Examples that stand in the data more than once: within a split, and in several."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from tf_finetune.data.conversations import Example, answer_text, prompt_text
from tf_finetune.data.normalize import normalized

# At most so many pairs of rows are told of each kind.
MOST_PAIRS = 1000
KINDS = ("equal", "alike", "same_prompt")
Keys: TypeAlias = Mapping[str, Sequence[bytes]]


def describe_dialogue_repeats(splits: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Finds examples that stood before, in the same split or in an earlier one.

    Args:
        splits: The examples, in the order of the splits.

    Returns:
        A JSON object. `within`: for each split, and `across`: for each split and each one before
        it (`stand_in`), the rows that are `equal` to an earlier one; those that are not, but are
        `alike` once prompt and answer are `normalized`; and those that are neither, but have the
        `same_prompt`. Each is a number of `rows` with the first `pairs` of locations.
    """
    keys = {split: _keys(examples) for split, examples in splits.items()}
    within = {}
    for split, examples in splits.items():
        first: dict[str, dict[bytes, int]] = {kind: {} for kind in KINDS}
        pairs: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
        for row in range(len(examples)):
            found = [(kind, first[kind].setdefault(keys[split][kind][row], row)) for kind in KINDS]
            kind, earlier = next((pair for pair in found if pair[1] != row), ("", row))
            if kind:
                pairs[kind].append((earlier, row))
        within[split] = {kind: _told(pairs[kind], examples, examples) for kind in KINDS}
    return {"within": within, "across": _across(splits, keys)}


def _across(
    splits: Mapping[str, Sequence[Example]], keys: Mapping[str, Keys]
) -> list[dict[str, Any]]:
    described = []
    names = list(splits)
    for place, split in enumerate(names):
        for earlier in names[:place]:
            first = {kind: _first(keys[earlier][kind]) for kind in KINDS}
            pairs: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
            for row in range(len(splits[split])):
                for kind in KINDS:
                    if (other := first[kind].get(keys[split][kind][row])) is not None:
                        pairs[kind].append((other, row))
                        break
            told = {kind: _told(pairs[kind], splits[earlier], splits[split]) for kind in KINDS}
            described.append({"split": split, "stand_in": earlier, **told})
    return described


def _first(keys: Iterable[bytes]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, row)
    return found


def _keys(examples: Sequence[Example]) -> Keys:
    """Returns what rows of each kind have in common: digests, as texts may be long."""
    keys: dict[str, list[bytes]] = {kind: [] for kind in KINDS}
    for example in examples:
        prompt, answer = prompt_text(example), answer_text(example)
        plain = normalized(prompt)
        keys["equal"].append(_digest(prompt, answer))
        keys["alike"].append(_digest(plain, normalized(answer)))
        keys["same_prompt"].append(_digest(plain))
    return keys


def _digest(*texts: str) -> bytes:
    data = "\0".join(texts).encode(errors="replace")
    return hashlib.blake2b(data, digest_size=16).digest()


def _told(
    pairs: Sequence[tuple[int, int]], ones: Sequence[Example], others: Sequence[Example]
) -> dict[str, Any]:
    """Describes pairs of a row of `ones` and one of `others`."""
    places = [[ones[one].location, others[other].location] for one, other in pairs[:MOST_PAIRS]]
    return {"rows": len(pairs), "pairs": places}
