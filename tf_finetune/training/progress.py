"""The progress of a training: a bar, curves in TensorBoard, and the log."""

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from tf_finetune.files import (
    append_text,
    exists,
    file_size,
    list_dir,
    make_dirs,
    open_gfile,
    read_bytes,
    write_text_atomic,
)
from tf_finetune.runs.model_dir import ModelDir

_FRAME = 16  # Bytes of an event's length and checksums in its file.
_RUNS = ("train", "validation")
# The measures of losses that the bar shows.
_SHOWN = ("token_accuracy", "reward_accuracy", "reward_margin")


class Progress:
    """Reports the steps and evaluations of one training.

    TensorBoard's curves and the log `log.jsonl` get the same points. A line of the log is a JSON
    object: `step`, `epoch`, `split` (`train` or `validation`), and the point's numbers by name.

    Args:
        total_steps: Steps of the whole training.
        steps_per_epoch: Steps of an epoch.
        start_step: Steps done before this process. Points of later steps are removed.
        model_dir: Gets curves and log; None: neither is written.
        show: Whether there is a bar.
        log_every: Steps between two points of the training.
    """

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: int,
        start_step: int,
        model_dir: ModelDir | None,
        show: bool = True,
        log_every: int = 10,
    ) -> None:
        self._total_steps, self._steps_per_epoch = total_steps, steps_per_epoch
        self._model_dir, self._show, self._log_every = model_dir, show, log_every
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._logged = self._shown = start_step
        if model_dir:
            make_dirs(model_dir.path)
            _cut_log(model_dir.log, start_step)
            for run in _RUNS:
                _cut_curves(tf.io.gfile.join(model_dir.path, run), start_step)
        self.bar = self._make_bar(start_step)

    def steps(self, step: int, scalars: dict[str, float], first: bool = False) -> None:
        """Reports training up to a step.

        Args:
            step: Steps done.
            scalars: `loss`, `learning_rate`, `gradient_norm`, `examples_per_second`,
                `tokens_per_second`, `targets_per_second`, and the measures of the loss.
            first: Whether it is the first of the process, which was traced and compiled.
        """
        if first:  # The bar estimates the remaining time without this step.
            self.bar.leave = False
            self.bar.close()
            self.bar, self._shown = self._make_bar(step), step
        unit = "targets" if "targets_per_second" in scalars else "examples"
        shown = [f"loss={scalars['loss']:.4f}", f"lr={scalars['learning_rate']:.1e}"]
        shown += [f"{name}={scalars[name]:.3f}" for name in _SHOWN if name in scalars]
        shown.append(f"{scalars[f'{unit}_per_second']:.0f} {unit}/s")
        self.bar.set_postfix_str(" ".join(shown), refresh=False)
        self.bar.update(step - self._shown)
        self._shown = step
        # The grid counts from step 0, so that a resumed training has its points at the same steps.
        if step // self._log_every > self._logged // self._log_every:
            self._logged = step
            self._write("train", step, scalars)

    def evaluation(self, step: int, metrics: dict[str, Any]) -> None:
        """Reports the metrics of an evaluation: numbers as curves, and texts as they are."""
        scalars = {name: value for name, value in metrics.items() if isinstance(value, float)}
        texts = {name: value for name, value in metrics.items() if isinstance(value, str)}
        text = "  ".join(f"{name} {value:.4f}" for name, value in scalars.items())
        self.message(f"step {step}, epoch {step / self._steps_per_epoch:.2f}: {text}")
        self._write("validation", step, scalars, texts)
        for name, value in texts.items():
            self.message(value)
            self._write_text("validation", step, name, value)

    def message(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Closes the bar and TensorBoard's files."""
        self.bar.close()
        for writer in self._writers.values():
            writer.close()

    def _make_bar(self, step: int) -> tqdm:
        # On a terminal the bar moves; in a file it takes a line every 15 s.
        interval = 0.2 if sys.stderr.isatty() else 15.0
        return tqdm(
            total=self._total_steps,
            initial=step,
            desc="training",
            unit="step",
            mininterval=interval,
            maxinterval=interval * 2,
            dynamic_ncols=sys.stderr.isatty(),
            disable=not self._show,
        )

    def _write(
        self, run: str, step: int, scalars: dict[str, float], texts: Mapping[str, str] = {}
    ) -> None:
        if self._model_dir is None:
            return
        # JSON has no NaN.
        numbers = {name: v if math.isfinite(v) else None for name, v in scalars.items()}
        point = {
            "step": step,
            "epoch": step / self._steps_per_epoch,
            "split": run,
            **numbers,
            **texts,
        }
        append_text(self._model_dir.log, json.dumps(point, allow_nan=False) + "\n")
        writer = self._writer(run)
        with open_gfile(), writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
            writer.flush()

    def _write_text(self, run: str, step: int, name: str, text: str) -> None:
        if self._model_dir is None:
            return
        writer = self._writer(run)
        with open_gfile(), writer.as_default(step=step):
            tf.summary.text(name, _as_code(text))
            writer.flush()

    def _writer(self, run: str) -> tf.summary.SummaryWriter:
        assert self._model_dir
        if run not in self._writers:
            folder = tf.io.gfile.join(self._model_dir.path, run)
            self._writers[run] = tf.summary.create_file_writer(folder)
        return self._writers[run]


def _as_code(text: str) -> str:
    """Returns text as a block of Markdown that TensorBoard shows as it is."""
    return "\n".join("    " + line for line in text.splitlines())


def write_text_summary(model_dir: ModelDir, name: str, text: str) -> None:
    """Shows a text in TensorBoard, once, e.g. the configuration; it is escaped as code."""
    folder = tf.io.gfile.join(model_dir.path, "train")
    if _event_files(folder):
        return
    writer = tf.summary.create_file_writer(folder)
    with writer.as_default(step=0):
        tf.summary.text(name, _as_code(text))
    writer.close()


def _cut_log(path: str, last_step: int) -> None:
    """Removes the lines after a step, and one that a killed process left incomplete."""
    if not exists(path):
        return
    text = read_bytes(path).decode(errors="replace")
    kept = [line for line in text.splitlines(keepends=True) if _step_of(line) <= last_step]
    if len(kept) < len(text.splitlines()):
        write_text_atomic(path, "".join(kept))


def _step_of(line: str) -> float:
    """Returns the step of a line of the log; infinity for an incomplete one."""
    try:
        step = json.loads(line)["step"] if line.endswith("\n") else None
    except (ValueError, KeyError, TypeError, RecursionError):
        step = None
    return step if isinstance(step, int | float) else math.inf


def _cut_curves(folder: str, last_step: int) -> None:
    """Removes the points after a step, which a training that resumes there writes again."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    for path in _event_files(folder):
        with open_gfile() as gfile:
            # The loader ends before an event that a killed process left incomplete.
            events = RawEventFileLoader(path).Load()
            kept = [e for e in events if tf.compat.v1.Event.FromString(e).step <= last_step]
            if sum(len(event) + _FRAME for event in kept) == file_size(path):
                continue
            # TensorBoard takes every file with "tfevents" in its name for curves.
            temporary = gfile.join(folder, ".cut")
            with tf.io.TFRecordWriter(temporary) as writer:
                for event in kept:
                    writer.write(event)
            gfile.rename(temporary, path, overwrite=True)


def _event_files(folder: str) -> list[str]:
    return [tf.io.gfile.join(folder, name) for name in list_dir(folder) if "tfevents" in name]
