"""The adapters of a base that answer side by side."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tf_finetune.generation.slot_programs import JoinedAdapters
from tf_finetune.models.row_adapters import Stacks, join_adapters

Tensors: TypeAlias = tuple[tf.Tensor, ...]


class Adapters:
    """The adapters that share the weights of a base, by their names."""

    def __init__(self, network: Any) -> None:
        """Knows no adapter yet.

        Args:
            network: The base's.
        """
        self._dtype = network.compute_dtype
        self._stacks: dict[str, Stacks] = {}
        self._joined: tuple[tuple[str, ...], Any] = (), None
        self._chosen: tuple[Sequence[str | None], JoinedAdapters | None] = (), None

    def add(self, name: str, stacks: Stacks) -> None:
        """Adds an adapter, or puts it in the place of one of that name."""
        self.remove(name)
        self._stacks[name] = stacks

    def remove(self, name: str) -> None:
        """Forgets an adapter, if it is there."""
        self._stacks.pop(name, None)
        self._joined, self._chosen = ((), None), ((), None)

    def alone(self, stacks: Stacks) -> JoinedAdapters:
        """Returns an adapter that need not be among these, for a single row."""
        a, b, owners = self._join([stacks])
        return JoinedAdapters(a, b, self._owned(owners, [0]))

    def of(self, names: Sequence[str | None]) -> JoinedAdapters | None:
        """Returns the adapters of rows by their names; None: no row has one.

        Raises:
            KeyError: There is no such adapter.
        """
        if self._chosen[0] != names:  # A row has joined or left.
            self._chosen = names, self._choose(names)
        return self._chosen[1]

    def _choose(self, names: Sequence[str | None]) -> JoinedAdapters | None:
        used = tuple(sorted({name for name in names if name is not None}))
        if not used:
            return None
        if self._joined[0] != used:
            self._joined = used, self._join([self._stacks[name] for name in used])
        a, b, owners = self._joined[1]
        row = [-1 if name is None else used.index(name) for name in names]
        return JoinedAdapters(a, b, self._owned(owners, row))

    def _join(self, stacks: Sequence[Stacks]) -> tuple[Tensors, Tensors, Sequence[np.ndarray]]:
        a, b, owners = join_adapters(stacks)
        cast = [tuple(tf.cast(part, self._dtype) for part in parts) for parts in (a, b)]
        return cast[0], cast[1], owners

    def _owned(self, owners: Sequence[np.ndarray], rows: Sequence[int]) -> Tensors:
        """Returns which ranks are of the adapter of each row."""
        numbers = np.array(rows)[:, None]
        return tuple(tf.cast(owner == numbers, self._dtype) for owner in owners)
