"""LoRA (Hu et al., 2021): a trained product of low rank beside a frozen one, in PEFT's shapes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import ops

from tf_finetune.models.fused import fused_dropout
from tf_finetune.runs.lora_config import LoraConfig

Tensor = Any


@dataclass(frozen=True)
class Lora:
    """Which linear layers get an adapter, and of what kind.

    Attributes:
        rank: The adapters' inner width, PEFT's `r`.
        alpha: Scales the adapters' outputs, PEFT's `lora_alpha`.
        dropout: The share of the adapters' inputs dropped.
        targets: The last part of each module's name, such as `q_proj`, or more of it, such as
            `attn.c_proj`; empty: all linear layers.
        rslora: Divide alpha by the root of the rank (Kalajdzievski, 2023), not by the rank.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    rslora: bool = False

    @property
    def scaling(self) -> float:
        """The factor of x·A·B."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def unmatched(self, modules: Iterable[str]) -> list[str]:
        """Returns the targets that are the name of none of the modules."""
        names = list(modules)
        return [t for t in self.targets if not any(_is_named(name, t) for name in names)]

    def selects(self, module: str) -> bool:
        """Whether the module of that name, such as `attn.c_proj`, gets an adapter."""
        return not self.targets or any(_is_named(module, target) for target in self.targets)


def _is_named(module: str, target: str) -> bool:
    return f".{module}".endswith(f".{target}")


def make_lora(config: LoraConfig) -> Lora | None:
    """Returns what the settings ask for; None for a rank of 0."""
    if not config.lora_rank:
        return None
    return Lora(config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_targets)


def lora_config(lora: Lora | None) -> LoraConfig:
    """Returns the settings that ask for it."""
    if lora is None:
        return LoraConfig(lora_rank=0)
    # Settings know no rslora: they say the same by alpha.
    return LoraConfig(lora.rank, lora.scaling * lora.rank, lora.dropout, lora.targets)


class Adapter(NamedTuple):
    """The two factors of an adapter; PEFT's `lora_A.weight` and `lora_B.weight` transposed.

    Attributes:
        a: float32 [inputs, rank].
        b: float32 [rank, outputs].
    """

    a: keras.Variable
    b: keras.Variable


class AdapterPlace(NamedTuple):
    """Where an adapter's outputs stand in a product that several modules share.

    Attributes:
        start: The first column.
        size: The number of columns.
    """

    start: int
    size: int


def add_adapters(
    layer: keras.layers.Layer, lora: Lora, inputs: int, modules: Mapping[str, int]
) -> tuple[dict[str, Adapter], tuple[AdapterPlace, ...]]:
    """Adds the adapters of one product to a layer, float32 and trained, with PEFT's initial values.

    Args:
        layer: The layer.
        lora: Selects the modules.
        inputs: The width of the product's input.
        modules: The names of the modules whose product it is, side by side, and the widths of
            their outputs.

    Returns:
        The adapters by their modules' names, and their places in the product.
    """
    bound = 1 / math.sqrt(inputs)  # PEFT's kaiming_uniform(a=√5)
    uniform = keras.initializers.RandomUniform(-bound, bound)
    options = {"dtype": "float32", "autocast": False}
    adapters, places, start = {}, [], 0
    for name, size in modules.items():
        if lora.selects(name):
            adapters[name] = Adapter(
                layer.add_weight(
                    (inputs, lora.rank), uniform.clone(), name=f"{name}_lora_a", **options
                ),
                layer.add_weight((lora.rank, size), "zeros", name=f"{name}_lora_b", **options),
            )
            places.append(AdapterPlace(start, size))
        start += size
    return adapters, tuple(places)


def low_rank_product(
    x: Tensor,
    adapters: Sequence[tuple[Tensor, Tensor]],
    *,
    places: Sequence[AdapterPlace],
    outputs: int,
    scaling: float,
    dropout: Tensor | None = None,
    seed: Tensor | None = None,
) -> Tensor:
    """Returns `scaling · x·A·B` in the columns of each adapter, zeros elsewhere, [rows, outputs].

    Args:
        x: [rows, inputs].
        adapters: A and B of each.
        places: The columns of each.
        outputs: The number of columns.
        scaling: See `Lora.scaling`.
        dropout: The share of `x` that the adapters do not see, float32 []; None: they see all.
        seed: int32 [2], for dropout.
    """
    if dropout is not None:
        x = fused_dropout(x, seed, rate=dropout)
    a = ops.concatenate([ops.cast(a, x.dtype) for a, _ in adapters], axis=1)
    # One product for all adapters of an input: products of low rank are slow, however small.
    rows = [
        ops.pad(b * scaling, ((0, 0), (place.start, outputs - place.start - place.size)))
        for (_, b), place in zip(adapters, places, strict=True)
    ]
    return ops.matmul(ops.matmul(x, a), ops.cast(ops.concatenate(rows, axis=0), x.dtype))
