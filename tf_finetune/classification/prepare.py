"""Checks the request, and reads and checks its data, before TensorFlow is imported."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from tf_finetune.classification.calibrate import check_tuning
from tf_finetune.classification.complete import as_begun, complete
from tf_finetune.classification.config import Config, EncoderConfig
from tf_finetune.classification.record import (
    problem_differences,
    problem_from_record,
)
from tf_finetune.classification.teacher import Teacher, find_teacher
from tf_finetune.data.facts import describe
from tf_finetune.data.facts_file import write_facts
from tf_finetune.data.labelled import Examples, TextData, load_data
from tf_finetune.data.problem import known_labels
from tf_finetune.data.report import data_report
from tf_finetune.errors import UserError
from tf_finetune.runs.cluster import read_cluster
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.settings import auto_names, replaced


@dataclass(frozen=True)
class Request:
    """A run that was checked.

    Attributes:
        config: Its configuration; without training, completed from the model directory.
        model_dir: Its folder.
        data: Its examples.
        facts: From `describe`; empty on workers that are not the chief.
        teacher: Whose answers are learnt; None: nobody's.
        auto: The settings whose values the training chooses.
    """

    config: Config
    model_dir: ModelDir
    data: TextData
    facts: dict[str, Any]
    teacher: Teacher | None = None
    auto: frozenset[str] = frozenset()


def prepare(config: Config, given: Collection[str]) -> Request:
    """Checks a run's flags against each other and reads its data.

    Args:
        config: The configuration from the flags.
        given: The names of the explicit flags.

    Raises:
        UserError: A flag, the model directory or the data cannot be used.
    """
    if not any(config.run.actions):
        raise UserError(
            "Nothing to do: give one or more of --do_train, --do_eval, --do_predict, --do_export. "
            "See --help."
        )
    if not config.run.model_dir:
        raise UserError("--model_dir is missing: the folder for the model and all results.")
    model_dir = ModelDir(config.run.model_dir)
    cluster = read_cluster(config.runtime)
    if cluster.is_chief:
        model_dir.check_export(config.run)
    config, problem = complete(config, given, model_dir, cluster)
    data = load_data(
        config.data,
        config.labels,
        problem=problem,
        needs_all_rows={
            name: value
            for name in ("class_weights", "long_text")
            if (value := getattr(config.encoder, name)) in ("balanced", "window")
        }
        | ({"teacher": config.distillation.teacher} if config.distillation.teacher else {}),
    )
    _check_data(config, data)
    teacher = find_teacher(config, data.problem)
    auto: frozenset[str] = frozenset()
    if config.run.do_train:
        config = replaced(config, **data.found)
        config, auto = as_begun(config, auto_names(Config).difference(given), model_dir)
        if cluster.is_chief:
            model_dir.check_free(
                config,
                lambda learnt: problem_differences(
                    problem_from_record(model_dir, config, learnt), data.problem
                ),
            )
    facts = describe(data) if cluster.is_chief else {}
    if facts:
        print(data_report(facts), flush=True)
        if config.run.data_report:
            write_facts(config.run.data_report, facts)
    return Request(config, model_dir, data, facts, teacher, auto)


def can_be_evaluated(examples: Examples | None) -> bool:
    """Whether there are examples with a known label."""
    return (
        examples is not None
        and examples.labels is not None
        and bool(known_labels(examples.labels).any())
    )


def _check_data(config: Config, data: TextData) -> None:
    """Checks that the run's actions and settings fit the data."""
    if config.run.do_train and data.problem.problem_type == "regression":
        for flag in ("class_weights", "label_smoothing_factor"):
            value = getattr(config.encoder, flag)
            if value != getattr(EncoderConfig, flag):
                raise UserError(f"--{flag}={value}: a regression has no classes. Leave it out.")
    if config.labels.tune_thresholds:
        check_tuning(data.problem, config.run.do_train, can_be_evaluated(data.validation))
    held_out = [split for split in (data.validation, data.test) if split is not None]
    if config.run.do_eval and not any(map(can_be_evaluated, held_out)):
        raise UserError(
            "--do_eval: no labelled examples to evaluate on. Give --validation_file or a "
            "--test_file with labels, or --validation_fraction."
        )
    if config.run.do_predict and not held_out:
        raise UserError("--do_predict: no examples. Give --test_file or --validation_file.")
    patience = config.loop.early_stopping_patience
    if config.run.do_train and patience and not can_be_evaluated(data.validation):
        raise UserError(
            "--early_stopping_patience needs --validation_file or --validation_fraction."
        )
