"""The model directory: whose it is, what it was made with, and its results."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Collection, Sequence
from typing import Any

from tf_finetune import __version__
from tf_finetune.data.tasks import Problem
from tf_finetune.errors import UserError
from tf_finetune.files import exists, list_dir, read_bytes, remove, write_text_atomic
from tf_finetune.runs.config import SECTIONS, Config
from tf_finetune.runs.flags import flagfile_text

OWN = (
    *("config.json", "train.cfg", "labels.txt", "metrics.json", "predictions.tsv"),
    *("checkpoints", "train", "validation", "export", "encoder"),
)
EVENTS = ("train", "validation")
# What is written beside and renamed.
WHOLE = tuple(name for name in OWN if name not in ("checkpoints", *EVENTS))
# What may change between two calls of the same training.
FREE = {
    *("do_train", "do_eval", "do_predict", "do_export", "export_encoder", "overwrite", "model_dir"),
    *("eval_batch_size", "predict_batch_size", "max_predict_samples", "test_file", "threshold"),
    *("keep_checkpoint_max", "tokenized_cache_dir", "save_checkpoints_steps", "steps_per_loop"),
    *("distribution_strategy", "tpu", "jit_compile"),
}


# Where a call without training finds examples; it names none of them, or all that it needs.
SOURCES = {
    *("data_dir", "train_file", "validation_file", "test_file", "tfds_name", "tfds_data_dir"),
    *("max_train_samples", "max_eval_samples", "max_predict_samples"),
}


def claim(config: Config, problem: Problem) -> None:
    """Checks that the model directory is free, or this very training's.

    Args:
        config: The run; `model_dir` is set.
        problem: What it will learn.

    Raises:
        UserError: It holds another run's model, whose differences the message lists, or files that
            no run has made.
    """
    directory = config.runtime.model_dir or ""
    found = [name for name in OWN if exists(os.path.join(directory, name))]
    checkpoints = list_dir(os.path.join(directory, "checkpoints"))
    has_checkpoint = any(name.endswith(".index") for name in checkpoints)
    if found and not (has_checkpoint or _is_run(directory)):
        raise UserError(
            f"--model_dir={directory} holds {', '.join(found)}, but not of a run of ours. "
            "Choose another folder, or move these away."
        )
    if config.runtime.overwrite or not (has_checkpoint or "export" in found):
        return
    earlier, learnt = load_run(directory)
    lines = _differences(earlier, config, [name for name, _ in SECTIONS])
    lines += [
        f"  {what}: {there!r} there, {here!r} now in the data"
        for what, there, here in (
            ("problem", learnt.problem_type, problem.problem_type),
            ("text columns", learnt.text_columns, problem.text_columns),
            ("labels", learnt.label_names, problem.label_names),
        )
        if there != here
    ]
    if lines:
        raise UserError(
            "\n".join([f"--model_dir={directory} holds another run's model:", *lines]) + "\n"
            "Choose another --model_dir, give the same flags to go on, or replace it: --overwrite."
        )


def _is_run(directory: str) -> bool:
    try:
        return "problem" in json.loads(read_bytes(os.path.join(directory, "config.json")))
    except (OSError, ValueError, TypeError):
        return False


def _differences(
    earlier: Config, now: Config, sections: Sequence[str], said: Collection[str] | None = None
) -> list[str]:
    """Lists settings that may not change; with `said` only those of them that were said."""
    lines = []
    for name, section in SECTIONS:
        for field in dataclasses.fields(section) if name in sections else ():
            was, value = (getattr(getattr(c, name), field.name) for c in (earlier, now))
            if field.name not in FREE and was != value and (said is None or field.name in said):
                lines.append(f"  --{field.name}: {was!r} there, {value!r} now")
    return lines


def save_run(config: Config, problem: Problem) -> None:
    """Writes `config.json`, `train.cfg` and `labels.txt`; with `overwrite` removes what was there.

    Call it when nothing can be wrong with the run any more.
    """
    directory = config.runtime.model_dir or ""
    if config.runtime.overwrite:
        _remove_run(directory)
    # Repeating the run must not replace anything by itself.
    config = dataclasses.replace(
        config, runtime=dataclasses.replace(config.runtime, overwrite=False)
    )
    sections = json.loads(config.to_json())
    record = {**sections, "problem": dataclasses.asdict(problem)}
    header = "Repeats this run: python run_classifier.py --flagfile=<this file> --model_dir=<new>"
    for name, text in (
        ("config.json", json.dumps(record, indent=2) + "\n"),
        ("train.cfg", flagfile_text(config, header)),
        ("labels.txt", "".join(f"{name}\n" for name in problem.label_names)),
    ):
        write_text_atomic(os.path.join(directory, name), text)


def _remove_run(directory: str) -> None:
    for name in OWN:
        path = os.path.join(directory, name)
        if name in EVENTS:
            # Folders of such names often hold data too.
            for file in list_dir(path):
                if file.startswith("events.out.tfevents"):
                    remove(os.path.join(path, file))
        else:
            remove(path)


def remove_leftovers(directory: str) -> None:
    """Removes the half-written files and folders of killed runs; see `files.py`.

    A whole folder that was being replaced, by one that is not there, is put back.
    """
    whole = "|".join(map(re.escape, WHOLE))
    for name in list_dir(directory):
        match = re.fullmatch(rf"\.({whole})\.(old\.)?[a-z0-9_]{{8}}", name)
        if match:
            path, target = os.path.join(directory, name), os.path.join(directory, match[1])
            if match[2] and not exists(target) and exists(os.path.join(path, match[1])):
                os.replace(os.path.join(path, match[1]), target)
            remove(path)


def load_run(model_dir: str) -> tuple[Config, Problem]:
    """Reads how a model was made.

    Args:
        model_dir: The folder of an earlier training.

    Returns:
        Its configuration and what it has learnt.

    Raises:
        UserError: There is no model, or its `config.json` is damaged.
    """
    path = os.path.join(model_dir, "config.json")
    try:
        text = read_bytes(path).decode()
        problem = json.loads(text)["problem"]
        names = {key: tuple(map(str, problem[key])) for key in ("text_columns", "label_names")}
        return Config.from_json(text), Problem(problem["problem_type"], **names)
    except OSError as error:
        raise UserError(
            f"{model_dir} holds no model: {path}: {error.strerror}. Give the --model_dir of an "
            "earlier run, or train one with --do_train (and --overwrite, if checkpoints are there)."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path} is damaged: {error!r}. Train again with --overwrite.") from None


def resume_config(config: Config, said: Collection[str]) -> tuple[Config, Problem]:
    """Completes a run without training by what its model was trained with.

    Args:
        config: The run; what it does not say is taken from the model directory.
        said: The names of the flags that were given. If a source of data is among them, those of
            the training do not count.

    Returns:
        The whole configuration, and what the model has learnt.

    Raises:
        UserError: There is no model, or a flag contradicts it.
    """
    directory = config.runtime.model_dir or ""
    earlier, problem = load_run(directory)
    if "head" not in said:
        check_head("model_dir", directory, earlier)
    lines = _differences(earlier, config, ("model", "train"), said)
    for name, value in (
        ("label_names", problem.label_names),
        ("problem_type", problem.problem_type),
        ("class_weights", earlier.data.class_weights),
    ):
        now = getattr(config.data, name)
        if name in said and now != value:
            lines.append(f"  --{name}: {value!r} there, {now!r} now")
    if lines:
        raise UserError(
            "\n".join([f"--model_dir={directory} holds a model that was made otherwise:", *lines])
            + "\nLeave these flags out, or train anew with --do_train."
        )
    # The weights come from the directory's own checkpoint.
    model = dataclasses.replace(earlier.model, init_from=None)
    taken = set(said) | (SOURCES if SOURCES & set(said) else set())
    return dataclasses.replace(
        earlier,
        data=_with(earlier.data, config.data, taken),
        model=_with(model, config.model, taken),
        runtime=config.runtime,
    ), problem


def check_head(flag: str, directory: str, earlier: Config) -> None:
    """Refuses a head of the user's own that only the record of an earlier run asks for.

    Raises:
        UserError: It is one: to load it runs its module.
    """
    if ":" in earlier.model.head:
        raise UserError(
            f"--{flag}={directory} was trained with --head={earlier.model.head}. That is code, "
            "which a file cannot ask for: if you trust it, say it again, with the same --head."
        )


def _with(earlier: Any, now: Any, names: Collection[str]) -> Any:
    """Returns a section of an earlier configuration with some settings of today's."""
    chosen = {field.name for field in dataclasses.fields(earlier)} & set(names)
    return dataclasses.replace(earlier, **{name: getattr(now, name) for name in chosen})


def save_metrics(model_dir: str, parts: dict[str, Any]) -> None:
    """Adds parts (`train`, `eval`, `test`) to metrics.json, and the versions that made them."""
    path = os.path.join(model_dir, "metrics.json")
    try:
        metrics = dict(json.loads(read_bytes(path))) if exists(path) else {}
    except (ValueError, TypeError):
        print(f"warning: {path} is damaged; it is written anew.", file=sys.stderr)
        metrics = {}
    packages = ("tensorflow", "tensorflow-text", "keras", "keras-hub", "tf-models-official")
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions |= {"tf_finetune": __version__, "python": platform.python_version()}
    metrics = {**metrics, **parts, "versions": versions}
    write_text_atomic(path, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
