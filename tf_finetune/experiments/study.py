"""The trials of a sweep, kept by Optuna in a storage that processes and machines share."""

import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.experiments.search_space import Range, Space, points
from tf_finetune.runs.lock import take_lock

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "none")
# Of so many trials nothing is concluded yet.
_FIRST_TRIALS = 4
_PLAN = "plan"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Plan:
    """What a sweep does.

    Attributes:
        program: `run_classifier` or `run_generator`.
        flags: Those of every trial.
        search: The values of `--search`.
        sampler: One of `SAMPLERS`.
        metric: The validation score that counts; None: that of the data.
        minimize: Whether less of it is better.
        pruner: One of `PRUNERS`.
    """

    program: str
    flags: Sequence[str]
    search: Sequence[str]
    sampler: str
    metric: str | None
    minimize: bool
    pruner: str


class Study:
    """A sweep's trials."""

    def __init__(self, folder: Path, storage: str | None, plan: Plan, space: Space, seed: int):
        """Opens the study of a folder, or begins one.

        Args:
            folder: The sweep's.
            storage: URL of a database; None: an SQLite file in the folder.
            plan: What the sweep does.
            space: What it searches.
            seed: Of the sampler.

        Raises:
            UserError: The storage holds another sweep.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        # A run that goes on tells the evaluations of before again.
        warnings.filterwarnings("ignore", "The reported value is ignored", UserWarning)
        self._folder = folder
        self._distributions = {name: _distribution(part) for name, part in space.items()}
        with self._alone():
            self._study = optuna.create_study(
                storage=storage or f"sqlite:///{folder}/sweep.db",
                study_name="sweep",
                direction="minimize" if plan.minimize else "maximize",
                load_if_exists=True,
            )
            self._check(plan)
            # Workers that draw at once draw different numbers.
            drawn = seed + len(self._study.trials)
            if plan.sampler == "random":
                self._study.sampler = optuna.samplers.RandomSampler(drawn)
            else:
                self._study.sampler = optuna.samplers.TPESampler(
                    seed=drawn,
                    n_startup_trials=_FIRST_TRIALS,
                    multivariate=True,
                    constant_liar=True,
                )
            self._study.pruner = (
                optuna.pruners.MedianPruner(n_startup_trials=_FIRST_TRIALS)
                if plan.pruner == "median"
                else optuna.pruners.NopPruner()
            )
            if plan.sampler == "grid":
                for point in points(space):
                    self._study.enqueue_trial(point, skip_if_exists=True)

    def begin_with(self, values: Mapping[str, Any]) -> None:
        """Tries some values first, if no trial has begun."""
        with self._alone():
            if not self._study.trials:
                self._study.enqueue_trial(dict(values))

    def take(self, most: int) -> tuple[Any, int] | None:
        """Takes a trial: one whose worker was killed, else a new one.

        Args:
            most: So many trials may begin.

        Returns:
            Optuna's trial, and a lock that is held while it is worked on; None: there is none left.
        """
        from optuna.trial import Trial, TrialState

        with self._alone():
            trials = self._study.get_trials(deepcopy=False)
            for trial in trials:
                path = self._lock(trial.number)
                if trial.state is TrialState.RUNNING and path.exists():
                    lock = take_lock(path)
                    if lock is not None:
                        return Trial(self._study, trial._trial_id), lock
            if sum(trial.state is not TrialState.WAITING for trial in trials) >= most:
                return None
            new = self._study.ask(self._distributions)
            lock = take_lock(self._lock(new.number))
            assert lock is not None
            return new, lock

    def tell(self, trial: Any, value: float | None, pruned: bool = False) -> None:
        """Ends a trial with its score; None: it has failed, or was pruned."""
        from optuna.trial import TrialState

        state = TrialState.PRUNED if pruned else TrialState.FAIL
        if value is not None:
            state = TrialState.COMPLETE
        self._study.tell(trial, value, state)

    def complete(self) -> list[int]:
        """Returns the numbers of the trials that have a score, the best first."""
        from optuna.study import StudyDirection
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = 1 if self._study.direction is StudyDirection.MINIMIZE else -1
        # A complete trial of one score has a value.
        ordered = sorted(trials, key=lambda trial: sign * (trial.value or 0.0))
        return [trial.number for trial in ordered]

    def counts(self) -> dict[str, int]:
        """Returns how many trials have a score, were pruned, have failed."""
        found = [trial.state.name.lower() for trial in self._study.get_trials(deepcopy=False)]
        return {name: found.count(name) for name in ("complete", "pruned", "fail")}

    def _check(self, plan: Plan) -> None:
        """Refuses another sweep than that of the storage."""
        ours = json.loads(json.dumps(vars(plan)))
        theirs = self._study.user_attrs.get(_PLAN)
        if theirs is None:
            self._study.set_user_attr(_PLAN, ours)
            return
        for name, value in ours.items():
            if value != theirs.get(name):
                raise UserError(
                    f"{self._folder} holds another sweep: {name} is {theirs.get(name)!r} there, "
                    f"{value!r} now. Give the same flags to go on, or another --sweep_dir."
                )

    def _lock(self, number: int) -> Path:
        return self._folder / f".trial-{number:03d}.lock"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps the other workers of this folder out of what must be done at once."""
        while (lock := take_lock(self._folder / ".sweep.lock")) is None:
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            os.close(lock)


def _distribution(part: Range | tuple[str, ...]) -> Any:
    from optuna import distributions as kinds

    if not isinstance(part, Range):
        return kinds.CategoricalDistribution(part)
    if part.whole:
        step = 1 if part.step is None else int(part.step)
        return kinds.IntDistribution(int(part.low), int(part.high), log=part.log, step=step)
    return kinds.FloatDistribution(part.low, part.high, log=part.log, step=part.step)
