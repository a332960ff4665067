"""The model directory: whose it is, what it was made with, and its results."""

import dataclasses
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_finetune import __version__
from tf_finetune.config import SECTIONS, Config
from tf_finetune.data.tasks import Problem
from tf_finetune.errors import UserError
from tf_finetune.files import write_text_atomic
from tf_finetune.flags import flagfile_text

OWN = (
    *("config.json", "train.cfg", "labels.txt", "metrics.json", "predictions.tsv"),
    *("checkpoints", "train", "validation", "export", "encoder"),
)
# What may change between two calls of the same training.
FREE = {
    *("do_train", "do_eval", "do_predict", "do_export", "export_encoder", "overwrite", "model_dir"),
    *("eval_batch_size", "predict_batch_size", "max_predict_samples", "test_file", "threshold"),
    *("keep_checkpoint_max", "save_checkpoints_steps", "steps_per_loop"),
    *("distribution_strategy", "tpu", "jit_compile"),
}


def claim(config: Config) -> None:
    """Checks that the model directory is free, or this very training's.

    Args:
        config: The run; `model_dir` is set.

    Raises:
        UserError: It holds another run's model; the message lists the differences.
    """
    directory = Path(config.runtime.model_dir or "")
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--model_dir={directory} is a file. Choose a folder.")
    if config.runtime.overwrite or not any((directory / "checkpoints").glob("*.index")):
        return
    earlier, _ = load_run(str(directory))
    differences = _differences(earlier, config, [name for name, _ in SECTIONS])
    if differences:
        raise UserError(
            f"--model_dir={directory} holds another run's model:\n{differences}\n"
            "Choose another --model_dir, give the same flags to go on, or replace it: --overwrite."
        )


def _differences(earlier: Config, now: Config, sections: Sequence[str], said: bool = False) -> str:
    """Lists settings that may not change; with `said` only those that are not at their default."""
    lines = []
    for name, section in SECTIONS:
        for field in dataclasses.fields(section) if name in sections else ():
            was, value = (getattr(getattr(c, name), field.name) for c in (earlier, now))
            if field.name in FREE or was == value or (said and value == field.default):
                continue
            lines.append(f"  --{field.name}: {was!r} there, {value!r} now")
    return "\n".join(lines)


def save_run(config: Config, problem: Problem) -> None:
    """Writes `config.json`, `train.cfg` and `labels.txt`; with `overwrite` removes what was there.

    Call it when nothing can be wrong with the run any more.
    """
    directory = Path(config.runtime.model_dir or "")
    for name in OWN if config.runtime.overwrite else ():
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    # Repeating the run must not replace anything by itself.
    config = dataclasses.replace(
        config, runtime=dataclasses.replace(config.runtime, overwrite=False)
    )
    sections = json.loads(config.to_json())
    record = {**sections, "problem": dataclasses.asdict(problem)}
    header = "Repeats this run: python run_classifier.py --flagfile=<this file> --model_dir=<new>"
    write_text_atomic(directory / "config.json", json.dumps(record, indent=2) + "\n")
    write_text_atomic(directory / "train.cfg", flagfile_text(config, header))
    write_text_atomic(
        directory / "labels.txt", "".join(f"{name}\n" for name in problem.label_names)
    )


def load_run(model_dir: str) -> tuple[Config, Problem]:
    """Reads how a model was made.

    Args:
        model_dir: The folder of an earlier training.

    Returns:
        Its configuration and what it has learnt.

    Raises:
        UserError: There is no model, or its `config.json` is damaged.
    """
    path = Path(model_dir) / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{model_dir} holds no model: {path}: {error.strerror}. Give the --model_dir of an "
            "earlier run, or train one with --do_train."
        ) from None
    try:
        problem = json.loads(text)["problem"]
        return Config.from_json(text), Problem(
            problem["problem_type"], tuple(problem["text_columns"]), tuple(problem["label_names"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error!r}. Train again with --overwrite.") from None


def resume_config(config: Config) -> tuple[Config, Problem]:
    """Completes a run without training by what its model was trained with.

    Args:
        config: The run; what it does not say is taken from the model directory.

    Returns:
        The whole configuration, and what the model has learnt.
    """
    earlier, problem = load_run(config.runtime.model_dir or "")
    differences = _differences(earlier, config, ("model", "train"), said=True)
    if differences:
        raise UserError(
            f"--model_dir={config.runtime.model_dir} holds a model that was made otherwise:\n"
            f"{differences}\nLeave these flags out, or train anew with --do_train."
        )
    data = dataclasses.replace(earlier.data, **_said(config.data))
    free = {name: value for name, value in _said(config.model).items() if name in FREE}
    # The weights come from the directory's own checkpoint.
    model = dataclasses.replace(earlier.model, init_from=None, **free)
    return dataclasses.replace(earlier, data=data, model=model, runtime=config.runtime), problem


def _said(section: Any) -> dict[str, Any]:
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    defaults = {field.name: field.default for field in dataclasses.fields(section)}
    return {name: value for name, value in values.items() if value != defaults[name]}


def save_metrics(model_dir: str, parts: dict[str, Any]) -> None:
    """Adds parts (`train`, `eval`, `test`) to metrics.json, and the versions that made them."""
    path = Path(model_dir) / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    packages = ("tensorflow", "tensorflow-text", "keras", "keras-hub", "tf-models-official")
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions |= {"tf_finetune": __version__, "python": platform.python_version()}
    metrics = {**metrics, **parts, "versions": versions}
    write_text_atomic(path, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
