"""Adapters of which each row of a batch has its own, beside weights that all rows share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from tf_finetune.models.lora import Lora

Tensor = Any


class RowAdapters(NamedTuple):
    """The adapters of one product, side by side.

    Attributes:
        a: [inputs, ranks].
        b: [ranks, outputs], times the adapters' scaling.
        chosen: [batch, ranks], 1 where a rank is of the row's adapter, else 0.
    """

    a: Tensor
    b: Tensor
    chosen: Tensor


def low_rank_of_rows(x: Tensor, adapters: RowAdapters) -> Tensor:
    """Returns `scaling · x·A·B` by the adapter of each row, [batch * length, outputs].

    All ranks are computed for all rows, and those of other adapters set to zero: two products in
    place of two for each adapter.

    Args:
        x: [batch * length, inputs].
        adapters: The adapters.
    """
    low = ops.matmul(x, adapters.a)
    batch, ranks = ops.shape(adapters.chosen)[0], ops.shape(low)[1]
    rows = ops.reshape(low, (batch, -1, ranks)) * adapters.chosen[:, None]
    return ops.matmul(ops.reshape(rows, (-1, ranks)), adapters.b)


@dataclass(frozen=True)
class Stacks:
    """An adapter as decoding reads it: for each product of a layer, all layers together.

    Attributes:
        a: float32 [layers, inputs, ranks] of each product; no ranks where it has no adapter.
        b: float32 [layers, ranks, outputs] of each product, times the scaling.
    """

    a: tuple[np.ndarray, ...]
    b: tuple[np.ndarray, ...]

    @property
    def size(self) -> int:
        """The bytes that it takes."""
        return sum(part.nbytes for part in (*self.a, *self.b))


def adapter_shapes(network: Any, lora: Lora) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Returns the shapes of A and B of each adapter that a network would have.

    Args:
        network: A decoder, with adapters or without.
        lora: Selects the modules.

    Returns:
        By the modules' names from a layer's number on, such as `0.self_attn.q_proj`, in the order
        of the network's trained variables.
    """
    return {
        f"{number}.{module}": ((linear.inputs, lora.rank), (lora.rank, outputs))
        for number, layer in enumerate(network.layers)
        for linear in layer.linears
        for module, outputs in linear.modules.items()
        if lora.selects(module)
    }


def stack_adapter(
    network: Any, lora: Lora, factors: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> Stacks:
    """Arranges an adapter for decoding.

    Args:
        network: The decoder that it is for.
        lora: Its settings.
        factors: A and B by the names of `adapter_shapes`.
    """
    stacks: list[tuple[np.ndarray, np.ndarray]] = []
    for linears in zip(*(layer.linears for layer in network.layers), strict=True):
        parts = [
            _side_by_side(linear, lora, {m: factors.get(f"{n}.{m}") for m in linear.modules})
            for n, linear in enumerate(linears)
        ]
        stacks.append((np.stack([a for a, _ in parts]), np.stack([b for _, b in parts])))
    return Stacks(tuple(a for a, _ in stacks), tuple(b for _, b in stacks))


def _side_by_side(
    linear: Any, lora: Lora, factors: Mapping[str, tuple[np.ndarray, np.ndarray] | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns A and B of one product, whose modules have adapters or not."""
    outputs, start = sum(linear.modules.values()), 0
    lefts = [np.zeros((linear.inputs, 0), np.float32)]
    rights = [np.zeros((0, outputs), np.float32)]
    for module, size in linear.modules.items():
        if (pair := factors[module]) is not None:
            right = np.zeros((lora.rank, outputs), np.float32)
            right[:, start : start + size] = pair[1] * np.float32(lora.scaling)
            lefts.append(pair[0])
            rights.append(right)
        start += size
    return np.concatenate(lefts, axis=1), np.concatenate(rights)


def join_adapters(
    adapters: Sequence[Stacks],
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Puts adapters side by side.

    Returns:
        Of each product A, [layers, inputs, ranks], B, [layers, ranks, outputs], and the number of
        the adapter that each rank is of, int32 [ranks].
    """
    products = range(len(adapters[0].a))
    owners = [
        np.repeat(np.arange(len(adapters)), [one.a[product].shape[2] for one in adapters])
        for product in products
    ]
    return (
        [np.concatenate([one.a[product] for one in adapters], axis=2) for product in products],
        [np.concatenate([one.b[product] for one in adapters], axis=1) for product in products],
        [owner.astype(np.int32) for owner in owners],
    )
