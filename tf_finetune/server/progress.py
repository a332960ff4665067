"""What a training's log says: events, checkpoints, the time of its end, the results."""

import csv
import io
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tf_finetune.server.job_flags import JobFolder
from tf_finetune.server.store import Event, Job, Store

_INDEX = re.compile(r"step-(\d+)\.index")
# What language models, preferences and classifiers call it.
_ACCURACIES = ("token_accuracy", "reward_accuracy", "accuracy")
_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")

# What an event with some answers begins with.
SAMPLES = "Samples at "

Point = dict[str, Any]


def read_points(folder: JobFolder) -> list[Point]:
    """Returns the whole lines of a training's log; a training that has none yet has no points."""
    try:
        text = folder.log.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def report(store: Store, job: Job, folder: JobFolder) -> None:
    """Tells of what is new in a training's log and among its checkpoints.

    A training that resumed logs some steps again; they are told of once.

    Args:
        store: Gets events, checkpoints and the time when the training may end.
        job: The job.
        folder: Its folder.
    """
    points, reported = read_points(folder), dict(job.reported)
    if not points:
        return
    # Rows of which nothing is left to learn were dropped, so only the training knows.
    steps_per_epoch = max(1, round(points[0]["step"] / points[0]["epoch"]))
    steps = steps_per_epoch * job.hyperparameters["n_epochs"]
    events = []
    for point in points:
        if point["step"] > reported.get(point["split"], 0):
            reported[point["split"]] = point["step"]
            events.append(_event(point, steps))
            if "answers" in point:  # Of language models, to prompts of the validation file.
                hidden = f"{folder.data('validation_file').parent}{os.sep}"
                events.append(Event(SAMPLES + point["answers"].replace(hidden, "")))
    with store.transaction():
        if events:
            store.tell(job.id, *events)
            finish = _finish(points, steps, job.hyperparameters["batch_size"])
            store.change(job.id, [job.status], reported=reported, estimated_finish=finish)
        _add_checkpoints(store, job, folder, points, steps_per_epoch)


def results_csv(points: Sequence[Point]) -> str:
    """Returns OpenAI's table of a training: a line for each step that was logged."""
    lines: dict[int, dict[str, Any]] = {}
    for point in points:
        line = lines.setdefault(point["step"], {"step": point["step"]})
        if point["split"] == "train":
            line |= {"train_loss": point["loss"], "train_accuracy": _accuracy(point)}
        else:
            line |= {"valid_loss": point["loss"], "valid_mean_token_accuracy": _accuracy(point)}
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines[step] for step in sorted(lines))
    return text.getvalue()


def trained_tokens(folder: JobFolder) -> int:
    """Returns the tokens that a finished training has read, of all epochs."""
    metrics = json.loads((folder.model_dir / "metrics.json").read_text(encoding="utf-8"))
    return int(metrics["train"]["tokens"])


def _event(point: Point, steps: int) -> Event:
    names = {"train": "training loss", "validation": "full validation loss"}
    loss = point["loss"]
    shown = "not finite" if loss is None else f"{loss:.4f}"
    data = {"step": point["step"], "total_steps": steps, **_metrics(point)}
    return Event(f"Step {point['step']}/{steps}: {names[point['split']]}={shown}", "info", data)


def _metrics(point: Point) -> dict[str, Any]:
    """Returns a point's numbers by OpenAI's names."""
    loss, accuracy = point["loss"], _accuracy(point)
    if point["split"] == "train":
        return {"train_loss": loss, "train_mean_token_accuracy": accuracy}
    # Every evaluation is of the whole file.
    return {
        **{"valid_loss": loss, "valid_mean_token_accuracy": accuracy},
        **{"full_valid_loss": loss, "full_valid_mean_token_accuracy": accuracy},
    }


def _accuracy(point: Mapping[str, Any]) -> float | None:
    return next((point[name] for name in _ACCURACIES if name in point), None)


def _finish(points: Sequence[Point], steps: int, batch_size: int) -> int | None:
    """Returns when the training may end, by the speed of its last steps."""
    last = next((p for p in reversed(points) if p["split"] == "train"), None)
    if not last or not last.get("examples_per_second"):
        return None
    left = (steps - last["step"]) * batch_size
    return int(time.time() + left / last["examples_per_second"]) + 1


def _add_checkpoints(
    store: Store, job: Job, folder: JobFolder, points: Sequence[Point], steps_per_epoch: int
) -> None:
    """Adds the checkpoints of whole epochs that are new, and removes those whose files are gone."""
    names = folder.model_dir / "checkpoints"
    found = [_INDEX.fullmatch(path.name) for path in names.iterdir()] if names.is_dir() else []
    steps = {int(match[1]) for match in found if match}
    known = {row["step"] for row in store.find("checkpoints", job_id=job.id)}
    for step in sorted(known - steps):
        store.remove("checkpoints", job_id=job.id, step=step)
    for step in sorted(steps - known):
        if step % steps_per_epoch:  # A pause made it.
            continue
        metrics: dict[str, Any] = {"step": step}
        for point in points:
            if point["step"] <= step:
                metrics |= _metrics(point)
        store.add("checkpoints", "ftckpt_", job_id=job.id, step=step, metrics=metrics)
        store.tell(job.id, Event(f"Checkpoint created at step {step}"))
