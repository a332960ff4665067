"""The problem of a classifier in the record of its model directory."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_finetune.classification.calibrate import load_calibration, save_calibration
from tf_finetune.classification.config import Config, EncoderConfig
from tf_finetune.classification.fields import escape
from tf_finetune.data.label_config import LabelConfig
from tf_finetune.data.labelled import TextData
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.files import exists, list_dir
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import differences


def save_run(
    model_dir: ModelDir, config: Config, problem: Problem, files: Mapping[str, str] = {}
) -> None:
    """Writes the record of a run, with its problem's calibration; see `ModelDir.save`."""
    if problem.thresholds or problem.temperature != 1:
        save_calibration(model_dir, problem)
    labels = "".join(f"{name}\n" for name in problem.label_names)
    model_dir.save(config, dataclasses.asdict(problem), {"labels.txt": labels, **files})


def split_record(data: TextData) -> dict[str, str]:
    """Returns `split.tsv`, where rows were held out: the split, place and id of each.

    Args:
        data: The examples.

    Returns:
        The file's content by its name.
    """
    lines = ["split\tlocation\tid"]
    for split, cells in data.held_out.items():
        if split != "train":
            ids = cells.ids or [""] * len(cells)
            for location, value in zip(cells.locations, ids, strict=True):
                lines.append("\t".join(map(escape, (split, location, str(value)))))
    return {"split.tsv": "\n".join(lines) + "\n"} if data.held_out else {}


def claim(model_dir: ModelDir, config: Config, problem: Problem) -> None:
    """Makes a folder that of a classifier's training, or checks that it is.

    Args:
        model_dir: The folder.
        config: The configuration of the classifier.
        problem: What it learns.

    Raises:
        UserError: The folder holds another model, or files that no run has made.
    """
    if not exists(model_dir.config):
        model_dir.check_free(config, lambda _: [])
        save_run(model_dir, config, problem)
        return
    earlier, learnt = model_dir.load(Config)
    adapters = ("lora_rank", "lora_alpha", "lora_targets")
    lines = differences(
        earlier, config, ("head", "pooling", "max_seq_length", "long_text", *adapters)
    )
    lines += problem_differences(problem_from_record(model_dir, earlier, learnt), problem)
    # `save_weights` writes step 0; a training's own best weights are of a later one.
    if "best-0.index" in list_dir(model_dir.checkpoints):
        lines.append("  a model that was saved whole: no training can go on from it")
    if lines:
        raise UserError(
            "\n".join([f"{model_dir} holds another model:", *lines, "Choose another folder."])
        )


def problem_from_record(model_dir: ModelDir, config: Config, learnt: dict[str, Any]) -> Problem:
    """Returns the problem of a model.

    Args:
        model_dir: The model's folder.
        config: Its configuration, which says from when on a label is told.
        learnt: The record of `ModelDir.load`.

    Raises:
        UserError: The record is damaged, or the configuration does not fit the problem.
    """
    try:
        columns, names = (tuple(map(str, learnt[key])) for key in ("text_columns", "label_names"))
        threshold = config.labels.threshold
        problem = Problem(learnt["problem_type"], columns, names, threshold=threshold)
    except (KeyError, TypeError, UserError) as error:
        raise model_dir.damaged(error) from None
    problem = load_calibration(model_dir, problem)
    thresholds = problem.thresholds if config.labels.tune_thresholds else ()
    return dataclasses.replace(
        problem, thresholds=thresholds, reject_below=config.labels.reject_below
    )


def label_settings(problem: Problem) -> LabelConfig:
    """Returns the settings that say from when on a problem's labels are told."""
    return LabelConfig(
        threshold=problem.threshold,
        tune_thresholds=bool(problem.thresholds),
        reject_below=problem.reject_below,
    )


def check_head(flag: str, model_dir: ModelDir, config: EncoderConfig) -> None:
    """Refuses a head of the user's own that only the record of an earlier run names.

    Raises:
        UserError: The record names one: loading it would run its module.
    """
    if config.has_own_head:
        raise UserError(
            f"--{flag}={model_dir} was trained with --head={config.head}. That is code, "
            "which a file cannot ask for: if you trust it, say it again, with the same --head."
        )


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
