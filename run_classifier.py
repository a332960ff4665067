"""Fine-tune a text classifier: `python run_classifier.py --flagfile=configs/quickstart.cfg`."""

import os
import sys

from tf_finetune.classification.prepare import prepare
from tf_finetune.errors import UserError
from tf_finetune.process import set_up_process, uncollected_imports
from tf_finetune.runs.flags import help_text, parse_flags
from tf_finetune.runs.lock import locked


def main(argv: list[str]) -> int:
    """Runs what the flags ask for and returns the exit status (2: bad flags or bad data)."""
    set_up_process()
    try:
        flags = parse_flags(argv)
        if flags is None:
            print(help_text())
            return 0
        with locked(flags[0].runtime):
            config, data = prepare(*flags)
            with uncollected_imports(freeze=True):  # Of TensorFlow: once all else is right.
                from tf_finetune.classification.run import run
            return run(config, data)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (UserError, OSError) as error:  # OSError: a full disk, a missing permission.
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv))
