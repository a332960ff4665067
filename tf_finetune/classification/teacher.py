"""The teacher of a run: an earlier run's model, checked before TensorFlow is imported."""

import os.path
from dataclasses import dataclass

from tf_finetune.classification.config import Config
from tf_finetune.classification.record import check_head, problem_from_record
from tf_finetune.data.problem import Problem
from tf_finetune.errors import UserError
from tf_finetune.runs.model_dir import ModelDir

_SHOWN = 9


@dataclass(frozen=True)
class Teacher:
    """A model whose answers are learnt.

    Attributes:
        model_dir: Its folder.
        head: Its head's class, if it is one of the user's own; None: one of ours.
        problem: What the student learns.
        order: Its number of each of the student's logits; empty: of a number.
    """

    model_dir: ModelDir
    head: str | None
    problem: Problem
    order: tuple[int, ...]


def find_teacher(config: Config, problem: Problem) -> Teacher | None:
    """Returns the teacher that a training asks for.

    Args:
        config: The student's configuration.
        problem: What the student learns.

    Raises:
        UserError: There is no model, it has learnt something else, or a flag does not fit.
    """
    name = config.distillation.teacher
    if not config.run.do_train or name is None:
        return None
    if os.path.realpath(name) == os.path.realpath(config.run.model_dir or ""):
        raise UserError(
            f"--teacher={name} is the --model_dir of this run. Give the student a new one."
        )
    model_dir = ModelDir(name)
    try:
        theirs, learnt = model_dir.load(Config)
        known = problem_from_record(model_dir, theirs, learnt)
    except UserError as error:
        raise UserError(f"--teacher={name}: {error}") from None
    is_own = theirs.encoder.has_own_head
    if is_own and theirs.encoder.head != config.encoder.head:
        check_head("teacher", model_dir, theirs.encoder)
    if known.problem_type != problem.problem_type:
        raise UserError(
            f"--teacher={name} has learnt {known.problem_type}; the training data are "
            f"{problem.problem_type}. Give a teacher of the same problem."
        )
    if len(known.text_columns) != len(problem.text_columns):
        raise UserError(
            f"--teacher={name} reads {len(known.text_columns)} texts, "
            f"{', '.join(known.text_columns)}; the training rows have {len(problem.text_columns)}, "
            f"{', '.join(problem.text_columns)}. Give a teacher of as many."
        )
    if set(known.label_names) != set(problem.label_names):
        raise UserError(
            f"--teacher={name} has other labels than the training data:\n"
            f"  {_listed(known, problem)} there\n  {_listed(problem, known)} in the data\n"
            "Train the teacher on the same labels, or give all of them by --label_names."
        )
    default = type(config.distillation)().distillation_temperature
    temperature = config.distillation.distillation_temperature
    if problem.problem_type == "regression" and temperature != default:
        raise UserError(
            f"--distillation_temperature={temperature:g}: a regression has no probabilities. "
            "Leave it out."
        )
    order = tuple(known.label_names.index(label) for label in problem.label_names)
    return Teacher(model_dir, theirs.encoder.head if is_own else None, problem, order)


def _listed(problem: Problem, other: Problem) -> str:
    """Names labels, those first that another problem has not."""
    names = sorted(problem.label_names, key=lambda name: name in other.label_names)
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
