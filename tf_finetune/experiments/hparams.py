"""A run's searched flags and score for TensorBoard's HParams tab."""

import os
import time
from collections.abc import Mapping


def write_hparams(folder: str, values: Mapping[str, str], metric: str, score: float) -> None:
    """Writes them as an event file in the run's folder.

    The file is written record by record: TensorFlow's own writer would take the accelerators, which
    the runs need.

    Args:
        folder: The run's.
        values: By flag its value; numbers are written as such.
        metric: The name of the score.
        score: The score.
    """
    from tensorboard.plugins.hparams import api_pb2, summary
    from tensorflow.core.framework.summary_pb2 import Summary
    from tensorflow.core.util.event_pb2 import Event
    from tensorflow.io import TFRecordWriter

    parts = [
        summary.session_start_pb({name: _typed(value) for name, value in values.items()}),
        Summary(value=[Summary.Value(tag=f"{metric}/best", simple_value=score)]),
        summary.session_end_pb(api_pb2.STATUS_SUCCESS),
    ]
    now = time.time()
    path = os.path.join(folder, f"events.out.tfevents.{int(now)}.hparams")
    with TFRecordWriter(path) as writer:
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for part in parts:
            writer.write(Event(wall_time=now, summary=part).SerializeToString())


def _typed(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
