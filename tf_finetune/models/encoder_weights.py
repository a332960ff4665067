"""The weights of any encoder under Hugging Face's names, with its adapters merged in."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from tf_finetune.models.lora import Lora
from tf_finetune.models.stored_weights import assign_weights


def merged_weights(network: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and value of each weight as Hugging Face's base model has it, float32.

    Args:
        network: A `BertEncoder`, or another with `stored`, `adapters` and `lora`.
    """
    adapters = network.adapters
    for part in network.stored():
        for name, value in part.read():
            if adapter := adapters.get(name.removesuffix(".weight")):
                a, b = map(ops.convert_to_numpy, adapter)
                change = network.lora.scaling * (a @ b)
                value = value + (change.T if part.transposed else change)
            yield name, value


def remake(network: Any, lora: Lora | None, num_layers: int | None = None) -> Any:
    """Makes a network that computes the same, with its adapters merged into its weights.

    Args:
        network: See `merged_weights`.
        lora: The new adapters, which change nothing until they are trained; None: none.
        num_layers: How many of its layers the new one has, the lowest; None: all.
    """
    config = {**network.get_config(), "dtype": network.dtype_policy}
    config["lora"] = None if lora is None else dataclasses.asdict(lora)
    config["num_layers"] = num_layers or network.num_layers
    made = type(network).from_config({**config, "initializer": "zeros"})
    made.build()
    weights = dict(merged_weights(network))
    assign_weights(made.stored(), weights.__getitem__)
    return made
