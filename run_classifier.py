"""Fine-tune a text classifier: `python run_classifier.py --flagfile=configs/quickstart.cfg`."""

import os
import sys

from tf_finetune.errors import UserError
from tf_finetune.flags import help_text, parse_flags


def main(argv: list[str]) -> int:
    """Runs what the flags ask for and returns the exit status (2: bad flags or bad data)."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # TensorFlow calls it an error that a machine has no GPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        config = parse_flags(argv)
        if config is None:
            print(help_text())
            return 0
        from tf_finetune.prepare import prepare

        config, data = prepare(config)
        from tf_finetune.run import run  # Imports TensorFlow: only once all else is right.

        return run(config, data)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv))
