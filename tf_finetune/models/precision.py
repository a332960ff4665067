"""Switches the precision in which a model computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def float32_compute(layer: keras.layers.Layer) -> Iterator[None]:
    """Makes a layer or model and all its layers compute in float32 while the block runs."""
    layers = [part for part in layer._flatten_layers() if part.compute_dtype != "float32"]
    policies = [part.dtype_policy for part in layers]
    try:
        for part in layers:
            part.dtype_policy = "float32"
        yield
    finally:
        for part, policy in zip(layers, policies, strict=True):
            part.dtype_policy = policy
