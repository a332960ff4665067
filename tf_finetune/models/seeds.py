"""Seeds of dropout: another one for each use, each step and each replica."""

from typing import Any

import keras
from keras import ops

Tensor = Any


def derive_seed(seed: Tensor, number: int | Tensor) -> Tensor:
    """Returns another seed for each number, int32 [2], so that no two uses drop alike."""
    return seed + ops.stack([number, 0])


def draw_seed(generator: keras.random.SeedGenerator) -> Tensor:
    """Returns the next seed of a step, int32 [2], another one on each replica."""
    seed = ops.cast(generator.next(), "int32")
    if keras.config.backend() != "tensorflow":
        return seed
    import tensorflow as tf

    # Replicas hold the same seed state but must drop different elements.
    replica = tf.distribute.get_replica_context()
    return derive_seed(seed, 2**16 * replica.replica_id_in_sync_group) if replica else seed
