"""Checkpoints of a training: bounded in number, whole or not there, the best one beside."""

import json
import os
import re
import sys
from typing import Any

import keras
import tensorflow as tf

from tf_finetune.errors import UserError

# What TensorFlow raises for a checkpoint that is torn or of another model.
READ_ERRORS = (tf.errors.OpError, ValueError, AssertionError, LookupError, RuntimeError)


class _State(tf.train.experimental.PythonState):
    """A JSON object that is saved and restored with the variables."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def serialize(self) -> bytes:
        return json.dumps(self.values).encode()

    def deserialize(self, string_value: bytes) -> None:
        self.values = json.loads(string_value)


class Checkpoints:
    """The checkpoints of one training, `step-<N>` for the last ones and `best-<N>`.

    TensorFlow writes a checkpoint's data before its index and renames both into place, so that a
    checkpoint with an index is whole.

    Args:
        directory: Where they are.
        model: Every variable of it is kept, the random state of its dropout layers too.
        optimizer: Built on the model's trainable variables.
        keep: How many of the last ones stay.
    """

    def __init__(
        self,
        directory: str,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        keep: int = 2,
    ) -> None:
        self.directory = directory
        self.keep = keep
        self.state = _State()
        self._model = _model_checkpoint(model)
        self._all = tf.train.Checkpoint(
            model=[variable.value for variable in model.variables],
            optimizer=[variable.value for variable in optimizer.variables],
            state=self.state,
        )

    def save(self, step: int, state: dict[str, Any]) -> str:
        """Writes the checkpoint of a step, then drops the oldest ones.

        Args:
            step: The steps done.
            state: A JSON object to keep with it.

        Returns:
            The checkpoint's path.

        Raises:
            UserError: It could not be written; the earlier ones are untouched.
        """
        self.state.values = state
        path = self._write(self._all, f"step-{step}")
        for old in find(self.directory, "step")[: -self.keep]:
            _remove(old)
        return path

    def save_best(self, step: int) -> None:
        """Writes the model's weights as the best so far, in place of an earlier best."""
        path = self._write(self._model, f"best-{step}")
        for old in find(self.directory, "best"):
            if old != path:
                _remove(old)

    def restore(self) -> dict[str, Any]:
        """Restores the last checkpoint that can be read.

        Returns:
            The state saved with it; empty if there is no checkpoint.

        Raises:
            UserError: There are checkpoints but none can be read.
        """
        paths = find(self.directory, "step")
        failures = []
        for path in reversed(paths):
            try:
                self._all.read(path).assert_consumed()
                return self.state.values
            except READ_ERRORS as error:
                failures.append(f"{path}: {_first_line(error)}")
                print(f"warning: checkpoint {failures[-1]} Trying an earlier one.", file=sys.stderr)
        if failures:
            raise UserError(
                "no checkpoint can be read:\n  " + "\n  ".join(failures) + "\n"
                "Remove the damaged files or start anew with --overwrite."
            )
        return {}

    def restore_best(self) -> bool:
        """Restores the best weights; returns False if none were saved."""
        paths = find(self.directory, "best")
        if paths:
            _restore_weights(self._model, paths[-1])
        return bool(paths)

    def latest(self) -> str | None:
        """Returns the path of the last checkpoint, None if there is none."""
        paths = find(self.directory, "step")
        return paths[-1] if paths else None

    def _write(self, checkpoint: tf.train.Checkpoint, name: str) -> str:
        path = tf.io.gfile.join(self.directory, name)
        try:
            tf.io.gfile.makedirs(self.directory)
            return checkpoint.write(path)
        except (tf.errors.OpError, OSError) as error:
            for file in _names(self.directory):
                if re.match(rf"{name}(?!\d)", file):
                    file = tf.io.gfile.join(self.directory, file)
                    remove = tf.io.gfile.rmtree if tf.io.gfile.isdir(file) else tf.io.gfile.remove
                    remove(file)
            raise UserError(
                f"checkpoint {path} cannot be written: {_first_line(error)} "
                f"The last good checkpoint is {self.latest() or 'none'}. Free disk space or mend "
                "the permissions, then run the same command again to go on from there."
            ) from None


def load_weights(model: keras.Model, directory: str) -> str:
    """Loads a finished training's weights: the best, else the last.

    Args:
        model: The same architecture.
        directory: The checkpoints' folder.

    Returns:
        The checkpoint's path.

    Raises:
        UserError: There is none, it cannot be read, or it does not fit the model.
    """
    paths = find(directory, "best") or find(directory, "step")
    if not paths:
        raise UserError(f"no checkpoint in {directory}. Train first, with --do_train.")
    _restore_weights(_model_checkpoint(model), paths[-1])
    return paths[-1]


def find(directory: str, kind: str) -> list[str]:
    """Returns the paths of the whole checkpoints of a kind, `step` or `best`, oldest first."""
    matches = (re.fullmatch(rf"{kind}-(\d+)\.index", name) for name in _names(directory))
    steps = sorted(int(match[1]) for match in matches if match)
    return [tf.io.gfile.join(directory, f"{kind}-{step}") for step in steps]


def _names(directory: str) -> list[str]:
    # Not glob: the directory's name may hold a [ or *.
    return tf.io.gfile.listdir(directory) if tf.io.gfile.isdir(directory) else []


def _model_checkpoint(model: keras.Model) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(model=[variable.value for variable in model.variables])


def _restore_weights(checkpoint: tf.train.Checkpoint, path: str) -> None:
    try:
        checkpoint.read(path).assert_existing_objects_matched().expect_partial()
    except READ_ERRORS as error:
        raise UserError(
            f"checkpoint {path} cannot be loaded: {_first_line(error)} It is damaged or of "
            "another model: check --encoder, --head and the labels, or train anew with --overwrite."
        ) from None


def _remove(path: str) -> None:
    # The index first: data without an index is no checkpoint.
    tf.io.gfile.remove(path + ".index")
    folder, name = os.path.split(path)
    for file in _names(folder):
        if file.startswith(f"{name}.data-"):
            tf.io.gfile.remove(tf.io.gfile.join(folder, file))


def _first_line(error: Exception) -> str:
    # TensorFlow puts the name of a graph node before some messages.
    text = re.sub(r"\{\{.*?\}\} ", "", str(error))
    lines = [line for line in text.splitlines() if line.strip()]
    return (lines[0][:300] if lines else type(error).__name__).rstrip(".") + "."
