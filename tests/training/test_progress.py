"""The curves and the log of a training that was killed and goes on, as others read them."""

import json
from typing import Any

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from tf_finetune import files
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.training.progress import Progress, write_text_summary

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
    progress = Progress(stop, 4, start, ModelDir(log_dir), show=False, log_every=1)
    for step in range(start + 1, stop + 1):
        progress.steps(step, dict.fromkeys(SCALARS, value), first=step == start + 1)
        if step % 2 == 0:
            progress.evaluation(step, {"accuracy": value})
    progress.close()


def curve(log_dir: str, run: str, tag: str) -> list[tuple[int, float]]:
    """Returns the points, sorted: the names of files of the same second may not be."""
    multiplexer = EventMultiplexer(tensor_size_guidance={"scalars": 0})
    multiplexer.AddRunsFromDirectory(log_dir).Reload()
    return sorted(
        (event.step, float(tf.make_ndarray(event.tensor_proto)))
        for event in multiplexer.Tensors(run, tag)
    )


def tear(log_dir: str, missing: int, name: str = "train/*") -> None:
    """Takes bytes from the end of a file, of itself that of the training's events."""
    (path,) = tf.io.gfile.glob(f"{log_dir}/{name}")
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
    def times() -> dict[str, int]:
        paths = [*tmp_path.glob("*/*"), tmp_path / "log.jsonl"]
        return {str(path): path.stat().st_mtime_ns for path in paths}

    write_text_summary(ModelDir(str(tmp_path)), "configuration", "a=b")
    log(str(tmp_path), 0, 4, 1.0)
    before = times()
    log(str(tmp_path), 4, 4, 2.0)
    assert times() == before


def lines(log_dir: str) -> list[dict[str, Any]]:
    """Returns the lines of the log, all of them whole."""
    text = files.read_bytes(ModelDir(log_dir).log).decode()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def expected_lines(start: int, stop: int, value: float) -> list[dict[str, Any]]:
    """Returns what `log` leaves."""
    found: list[dict[str, Any]] = []
    for step in range(start + 1, stop + 1):
        place = {"step": step, "epoch": step / 4}
        found.append({**place, "split": "train", **dict.fromkeys(SCALARS, value)})
        if step % 2 == 0:
            found.append({**place, "split": "validation", "accuracy": value})
    return found


# Whole; without its last end of line; in the middle of its last line; in the middle of a character.
@pytest.mark.parametrize("torn", [0, 1, 7, "character"])
@pytest.mark.parametrize("checkpoint", [0, 5, 8])
def test_no_line_after_the_checkpoint_is_left(log_dir, torn, checkpoint):
    log(log_dir, 0, 9, 1.0)
    if torn == "character":
        tear(log_dir, 1, "log.jsonl")
        path = ModelDir(log_dir).log
        data = files.read_bytes(path) + b"\xc3"
        with files.replaced_file(path) as file:
            file.write(data)
    elif torn:
        tear(log_dir, torn, "log.jsonl")
    before = expected_lines(0, checkpoint, 1.0)
    log(log_dir, checkpoint, checkpoint, 2.0)
    assert lines(log_dir) == before
    log(log_dir, checkpoint, 11, 2.0)
    log(log_dir, 11, 11, 3.0)
    assert lines(log_dir) == before + expected_lines(checkpoint, 11, 2.0)
    points = [(line["step"], line["split"]) for line in lines(log_dir)]
    assert len(set(points)) == len(points)


def test_a_torn_last_line_is_dropped_though_nothing_comes_after_the_checkpoint(log_dir):
    """The next line begins at the start of a line."""
    log(log_dir, 0, 3, 1.0)
    files.append_text(ModelDir(log_dir).log, '{"step": 3, "epo')
    log(log_dir, 3, 4, 2.0)
    assert lines(log_dir) == expected_lines(0, 3, 1.0) + expected_lines(3, 4, 2.0)


@pytest.mark.parametrize("line", ['{"step": "a"}', '{"step": null}', "[1]", "x", "[" * 50_000])
def test_a_damaged_line_is_dropped(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n' + line + '\n{"step": 2}\n')
    Progress(9, 3, 2, ModelDir(str(tmp_path)), show=False).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
