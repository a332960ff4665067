"""The workers of one cluster, as processes of this machine."""

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def free_ports(count: int) -> list[int]:
    """Returns ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def start_workers(commands: Sequence[Sequence[str]]) -> list["subprocess.Popen[str]"]:
    """Starts a command for each worker, all of one cluster; one alone is in none."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(len(commands))]}
    processes = []
    for index, command in enumerate(commands):
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
        }
        if len(commands) > 1:
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
        processes.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def last_lines(processes: Sequence["subprocess.Popen[str]"]) -> list[str]:
    """Returns the last line that each process prints; ends this one if one of them fails."""
    lines = []
    for process in processes:
        output, error = process.communicate()
        if process.returncode:
            raise SystemExit(error[-3000:])
        lines.append(output.splitlines()[-1])
    return lines
