"""Checkpoints of a training: each whole or absent, their number bounded, the best one kept."""

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_finetune.errors import UserError
from tf_finetune.files import list_dir, remove
from tf_finetune.runtime.workers import Workers
from tf_finetune.training.restore import read_checkpoint

# TensorFlow's errors for a checkpoint that is damaged or of another model.
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
        directory: The folder of the checkpoints.
        variables: Those that training changes: the weights, and the random state of dropout layers.
        optimizer: Built on the model's trainable variables.
        keep: The number of last ones to keep.
        workers: Every worker calls these methods; the chief alone writes and reads files.
    """

    def __init__(
        self,
        directory: str,
        variables: Sequence[keras.Variable],
        optimizer: keras.optimizers.Optimizer,
        keep: int,
        workers: Workers,
    ) -> None:
        self.directory = directory
        self.keep = keep
        self.state = _State()
        self._workers = workers
        self._weights = [variable.value for variable in variables]
        optimizer_state = [variable.value for variable in optimizer.variables]
        self._variables = [*self._weights, *optimizer_state]
        self._optimizer = optimizer
        self._model = tf.train.Checkpoint(model=self._weights)
        self._all = tf.train.Checkpoint(
            model=self._weights, optimizer=optimizer_state, state=self.state
        )

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes the checkpoint of a step, then removes the oldest ones and those of later steps.

        Args:
            step: The number of steps done.
            state: A JSON object to keep with it.

        Raises:
            UserError: It could not be written; the earlier ones are untouched.
        """
        self.state.values = state
        if not self._workers.is_chief:
            return
        path = self._write(self._all, f"step-{step}")
        paths = find(self.directory, "step")
        index = paths.index(path)
        # Those of later steps were unreadable: this training has resumed from an earlier one.
        for other in (*paths[: max(0, index + 1 - self.keep)], *paths[index + 1 :]):
            _remove(other)

    def save_best(self, step: int) -> None:
        """Writes the model's weights as the best so far, in place of an earlier best."""
        if not self._workers.is_chief:
            return
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
        state = self._workers.share_state(self._restore() if self._workers.is_chief else {})
        if state:
            self._workers.share_variables(self._variables)
        return state

    def _restore(self) -> dict[str, Any]:
        self._sweep()
        failures = []
        for path in reversed(find(self.directory, "step")):
            try:
                read_checkpoint(path, self._weights, self._optimizer, self.state)
                return self.state.values
            except READ_ERRORS as error:
                failures.append(f"{path}: {first_line(error)}")
                print(f"warning: checkpoint {failures[-1]} Trying an earlier one.", file=sys.stderr)
        if failures:
            raise UserError(
                "no checkpoint can be read:\n  " + "\n  ".join(failures) + "\n"
                "Remove the damaged files or start anew with --overwrite."
            )
        return {}

    def restore_best(self) -> None:
        """Restores the best weights, if any were saved."""
        if self._workers.is_chief and (paths := find(self.directory, "best")):
            _restore_weights(self._model, paths[-1])
        self._workers.share_variables(self._weights)

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
            self._sweep()
            raise UserError(
                f"checkpoint {path} cannot be written: {first_line(error)} "
                f"The last good checkpoint is {self.latest() or 'none'}. Free disk space or mend "
                "the permissions, then run the same command again to go on from there."
            ) from None

    def _sweep(self) -> None:
        """Removes the files of failed or killed writes."""
        whole = {*find(self.directory, "step"), *find(self.directory, "best")}
        for name in list_dir(self.directory):
            file = tf.io.gfile.join(self.directory, name)
            part = re.fullmatch(r"(.*)\.(?:index|data-\d+-of-\d+)", file)
            if re.match(r"(step|best)-\d", name) and not (part and part[1] in whole):
                remove(file)


def checkpoint_variables(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables of a model that its checkpoints hold.

    These are all of its variables, or those that its attribute `checkpoint_variables` returns, a
    function without arguments. So a frozen base, which comes from its own files, need not be in
    each checkpoint.
    """
    named = getattr(model, "checkpoint_variables", None)
    return list(named() if named else model.variables)


def load_weights(model: keras.Model, directory: str, workers: Workers | None = None) -> str:
    """Loads a finished training's weights: the best, else the last.

    Args:
        model: The same architecture.
        directory: The checkpoints' folder.
        workers: Every worker calls this; the chief alone reads files. None: every process reads.

    Returns:
        The checkpoint's path; empty on all workers but the chief.

    Raises:
        UserError: There is none, it cannot be read, or it does not fit the model.
    """
    weights = [variable.value for variable in checkpoint_variables(model)]
    path = ""
    if workers is None or workers.is_chief:
        path = finished_path(directory)
        _restore_weights(tf.train.Checkpoint(model=weights), path)
    if workers:
        workers.share_variables(weights)
    return path


def load_step(model: keras.Model, directory: str, step: int) -> None:
    """Loads the weights that a training had at a step; see `load_weights`."""
    weights = [variable.value for variable in checkpoint_variables(model)]
    _restore_weights(tf.train.Checkpoint(model=weights), step_path(directory, step))


def save_weights(model: keras.Model, directory: str) -> None:
    """Writes a model's weights where `load_weights` finds them.

    Raises:
        UserError: They could not be written.
    """
    weights = [variable.value for variable in checkpoint_variables(model)]
    path = tf.io.gfile.join(directory, "best-0")
    try:
        tf.io.gfile.makedirs(directory)
        tf.train.Checkpoint(model=weights).write(path)
    except (tf.errors.OpError, OSError) as error:
        raise UserError(f"checkpoint {path} cannot be written: {first_line(error)}") from None


def find(directory: str, kind: str) -> list[str]:
    """Returns the paths of the whole checkpoints of a kind, `step` or `best`, oldest first."""
    matches = (re.fullmatch(rf"{kind}-(\d+)\.index", name) for name in list_dir(directory))
    steps = sorted(int(match[1]) for match in matches if match)
    return [tf.io.gfile.join(directory, f"{kind}-{step}") for step in steps]


def finished_path(directory: str) -> str:
    """Returns the path of the best checkpoint, else the last.

    Raises:
        UserError: There is none.
    """
    paths = find(directory, "best") or find(directory, "step")
    if not paths:
        raise UserError(f"no checkpoint in {directory}. Train first, with --do_train.")
    return paths[-1]


def step_path(directory: str, step: int) -> str:
    """Returns the path of the checkpoint of a step.

    Raises:
        UserError: There is none.
    """
    path = tf.io.gfile.join(directory, f"step-{step}")
    if path not in find(directory, "step"):
        raise UserError(f"no checkpoint of step {step} in {directory}.")
    return path


def _restore_weights(checkpoint: tf.train.Checkpoint, path: str) -> None:
    try:
        checkpoint.read(path).assert_existing_objects_matched().expect_partial()
    except READ_ERRORS as error:
        raise UserError(
            f"checkpoint {path} cannot be loaded: {first_line(error)} It is damaged or of "
            "another model: check the flags that make the model, or train anew with --overwrite."
        ) from None


def _remove(path: str) -> None:
    # The index first: data without an index is no checkpoint.
    remove(path + ".index")
    folder, name = os.path.split(path)
    for file in list_dir(folder):
        if file.startswith(f"{name}.data-"):
            remove(os.path.join(folder, file))


def first_line(error: Exception) -> str:
    """Returns the first line of TensorFlow's message."""
    # TensorFlow puts the name of a graph node before some messages.
    text = re.sub(r"\{\{.*?\}\} ", "", str(error))
    lines = [line for line in text.splitlines() if line.strip()]
    return (lines[0][:300] if lines else type(error).__name__).rstrip(".") + "."
