"""Searches the flags of a run: seeds, grids, or Optuna's samplers, with runs of their own.

    python -m tf_finetune sweep run_classifier --flagfile=configs/cola.cfg --data_dir=data \
        --search=learning_rate=1e-5..5e-4:log,pooling=mean,pooled --trials=12 --sweep_dir=out/sweep

Every other flag is given to each run. The same command goes on with a sweep that was stopped or
killed; several at once, also on machines that share the folder, work on one. The best run by
validation score is left as `best.cfg`, an ordinary flagfile; all runs as `compare.html`.
"""

import argparse
import importlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.experiments.compare import write_comparison
from tf_finetune.experiments.estimate import CONFIGS
from tf_finetune.experiments.hparams import write_hparams
from tf_finetune.experiments.outcomes import VALIDATION, metric_of, read_outcome
from tf_finetune.experiments.run_table import compare_runs, less_is_better
from tf_finetune.experiments.search_space import Range, Space, parse_space, points
from tf_finetune.experiments.study import PRUNERS, SAMPLERS, Plan, Study
from tf_finetune.experiments.trial import Stopped, run_trial
from tf_finetune.files import write_text_atomic
from tf_finetune.process import own_environment, set_up_process
from tf_finetune.runs.flags import parse_flags
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.paths import expand_path
from tf_finetune.runs.settings import values_of

_TRIALS = 12
# What a sweep sets, and what a flagfile of the best is without.
_OWN = ("model_dir", "tokenized_cache_dir", "do_report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sweep.

    Args:
        arguments: The program, the sweep's flags and those of the runs; None: the process' own.

    Returns:
        The exit status: 0; 2 for flags or data that are wrong; 130 if it was interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    given, flags = parser.parse_known_args(arguments)
    set_up_process()
    try:
        if importlib.util.find_spec("optuna") is None:
            raise UserError("optuna is not installed: pip install 'tf-finetune[sweep]'")
        sweep = _Sweep(given, flags)
        others = [
            subprocess.Popen(
                [sys.executable, "-m", "tf_finetune", "sweep", *arguments, "--worker"],
                env=own_environment(),
            )
            for _ in range(given.workers - 1 if not given.worker else 0)
        ]
        try:
            sweep.work()
        except BaseException:
            for other in others:
                other.terminate()
            raise
        finally:
            for other in others:
                other.wait()
        if not given.worker:
            sweep.sum_up()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("program", choices=CONFIGS)
    parser.add_argument(
        "--search",
        action="append",
        required=True,
        help="flags and their values, a,b,c, or a range, low..high, :log or :<step>",
    )
    parser.add_argument("--sweep_dir", required=True, help="folder of the sweep and its runs")
    parser.add_argument(
        "--trials", type=int, help=f"runs in all; default {_TRIALS}, of a grid its points"
    )
    parser.add_argument("--sampler", choices=SAMPLERS, default="tpe")
    parser.add_argument(
        "--pruner",
        choices=PRUNERS,
        default="median",
        help="median: stop a run whose score is below the median of the others at its evaluation",
    )
    parser.add_argument("--minutes", type=float, help="begin nothing more and stop after so many")
    parser.add_argument("--workers", type=int, default=1, help="runs side by side on this machine")
    parser.add_argument("--storage", help="URL of Optuna's storage; default: sweep.db there")
    parser.add_argument("--sampler_seed", type=int, default=0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser


class _Sweep:
    def __init__(self, given: argparse.Namespace, flags: Sequence[str]) -> None:
        self._folder = Path(expand_path(given.sweep_dir, "--sweep_dir"))
        self._end = time.monotonic() + 60 * given.minutes if given.minutes else None
        module = importlib.import_module(CONFIGS[given.program])
        space = parse_space(given.search, module.Config)
        self._flags = [*flags, "--do_train", "--do_eval", "--do_report=false"]
        config = _checked(module.Config, given.program, self._flags, space)
        if config.run.model_dir:
            raise UserError("--model_dir: a sweep has --sweep_dir; its runs are folders in it.")
        if config.data.tokenized_cache_dir is None:
            self._flags.append(f"--tokenized_cache_dir={self._folder}/tokens")
        generator = given.program == "run_generator"
        metric = config.loop.metric_for_best_model or ("loss" if generator else None)
        less = metric is not None and less_is_better(f"{VALIDATION}_{metric}")
        self._plan = Plan(
            *(given.program, flags, given.search, given.sampler, metric, less, given.pruner)
        )
        self._names = list(space)
        self._most = given.trials or (len(points(space)) if given.sampler == "grid" else _TRIALS)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._study = Study(self._folder, given.storage, self._plan, space, given.sampler_seed)
        if given.sampler != "grid":
            # A sweep should not end below what it began with.
            self._study.begin_with(_usual(config, space))

    def work(self) -> None:
        """Works on trials until there is none left, or no time."""
        while not self._is_over():
            taken = self._study.take(self._most)
            if taken is None:
                return
            trial, lock = taken
            try:
                self._try(trial)
            finally:
                os.close(lock)

    def sum_up(self) -> None:
        """Leaves the best flagfile and the comparison, and prints it."""
        counts, numbers = self._study.counts(), self._study.complete()
        print(
            f"{counts['complete']} runs, {counts['pruned']} stopped early, {counts['fail']} failed"
        )
        if not numbers:
            raise UserError(f"no run of {self._folder} has a validation score.")
        table = compare_runs([read_outcome(self._model_dir(number)) for number in numbers], None)
        write_comparison(table, str(self._folder))
        best = self._model_dir(numbers[0])
        lines = Path(best.path, "train.cfg").read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines[1:] if line.partition("=")[0].lstrip("-") not in _OWN]
        path = self._folder / "best.cfg"
        head = f"# The best run of {self._folder} by validation: {best}"
        write_text_atomic(str(path), "\n".join([head, *kept]) + "\n")
        command = f"python {self._plan.program}.py --flagfile={path} --model_dir=<new>"
        print(f"best flags {path}\n  {command}")

    def _try(self, trial: Any) -> None:
        model_dir, began = self._model_dir(trial.number), time.monotonic()
        chosen = {name: _text(trial.params[name]) for name in self._names}
        flags = [*self._flags, *(f"--{name}={value}" for name, value in chosen.items())]
        flags.append(f"--model_dir={model_dir}")
        told = " ".join(f"{name}={value}" for name, value in chosen.items())
        evaluations = 0

        def follow(point: Mapping[str, Any]) -> bool:
            nonlocal evaluations
            if point.get("split") != "validation":
                return self._is_over()
            evaluations += 1
            trial.report(self._score(model_dir, point), evaluations)
            return self._is_over() or trial.should_prune()

        title = f"trial {trial.number:>3}"
        try:
            run_trial(self._plan.program, flags, model_dir, follow)
            outcome = read_outcome(model_dir)
            value = self._score(model_dir, outcome.scores[VALIDATION])
        except Stopped:
            if self._is_over():
                return  # It is not told to the study: the same command goes on with it.
            self._study.tell(trial, None, pruned=True)
            print(f"{title}  stopped after {evaluations} evaluations  {told}", flush=True)
        except UserError as error:
            self._study.tell(trial, None)
            print(f"{title}  failed  {told}: {error} ({model_dir}/run.txt)", flush=True)
            if not self._study.complete():
                raise
        else:
            self._study.tell(trial, value)
            write_hparams(model_dir.path, chosen, self._metric(model_dir), value)
            seconds = time.monotonic() - began
            print(
                f"{title}  {self._metric(model_dir)} {value:.4f}  {told}  {seconds:.0f} s",
                flush=True,
            )

    def _score(self, model_dir: ModelDir, scores: Mapping[str, Any]) -> float:
        name = self._metric(model_dir)
        if not isinstance(scores.get(name), int | float):
            raise UserError(
                f"{model_dir}: no validation score {name}. Give rows to choose by: "
                "--validation_file or --validation_fraction."
            )
        return float(scores[name])

    def _metric(self, model_dir: ModelDir) -> str:
        return self._plan.metric or metric_of(model_dir)

    def _model_dir(self, number: int) -> ModelDir:
        return ModelDir(str(self._folder / f"trial-{number:03d}"))

    def _is_over(self) -> bool:
        return self._end is not None and time.monotonic() > self._end


def _checked(config_class: Any, program: str, flags: Sequence[str], space: Space) -> Any:
    """Parses the flags of every value alone, so that a wrong one is found before a run."""
    parsed = parse_flags(config_class, [program, *flags])
    if parsed is None:
        raise UserError(f"--help: python -m tf_finetune {program} --help")
    for name, part in space.items():
        values = (part.low, part.high) if isinstance(part, Range) else part
        for value in values:
            parse_flags(config_class, [program, *flags, f"--{name}={value}"])
    return parsed[0]


def _usual(config: Any, space: Space) -> dict[str, Any]:
    """Returns the values that the runs have without a search, as far as they are searched."""
    known = values_of(config)
    found: dict[str, Any] = {}
    for name, part in space.items():
        value = known[name]
        if isinstance(part, Range):
            if isinstance(value, int | float) and part.low <= value <= part.high:
                found[name] = value
        elif _text(value) in part:
            found[name] = _text(value)
    return found


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
