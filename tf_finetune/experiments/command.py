"""The frame of the commands that read runs: how they end."""

import sys
from collections.abc import Callable

from tf_finetune.errors import UserError
from tf_finetune.process import set_up_process


def exit_status(work: Callable[[], None]) -> int:
    """Does a command's work, and returns the exit status: 0, 2 after an error, 130 after Ctrl-C."""
    set_up_process()
    try:
        work()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
