"""The fastest matrix products of this machine, in TensorFlow."""

import json
import time

import numpy as np
import tensorflow as tf

# A product of the encoder's shape (32 texts of 64 tokens through the feed-forward layer) and a
# square one; the faster counts.
SHAPES = ((2048, 1536, 384), (2048, 384, 1536), (2048, 2048, 2048))


def ceiling(dtype: tf.DType, seconds: float = 2.0) -> float:
    """Returns the best median rate over the shapes, in floating-point operations per second."""
    best = 0.0
    for rows, inner, columns in SHAPES:
        a = tf.cast(tf.random.normal((rows, inner)), dtype)
        b = tf.cast(tf.random.normal((inner, columns)), dtype)
        multiply = tf.function(tf.matmul)
        multiply(a, b)
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            multiply(a, b)
            times.append(time.perf_counter() - started)
        best = max(best, 2 * rows * inner * columns / float(np.median(times)))
    return best


if __name__ == "__main__":
    print("\n" + json.dumps({"float32": ceiling(tf.float32), "bfloat16": ceiling(tf.bfloat16)}))
