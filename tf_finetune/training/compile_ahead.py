"""Compiles kernels in a thread while the step is traced and runs, before a batch needs them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import keras
import tensorflow as tf

from tf_finetune.models.bert import BertEncoder


@contextmanager
def compiling_ahead(model: keras.Model, shapes: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Compiles the kernels of a training step in a thread, at most until the block ends.

    A new length takes most of a second of one core. While Python traces the step on another core,
    this delays nothing; later it delays the step less than compiling within the step would.

    Args:
        model: A model; one without a `BertEncoder` has no kernels.
        shapes: The (rows, length) of the batches; empty: nothing is compiled.
    """
    encoders = [layer for layer in model.layers if isinstance(layer, BertEncoder) and shapes]
    # Batches have open shapes: trace the kernels for the shapes that the step is traced for.
    programs = [encoder.kernels((None, None)) for encoder in encoders]

    def compile_kernels(shape: tuple[int, int]) -> None:
        for program in programs:
            program(tf.zeros(shape, tf.int32), tf.ones(shape, tf.int32))

    pool = ThreadPoolExecutor(1)
    try:
        pool.map(compile_kernels, shapes)
        yield
    finally:
        pool.shutdown(cancel_futures=True)
