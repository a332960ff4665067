"""Kernels compiled in a thread before a batch needs them, while the step is traced and runs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import keras
import tensorflow as tf

from tf_finetune.data.streamed_batches import StreamedBatches
from tf_finetune.models.bert import BertEncoder


@contextmanager
def compiling_ahead(
    model: keras.Model, dataset: tf.data.Dataset | StreamedBatches
) -> Iterator[None]:
    """Compiles the kernels of a training step while the block runs, or until it ends.

    A new length takes most of a second of one core: nothing while Python traces the step on
    another one, and later less than if the step waited.

    Args:
        model: A model; one without a `BertEncoder` has no kernels.
        dataset: From `make_train_dataset`, which knows the shapes of its batches.
    """
    shapes = getattr(dataset, "batch_shapes", ())
    encoders = [layer for layer in model.layers if isinstance(layer, BertEncoder)]
    programs = [
        encoder.kernels(dataset.element_spec[0]["input_mask"].shape)
        for encoder in encoders
        if shapes
    ]

    def compile_kernels(shape: tuple[int, int]) -> None:
        for program in programs:
            program(tf.zeros(shape, tf.int32), tf.ones(shape, tf.int32))

    pool = ThreadPoolExecutor(1)
    try:
        pool.map(compile_kernels, shapes)
        yield
    finally:
        pool.shutdown(cancel_futures=True)
