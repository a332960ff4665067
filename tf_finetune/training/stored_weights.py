"""The weights in a checkpoint, without the model that they belong to."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_finetune.errors import UserError
from tf_finetune.training.checkpoints import READ_ERRORS, finished_path, first_line, step_path
from tf_finetune.training.restore import open_checkpoint

_WEIGHT = re.compile(r"model/(\d+)/.*VARIABLE_VALUE")


def read_weights(directory: str, step: int | None = None) -> list[np.ndarray]:
    """Reads what `load_weights` or `load_step` loads.

    Args:
        directory: The checkpoints' folder.
        step: The step; None: the best, else the last.

    Returns:
        The values in the order of `checkpoint_variables`.

    Raises:
        UserError: There is no checkpoint, or it cannot be read.
    """
    return _read(directory, step, lambda reader, names: [*map(reader.get_tensor, names)])


def count_weights(directory: str, step: int | None = None) -> int:
    """Returns how many numbers `read_weights` would read, from the checkpoint's index alone."""

    def count(reader: Any, names: list[str]) -> int:
        shapes = reader.get_variable_to_shape_map()
        return sum(math.prod(shapes[name]) for name in names)

    return _read(directory, step, count)


def _read(directory: str, step: int | None, read: Callable[[Any, list[str]], Any]) -> Any:
    """Returns the result of `read` for a checkpoint's reader and its weights' names, in order."""
    path = finished_path(directory) if step is None else step_path(directory, step)
    try:
        reader = open_checkpoint(path)
        names = map(_WEIGHT.fullmatch, reader.get_variable_to_shape_map())
        ordered = sorted((int(name[1]), name[0]) for name in names if name)
        return read(reader, [name for _, name in ordered])
    except READ_ERRORS as error:
        raise UserError(
            f"checkpoint {path} cannot be loaded: {first_line(error)} It is damaged: train anew "
            "with --overwrite."
        ) from None
