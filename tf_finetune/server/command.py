"""Serves OpenAI's fine-tuning API on this machine."""

import socket
import sys
from collections.abc import Sequence
from typing import Any

from tf_finetune.errors import UserError
from tf_finetune.process import set_up_process
from tf_finetune.runs.flags import help_text, parse_flags
from tf_finetune.server.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGINT or SIGTERM; trainings save then, and go on when it is started again.

    Args:
        argv: The program's name and its arguments; None: the process' own.

    Returns:
        The exit status: 0, or 2 for bad flags and an address that is taken.
    """
    set_up_process()
    try:
        parsed = parse_flags(Config, sys.argv if argv is None else argv)
        if parsed is None:
            print(help_text(Config, Config.program))
            return 0
        config = parsed[0].server
        uvicorn, create_app = _load()
        app = create_app(config)
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        listener = socket.create_server((config.host, config.port), family=family, backlog=1024)
        # A kept connection would wait 40 ms for each answer: asyncio sets it only on sockets whose
        # protocol is named.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    host = f"[{config.host}]" if ":" in config.host else config.host
    print(f"listening on http://{host}:{listener.getsockname()[1]}/v1", flush=True)
    settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    uvicorn.Server(settings).run(sockets=[listener])
    return 0


def _load() -> tuple[Any, Any]:
    """Imports what serves, which is an extra of the package."""
    try:
        import uvicorn

        from tf_finetune.server.app import create_app
    except ModuleNotFoundError as error:
        raise UserError(
            f"the server needs {error.name}, which is not installed: pip install '.[server]'."
        ) from None
    return uvicorn, create_app


if __name__ == "__main__":
    sys.exit(main())
