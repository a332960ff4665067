"""The curves of a training that was killed and goes on, as TensorBoard reads them."""

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from tf_finetune.progress import Progress, write_text_summary

SCALARS = ("loss", "learning_rate", "examples_per_second")


@pytest.fixture(params=["local", "remote"])
def log_dir(request, tmp_path):
    if request.param == "local":
        yield str(tmp_path / "logs")
    else:
        yield f"ram://{tmp_path}/logs"
        tf.io.gfile.rmtree(f"ram://{tmp_path}/logs")


def log(log_dir: str, start: int, stop: int, value: float) -> None:
    """Logs the steps after `start`, and an evaluation at every second of them."""
    progress = Progress(stop, start, log_dir, log_every=1, show=False)
    for step in range(start + 1, stop + 1):
        progress.steps(step, 1, dict.fromkeys(SCALARS, value))
        if step % 2 == 0:
            progress.evaluation(step, {"accuracy": value}, epoch=1.0)
    progress.close()


def curve(log_dir: str, run: str, tag: str) -> list[tuple[int, float]]:
    """Returns the points, sorted: the names of files of the same second may not be."""
    multiplexer = EventMultiplexer(tensor_size_guidance={"scalars": 0})
    multiplexer.AddRunsFromDirectory(log_dir).Reload()
    return sorted(
        (event.step, float(tf.make_ndarray(event.tensor_proto)))
        for event in multiplexer.Tensors(run, tag)
    )


def tear(log_dir: str, missing: int) -> None:
    """Takes bytes from the end of the training's last event."""
    (path,) = tf.io.gfile.glob(f"{log_dir}/train/*")
    with tf.io.gfile.GFile(path, "rb") as file:
        data = file.read()
    tf.io.gfile.remove(path)  # In memory, a file that is opened again is gone on with.
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(data[:-missing])


@pytest.mark.parametrize("torn", [0, 7])
def test_no_point_after_the_checkpoint_is_left(log_dir, torn):
    log(log_dir, 0, 9, 1.0)
    if torn:
        tear(log_dir, torn)
    log(log_dir, 5, 5, 2.0)
    assert curve(log_dir, "train", "loss") == [(step, 1.0) for step in range(1, 6)]
    assert curve(log_dir, "validation", "accuracy") == [(2, 1.0), (4, 1.0)]
    log(log_dir, 5, 7, 2.0)
    expected = [(step, 1.0) for step in range(1, 6)] + [(6, 2.0), (7, 2.0)]
    for tag in SCALARS:
        assert curve(log_dir, "train", tag) == expected
    assert curve(log_dir, "validation", "accuracy") == [(2, 1.0), (4, 1.0), (6, 2.0)]


@pytest.mark.parametrize("missing", [1, 20])
def test_a_torn_event_is_taken_out(log_dir, missing):
    """Whatever reads the file after that finds it whole, as `TFRecordDataset` wants it."""
    log(log_dir, 0, 3, 1.0)
    tear(log_dir, missing)
    log(log_dir, 3, 3, 2.0)
    (path,) = tf.io.gfile.glob(f"{log_dir}/train/*")
    events = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    assert len(events) == 3 * len(SCALARS)  # The version of the file and all but the torn one.


def test_files_without_later_points_are_left_alone(tmp_path):
    write_text_summary(str(tmp_path), "configuration", "a=b")
    log(str(tmp_path), 0, 4, 1.0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    log(str(tmp_path), 4, 4, 2.0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")} == before
