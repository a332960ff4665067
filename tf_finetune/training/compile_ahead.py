"""Kernels compiled in a thread before a batch needs them, while the step is traced and runs."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import keras
import tensorflow as tf

from tf_finetune.models.bert import BertEncoder


@contextmanager
def compiling_ahead(model: keras.Model, shapes: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Compiles the kernels of a training step while the block runs, or until it ends.

    A new length takes most of a second of one core: nothing while Python traces the step on
    another one, and later less than if the step waited.

    Args:
        model: A model; one without a `BertEncoder` has no kernels.
        shapes: The (rows, length) of the batches; empty: nothing is compiled.
    """
    encoders = [layer for layer in model.layers if isinstance(layer, BertEncoder) and shapes]
    # Batches come with open shapes, and so the step is traced.
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
