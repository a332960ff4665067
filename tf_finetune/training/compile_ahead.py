"""Compiles kernels in a thread while the step is traced and runs, before a batch needs them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf


@contextmanager
def compiling_ahead(model: keras.Model, shapes: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Compiles the kernels of a training step in a thread, at most until the block ends.

    A new length takes most of a second of one core. While Python traces the step on another core,
    this delays nothing; later it delays the step less than compiling within the step would.

    Args:
        model: A model, whose layers that have kernels say so by a method `kernels`.
        shapes: The (rows, length) of the batches; empty: nothing is compiled.
    """
    layers = [layer for layer in model.layers if hasattr(layer, "kernels") and shapes]
    if not layers:
        yield
        return
    programs = [layer.kernels() for layer in layers]
    # Of pairs the layers get both.
    rows_each = int(np.prod(model.inputs[0].shape[1:-1]))

    def compile_kernels(shape: tuple[int, int]) -> None:
        rows, length = shape
        for program in programs:
            program(tf.constant(rows * rows_each), tf.constant(length))

    pool = ThreadPoolExecutor(1)
    try:
        pool.map(compile_kernels, shapes)
        yield
    finally:
        pool.shutdown(cancel_futures=True)
