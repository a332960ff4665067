"""The frame of every program's run: flags, the lock, exit statuses."""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.process import set_up_process, uncollected_imports
from tf_finetune.runs.cluster import read_cluster
from tf_finetune.runs.flags import help_text, parse_flags
from tf_finetune.runs.lock import locked
from tf_finetune.runs.model_dir import ModelDir
from tf_finetune.runs.report import estimate_run, start_report


@dataclass(frozen=True)
class Command:
    """A program that makes or uses a model.

    Attributes:
        config_class: Its settings; the sections `run`, `runtime` and `report` are among them.
        prepare: Takes the configuration and the names of the explicit flags. Checks the request and
            reads the data, before TensorFlow is imported, and returns both.
        load_run: Imports TensorFlow and returns the function that does the work: it takes the
            result of `prepare` and returns the exit status.
    """

    config_class: Any
    prepare: Callable[[Any, Collection[str]], Any]
    load_run: Callable[[], Callable[[Any], int]]

    def main(self, argv: Sequence[str]) -> int:
        """Runs the program by its flags and returns the exit status (2: bad flags or bad data)."""
        set_up_process()
        try:
            parsed = parse_flags(self.config_class, argv)
            if parsed is None:
                print(help_text(self.config_class, self.config_class.program))
                return 0
            config, given = parsed
            if config.report.estimate:
                return estimate_run(self.config_class.program, argv[1:])
            cluster = read_cluster(config.runtime)
            # Only the chief writes, so only the chief takes the lock.
            writes = config.run.model_dir and cluster.is_chief
            with locked(ModelDir(config.run.model_dir)) if writes else nullcontext():
                prepared = self.prepare(config, given)
                with uncollected_imports(freeze=True):  # TensorFlow, after all checks.
                    run = self.load_run()
                status = run(prepared)
            if status == 0 and writes and config.run.do_eval and config.report.do_report:
                start_report(config.run.model_dir, config.report.slice_columns)
            return status
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except (UserError, OSError) as error:  # OSError: a full disk, a missing permission.
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
