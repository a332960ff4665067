"""What a training shows: a bar on the screen and curves in TensorBoard."""

import sys
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from tf_finetune.files import file_size, list_dir, open_gfile

_FRAME = 16  # Bytes of an event's length and checksums in its file.


class Progress:
    """Reports the steps and evaluations of one training.

    Args:
        total_steps: Steps of the whole training.
        start_step: Steps done before this process.
        log_dir: TensorBoard's folder, `train` and `validation` below it; None: no curves.
        log_every: Steps between two points of the training curves.
        show: Whether there is a bar.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int,
        log_dir: str | None,
        log_every: int = 10,
        show: bool = True,
    ) -> None:
        for run in ("train", "validation") if log_dir else ():
            _cut_curves(tf.io.gfile.join(log_dir, run), start_step)
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._log_dir = log_dir
        self._log_every = log_every
        self._logged = start_step
        self._total_steps, self._show = total_steps, show
        self.bar = self._make_bar(start_step)
        self._compiled = False

    def steps(self, step: int, count: int, scalars: dict[str, float]) -> None:
        """Reports training up to a step.

        Args:
            step: Steps done.
            count: How many of them are new.
            scalars: `loss`, `learning_rate`, `gradient_norm`, `examples_per_second`,
                `tokens_per_second`.
        """
        if not self._compiled:
            # The first step is traced and compiled: the time left is reckoned without it.
            self._compiled, count = True, 0
            self.bar.leave = False
            self.bar.close()
            self.bar = self._make_bar(step)
        self.bar.set_postfix_str(
            f"loss={scalars['loss']:.4f} lr={scalars['learning_rate']:.1e} "
            f"{scalars['examples_per_second']:.0f} examples/s",
            refresh=False,
        )
        self.bar.update(count)
        # On a grid of all steps, so that a resumed training has its points at the same ones.
        if step // self._log_every > self._logged // self._log_every:
            self._logged = step
            self._write("train", step, scalars)

    def evaluation(self, step: int, metrics: dict[str, Any], epoch: float) -> None:
        """Reports the metrics of an evaluation; what is not a number is left out."""
        scalars = {name: value for name, value in metrics.items() if isinstance(value, float)}
        text = "  ".join(f"{name} {value:.4f}" for name, value in scalars.items())
        self.message(f"step {step}, epoch {epoch:.2f}: {text}")
        self._write("validation", step, scalars)

    def message(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Ends the bar and writes what TensorBoard has not got yet."""
        self.bar.close()
        for writer in self._writers.values():
            writer.close()

    def _make_bar(self, step: int) -> tqdm:
        # On a terminal a bar that moves, in a file a line every quarter of a minute.
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

    def _write(self, run: str, step: int, scalars: dict[str, float]) -> None:
        if self._log_dir is None:
            return
        if run not in self._writers:
            self._writers[run] = tf.summary.create_file_writer(tf.io.gfile.join(self._log_dir, run))
        with open_gfile(), self._writers[run].as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
            self._writers[run].flush()


def write_text_summary(log_dir: str, name: str, text: str) -> None:
    """Shows a text in TensorBoard, once, e.g. the configuration; it is escaped as code."""
    folder = tf.io.gfile.join(log_dir, "train")
    if _event_files(folder):
        return
    writer = tf.summary.create_file_writer(folder)
    with writer.as_default(step=0):
        tf.summary.text(name, "\n".join("    " + line for line in text.splitlines()))
    writer.close()


def _cut_curves(folder: str, last_step: int) -> None:
    """Removes the points after a step, which a training that goes on from there writes again."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    for path in _event_files(folder):
        with open_gfile() as gfile:
            # It ends before an event that a killed process has torn.
            events = RawEventFileLoader(path).Load()
            kept = [e for e in events if tf.compat.v1.Event.FromString(e).step <= last_step]
            if sum(len(event) + _FRAME for event in kept) == file_size(path):
                continue
            # TensorBoard takes every file with "tfevents" in its name for curves.
            beside = gfile.join(folder, ".cut")
            with tf.io.TFRecordWriter(beside) as writer:
                for event in kept:
                    writer.write(event)
            gfile.rename(beside, path, overwrite=True)


def _event_files(folder: str) -> list[str]:
    return [tf.io.gfile.join(folder, name) for name in list_dir(folder) if "tfevents" in name]
