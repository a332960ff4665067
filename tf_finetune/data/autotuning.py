"""tf.data without its tuning thread."""

import tensorflow as tf


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset whose iterators end at once.

    The thread that tunes an iterator sleeps up to a minute between looks at it, and often misses
    the call to end; whoever drops the iterator waits for it.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
