"""One run, read from its model directory."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tf_finetune.classification.config import Config
from tf_finetune.classification.record import problem_from_record
from tf_finetune.data.labelled import Examples, load_data
from tf_finetune.data.layout import open_splits
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.experiments.judged import Judged
from tf_finetune.files import exists, read_bytes
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import report_files

EVALUATE = "--do_eval"


@dataclass(frozen=True)
class EvaluatedRows:
    """The labelled rows of a run's last evaluation.

    Attributes:
        split: Where they are from.
        texts: By column.
        judged: What the model said of them.
        locations: Where each stands; empty if that was not written.
    """

    split: str
    texts: tuple[Sequence[str], ...]
    judged: Judged
    locations: Sequence[str] = ()


@dataclass(frozen=True)
class ClassifierRun:
    """All that is known of a classifier's run.

    Attributes:
        model_dir: Its folder.
        config: Its configuration.
        problem: What it has learnt.
        metrics: Its results.
        log: The points of its training.
        facts: What is known of its data; None: that was not written.
        rows: The rows that it was evaluated on; None: there are none.
        train: Its training rows; None: they cannot be read any more.
        missing: What is not there, and how to get it.
    """

    model_dir: ModelDir
    config: Config
    problem: Problem
    metrics: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any] | None
    rows: EvaluatedRows | None
    train: Examples | None
    missing: Sequence[str] = field(default_factory=list)


def is_generator(model_dir: ModelDir) -> bool:
    """Whether a folder holds a run of a generator.

    Raises:
        UserError: It holds no run.
    """
    try:
        record = json.loads(read_bytes(model_dir.config))
        return "decoder" in record
    except OSError as error:
        raise UserError(
            f"{model_dir} holds no run: {model_dir.config}: {error.strerror}. Give the --model_dir "
            "of one."
        ) from None
    except ValueError as error:
        raise model_dir.damaged(error) from None


def read_log(model_dir: ModelDir) -> list[dict[str, Any]]:
    """Returns the points of a training, but for a line that a killed process left incomplete."""
    points = []
    for line in read_bytes(model_dir.log).splitlines() if exists(model_dir.log) else ():
        try:
            point = json.loads(line)
        except ValueError:
            continue
        if isinstance(point, dict) and isinstance(point.get("step"), int):
            points.append(point)
    return points


def read_lines(path: str) -> list[dict[str, Any]]:
    """Returns the objects of a file of JSON lines; without the file there are none.

    Raises:
        UserError: It is damaged.
    """
    if not exists(path):
        return []
    try:
        return [json.loads(line) for line in read_bytes(path).splitlines() if line.strip()]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. Evaluate again: {EVALUATE}.") from None


def read_facts(model_dir: ModelDir) -> dict[str, Any] | None:
    """Returns what is known of a run's data; None: that was not written, or is damaged."""
    try:
        return dict(json.loads(read_bytes(report_files(model_dir).facts)))
    except (OSError, ValueError, TypeError):
        return None


def read_classifier_run(model_dir: ModelDir) -> ClassifierRun:
    """Reads a classifier's run, as far as it is there.

    Raises:
        UserError: There is no run, or a file of it is damaged.
    """
    config, learnt = model_dir.load(Config)
    problem = problem_from_record(model_dir, config, learnt)
    missing: list[str] = []
    again = f"python run_classifier.py --model_dir={model_dir}"
    rows = read_evaluated_rows(model_dir, problem)
    if rows is None:
        missing.append(
            "No predictions for labelled rows are here, so nothing is said of errors. "
            f"{again} {EVALUATE} writes them."
        )
    log = read_log(model_dir)
    if not log:
        missing.append("There is no log of the training, so there are no curves.")
    facts = read_facts(model_dir)
    train = _read_train(config, problem, missing)
    return ClassifierRun(
        model_dir, config, problem, model_dir.load_metrics(), log, facts, rows, train, missing
    )


def read_columns(run: ClassifierRun, names: Sequence[str]) -> dict[str, list[Any]]:
    """Returns the values of columns of the files in the rows that were evaluated.

    Args:
        run: The run.
        names: The columns.

    Raises:
        UserError: There is no such column, or the rows are not those of the run's files.
    """
    assert run.rows
    _, tables, _ = open_splits(run.config.data, run.config.labels)
    wanted = set(run.rows.locations)
    found = {
        location: row
        for some in tables.values()
        for table in some
        for location, row in table()
        if location in wanted
    }
    if not wanted or len(found) < len(wanted):
        raise UserError(
            "--slice_columns: the evaluated rows do not stand in the files of the training. "
            f"Evaluate again with the same files: {EVALUATE}."
        )
    known = {name for row in found.values() for name in row}
    for name in names:
        if name not in known:
            raise UserError(
                f"--slice_columns={name}: no such column. There are {', '.join(sorted(known))}."
            )
    return {name: [found[place].get(name) for place in run.rows.locations] for name in names}


def read_evaluated_rows(model_dir: ModelDir, problem: Problem) -> EvaluatedRows | None:
    """Reads the labelled rows of a run's last evaluation; None: there are none.

    Raises:
        UserError: They are not of this model, or hold a number that is none.
    """
    path = report_files(model_dir).evaluated
    records = read_lines(path) or read_lines(model_dir.predictions_jsonl)
    records = [record for record in records if record.get("label") is not None]
    if not records:
        return None
    try:
        texts = tuple([str(r["texts"][name]) for r in records] for name in problem.text_columns)
        truth, said = (
            _encoded([r[key] for r in records], problem) for key in ("label", "prediction")
        )
        shares = None
        if problem.problem_type != "regression":
            shares = np.array(
                [[r["probabilities"][name] for name in problem.label_names] for r in records],
                np.float64,
            )
        locations = [record["location"] for record in records if "location" in record]
        split = str(records[0].get("split", "test"))
    except (LookupError, TypeError, ValueError):
        raise UserError(
            f"{path}: not the predictions of this model. Evaluate again: {EVALUATE}."
        ) from None
    outputs = said if shares is None else shares
    finite = np.isfinite(outputs).reshape(len(records), -1).all(axis=1)
    if not finite.all():
        raise UserError(
            f"{path}: row {int(finite.argmin()) + 1} has a number that is none: the model has "
            f"diverged. Train again with a lower --learning_rate, and {EVALUATE}."
        )
    complete = locations if len(locations) == len(records) else []
    judged = Judged(problem.problem_type, truth, said, shares)
    return EvaluatedRows(split, texts, judged, complete)


def _encoded(labels: Sequence[Any], problem: Problem) -> np.ndarray:
    """Returns labels by name, or numbers, as `Judged` has them; a KeyError: another model's."""
    if problem.problem_type == "regression":
        return np.array(labels, np.float64)
    places = {name: place for place, name in enumerate(problem.label_names)}
    if problem.problem_type == "single_label":
        return np.array([places[label] for label in labels], np.int64)
    hot = np.zeros((len(labels), problem.num_outputs), bool)
    for row, names in enumerate(labels):
        hot[row, [places[name] for name in names]] = True
    return hot


def _read_train(config: Config, problem: Problem, missing: list[str]) -> Examples | None:
    """Reads the training rows again; None, with the reason, if they are not as they were."""
    try:
        labels = dataclasses.replace(config.labels, unlabelled_file=None)
        data = load_data(config.data, labels)
    except (UserError, OSError) as error:
        missing.append(
            f"The training rows cannot be read any more, so nothing is compared: {error}"
        )
        return None
    if (data.problem.label_names, data.problem.problem_type) != (
        problem.label_names,
        problem.problem_type,
    ):
        missing.append("The training files have changed: they have other labels than the model.")
        return None
    if data.stream is not None:
        missing.append("The training rows are streamed: what is compared has seen a sample.")
    return data.train
