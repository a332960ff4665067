"""What a training shows: a bar on the screen and curves in TensorBoard."""

import sys
from typing import Any

import tensorflow as tf
from tqdm import tqdm


class Progress:
    """Reports the steps and evaluations of one training.

    Args:
        total_steps: Steps of the whole training.
        start_step: Steps done before this process.
        log_dir: TensorBoard's folder, `train` and `validation` below it; None: no curves.
        log_every: Steps between two points of the training curves.
    """

    def __init__(
        self, total_steps: int, start_step: int, log_dir: str | None, log_every: int = 10
    ) -> None:
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._log_dir = log_dir
        self._log_every = log_every
        self._logged = start_step
        # On a terminal a bar that moves, in a file a line every quarter of a minute.
        interval = 0.2 if sys.stderr.isatty() else 15.0
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            desc="training",
            unit="step",
            mininterval=interval,
            maxinterval=interval * 2,
            dynamic_ncols=sys.stderr.isatty(),
        )

    def steps(self, step: int, count: int, scalars: dict[str, float]) -> None:
        """Reports training up to a step.

        Args:
            step: Steps done.
            count: How many of them are new.
            scalars: `loss`, `learning_rate`, `gradient_norm`, `examples_per_second`,
                `tokens_per_second`.
        """
        self._bar.set_postfix_str(
            f"loss={scalars['loss']:.4f} lr={scalars['learning_rate']:.1e} "
            f"{scalars['examples_per_second']:.0f} examples/s",
            refresh=False,
        )
        self._bar.update(count)
        if step - self._logged >= self._log_every:
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
        self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Ends the bar and writes what TensorBoard has not got yet."""
        self._bar.close()
        for writer in self._writers.values():
            writer.close()

    def _write(self, run: str, step: int, scalars: dict[str, float]) -> None:
        if self._log_dir is None:
            return
        if run not in self._writers:
            self._writers[run] = tf.summary.create_file_writer(tf.io.gfile.join(self._log_dir, run))
        with self._writers[run].as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
        self._writers[run].flush()


def write_text_summary(log_dir: str, name: str, text: str) -> None:
    """Shows a text in TensorBoard, e.g. the configuration; it is escaped as code."""
    writer = tf.summary.create_file_writer(tf.io.gfile.join(log_dir, "train"))
    with writer.as_default(step=0):
        tf.summary.text(name, "\n".join("    " + line for line in text.splitlines()))
    writer.close()
