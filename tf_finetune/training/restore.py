"""Reads a checkpoint back into the weights, the optimizer and the state of a training."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_finetune.training.optimizer import tables_of


def open_checkpoint(path: str) -> Any:
    """Returns TensorFlow's reader of a checkpoint."""
    # `tf.train.load_checkpoint` takes a path of `ram://` for a folder.
    return tf.compat.v1.train.NewCheckpointReader(path)


def read_checkpoint(
    path: str, weights: Sequence[tf.Variable], optimizer: keras.optimizers.Optimizer, state: Any
) -> None:
    """Reads what `Checkpoints` wrote.

    Of a table it may hold the moments of other rows than are trained now: the texts have changed,
    or an older version wrote it, which kept moments of all rows. Rows that are new start without.

    Args:
        path: The checkpoint.
        weights: The model's, in the order they were written in.
        optimizer: Built.
        state: Trackable; gets the state.

    Raises:
        ValueError, AssertionError, tf.errors.OpError and others: It is damaged or of another model.
    """
    places = {id(variable): place for place, variable in enumerate(optimizer.variables)}
    shapes = open_checkpoint(path).get_variable_to_shape_map()
    variables: list[Any] = [variable.value for variable in optimizer.variables]
    tables = []
    for table in tables_of(optimizer):
        read: list[Any] = []
        for variable in (table.stored, table.momentum, table.velocity):
            place = places[id(variable)]
            shape = shapes.get(f"optimizer/{place}/.ATTRIBUTES/VARIABLE_VALUE")
            read.append(None if shape is None else tf.Variable(tf.zeros(shape, variable.dtype)))
            variables[place] = read[-1]
        tables.append((table, *read))
    # The older version did not write the numbers of the rows, which come last.
    variables = [variable for variable in variables if variable is not None]
    whole = tf.train.Checkpoint(model=weights, optimizer=variables, state=state)
    whole.read(path).assert_consumed()
    for table, rows, momentum, velocity in tables:
        numbers = np.arange(momentum.shape[0]) if rows is None else rows.numpy()
        table.restore(numbers, momentum.numpy(), velocity.numpy())
