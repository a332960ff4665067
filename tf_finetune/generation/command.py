"""Fine-tunes a language model, evaluates it, answers with it, exports it, talks."""

import sys
from collections.abc import Callable, Sequence

from tf_finetune.generation.config import Config
from tf_finetune.generation.prepare import Request, prepare
from tf_finetune.runs.command import Command


def load_run() -> Callable[[Request], int]:
    """Imports TensorFlow."""
    from tf_finetune.generation.run import run

    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tunes a language model, evaluates it, answers with it, exports it, talks.

    Args:
        argv: The program's name and its arguments; None: the process' own.

    Returns:
        The exit status.
    """
    return Command(Config, prepare, load_run).main(sys.argv if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
