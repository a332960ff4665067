"""The problem of a classifier in the record of its model directory."""

import dataclasses
from typing import Any

from tf_finetune.classification.config import Config
from tf_finetune.data.problem import Problem
from tf_finetune.runs.model_dir import ModelDir


def save_run(model_dir: ModelDir, config: Config, problem: Problem) -> None:
    """Writes the record of a run; see `ModelDir.save`."""
    labels = "".join(f"{name}\n" for name in problem.label_names)
    model_dir.save(config, dataclasses.asdict(problem), {"labels.txt": labels})


def problem_from_record(model_dir: ModelDir, config: Config, learnt: dict[str, Any]) -> Problem:
    """Returns the problem of a model.

    Args:
        model_dir: The model's folder.
        config: Its configuration, which has the threshold.
        learnt: The record of `ModelDir.load`.

    Raises:
        UserError: The record is damaged.
    """
    try:
        names = {key: tuple(map(str, learnt[key])) for key in ("text_columns", "label_names")}
        return Problem(learnt["problem_type"], **names, threshold=config.labels.threshold)
    except (KeyError, TypeError) as error:
        raise model_dir.damaged(error) from None


def problem_differences(learnt: Problem, now: Problem) -> list[str]:
    """Lists the differences between a model's problem and that of the data now."""
    return [
        f"  {what}: {there!r} there, {here!r} now in the data"
        for what, there, here in (
            ("problem", learnt.problem_type, now.problem_type),
            ("text columns", learnt.text_columns, now.text_columns),
            ("labels", learnt.label_names, now.label_names),
        )
        if there != here
    ]
