"""What a run reached, read from its model directory: its flags, scores, cost, and judged rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tf_finetune.classification.config import Config as ClassifierConfig
from tf_finetune.classification.record import problem_from_record
from tf_finetune.data.problem import DEFAULT_METRICS
from tf_finetune.data.tasks import TASKS, Layout
from tf_finetune.errors import UserError
from tf_finetune.experiments.judged import Judged, difference, interval
from tf_finetune.experiments.run_facts import (
    EVALUATE,
    is_generator,
    read_evaluated_rows,
    read_lines,
)
from tf_finetune.generation.answers import Answer
from tf_finetune.generation.comparison import TUNED
from tf_finetune.generation.config import Config as GeneratorConfig
from tf_finetune.generation.scores import score_answers
from tf_finetune.generation.significance import bootstrap_interval, mcnemar, wilson_interval
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import report_files
from tf_finetune.runs.settings import settings

VALIDATION, TEST = "eval", "test"
_SEED = 0


class Rows(Protocol):
    """Rows that a model was evaluated on, with what it said of them."""

    @property
    def split(self) -> str:
        """Where they are from."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """What they are; two models are compared on equal ones."""

    def interval(self, score: str) -> tuple[float, float] | None:
        """Returns the 95 % interval of a score; None: it is not of these rows."""

    def difference(self, other: Any, score: str) -> dict[str, Any]:
        """Returns this score less the other's, with its `interval` and, of shares, `p_value`."""


@dataclass(frozen=True)
class LabelledRows:
    """Those of a classifier."""

    split: str
    identity: tuple[Any, ...]
    judged: Judged

    def interval(self, score: str) -> tuple[float, float] | None:
        """Returns the 95 % interval of a score; None: it is not of these rows."""
        try:
            return interval(self.judged, score, _SEED)
        except KeyError:
            return None

    def difference(self, other: "LabelledRows", score: str) -> dict[str, Any]:
        """Returns this score less the other's, by `judged.difference`."""
        found = difference(self.judged, other.judged, score, _SEED)
        rows = found.pop("mcnemar", None)
        return {**found, **({"p_value": rows["p_value"]} if rows else {})}


@dataclass(frozen=True)
class AnsweredRows:
    """Those of a generator, with the scores of each answer."""

    split: str
    identity: tuple[Any, ...]
    scores: Mapping[str, np.ndarray]

    def interval(self, score: str) -> tuple[float, float] | None:
        """Returns the 95 % interval of a score; None: it is not of these rows."""
        values = self.scores.get(score)
        if values is None:
            return None
        if values.dtype == bool:
            return wilson_interval(int(values.sum()), len(values))
        return bootstrap_interval(values, _SEED)

    def difference(self, other: "AnsweredRows", score: str) -> dict[str, Any]:
        """Returns the mean less the other's, by paired resamples and McNemar's test."""
        ours, theirs = self.scores[score], other.scores[score]
        gained = ours.astype(float) - theirs.astype(float)
        found = {
            "score": score,
            "difference": float(gained.mean()),
            "interval": list(bootstrap_interval(gained, _SEED)),
        }
        if ours.dtype == bool:
            found["p_value"] = mcnemar(theirs, ours)["p_value"]
        return found


@dataclass(frozen=True)
class Outcome:
    """What a run reached.

    Attributes:
        model_dir: Its folder.
        program: What made it.
        settings: The value of every flag that makes a model.
        asked: The score that its training chose the best step by.
        scores: By split (`eval`, `test`) the numbers of its evaluation.
        cost: The numbers of its training.
        rows: The rows of its last evaluation; None: they were not written.
    """

    model_dir: ModelDir
    program: str
    settings: Mapping[str, Any]
    asked: str
    scores: Mapping[str, Mapping[str, float]]
    cost: Mapping[str, float]
    rows: Rows | None


def read_outcome(model_dir: ModelDir) -> Outcome:
    """Reads what a run reached.

    Args:
        model_dir: Its folder.

    Raises:
        UserError: There is no run, it was not evaluated, or a file of it is damaged.
    """
    generator = is_generator(model_dir)
    config: Any
    rows: Rows | None
    if generator:
        config, _ = model_dir.load(GeneratorConfig)
        rows = _answered(model_dir)
    else:
        config, learnt = model_dir.load(ClassifierConfig)
        problem = problem_from_record(model_dir, config, learnt)
        found = read_evaluated_rows(model_dir, problem)
        rows = None
        if found:
            identity = (*found.texts, found.judged.truth.tolist())
            rows = LabelledRows(found.split, identity, found.judged)
    program = "run_generator.py" if generator else "run_classifier.py"
    metrics = model_dir.load_metrics()
    scores = {part: _numbers(metrics.get(part)) for part in (VALIDATION, TEST)}
    answered = (metrics.get("comparison") or {}).get("columns", {}).get(TUNED)
    scores[TEST] |= _numbers(answered)
    if not any(scores.values()):
        raise UserError(
            f"{model_dir} holds a run that was not evaluated. python {program} "
            f"--model_dir={model_dir} {EVALUATE} does it."
        )
    asked, cost = metric_of(model_dir), _numbers(metrics.get("train"))
    return Outcome(model_dir, program, _settings(config), asked, scores, cost, rows)


def metric_of(model_dir: ModelDir) -> str:
    """Returns the validation score by which a run chooses its best step.

    Raises:
        UserError: There is no run, or its record is damaged.
    """
    if is_generator(model_dir):
        generator, _ = model_dir.load(GeneratorConfig)
        return generator.loop.metric_for_best_model or "loss"
    config, learnt = model_dir.load(ClassifierConfig)
    problem = problem_from_record(model_dir, config, learnt)
    layout = TASKS.get(config.labels.task_name or "", Layout())
    return (
        config.loop.metric_for_best_model
        or layout.metric_for_best_model
        or DEFAULT_METRICS[problem.problem_type]
    )


def _numbers(found: Mapping[str, Any] | None) -> dict[str, float]:
    return {
        name: value
        for name, value in (found or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _settings(config: Any) -> dict[str, Any]:
    return {
        field.name: getattr(getattr(config, section), field.name)
        for section, _, field in settings(config)
        if not field.metadata["may_change"]
    }


def _answered(model_dir: ModelDir) -> AnsweredRows | None:
    path = report_files(model_dir).evaluated
    records = read_lines(path)
    if not records:
        return None
    try:
        parts = [record["answers"][TUNED] for record in records]
        answers = [Answer(p["text"], p["tokens"], p["finish_reason"], 0.0) for p in parts]
        references = [str(record["reference"]) for record in records]
        prompts = [record["prompt"] for record in records]
    except (LookupError, TypeError) as error:
        raise UserError(
            f"{path}: not the answers of this model ({error!r}). Evaluate again: {EVALUATE}."
        ) from None
    return AnsweredRows(TEST, (prompts, references), score_answers(answers, references))
