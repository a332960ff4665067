"""What every request passes: its id, its key, and the page that it comes from."""

import hashlib
import hmac
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from tf_finetune.errors import UserError
from tf_finetune.files import read_bytes
from tf_finetune.server.failures import answer

Message = MutableMapping[str, Any]
_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def read_keys(path: str) -> list[bytes]:
    """Returns the SHA-256 digests of the keys in a file.

    Raises:
        UserError: It cannot be read, or holds no key.
    """
    try:
        lines = read_bytes(path).decode().split()
    except (OSError, ValueError) as error:
        raise UserError(f"--api_keys_file={path}: cannot be read: {error}.") from None
    if not lines:
        raise UserError(f"--api_keys_file={path}: no key in it. Write one long random key a line.")
    return [_digest_of_line(line) for line in lines]


class Gate:
    """ASGI middleware: gives each request an id, and refuses those that may not be answered.

    Without keys only pages and programs of this machine are answered: a browser's request from
    another site names that site as its origin, and one through a rebound name names it as the host.

    Args:
        app: What answers.
        keys: The digests of the keys that clients may have; None: none are asked for.
    """

    def __init__(self, app: Any, keys: Sequence[bytes] | None) -> None:
        self._app, self._keys = app, keys

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answers a request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = f"req_{uuid.uuid4().hex}"

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = name
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope["path"])
        await (refusal or self._app)(scope, receive, named)

    def _refusal(self, headers: Headers, path: str) -> Any:
        if self._keys is None:
            return _from_elsewhere(headers)
        if not path.startswith("/v1"):
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        # All are compared, so that the time says nothing.
        known = [hmac.compare_digest(digest, other) for other in self._keys]
        if scheme.lower() == "bearer" and any(known):
            return None
        message = "Incorrect API key. Give one of this server's keys: Authorization: Bearer <key>."
        return answer(401, message, code="invalid_api_key")


def _from_elsewhere(headers: Headers) -> Any:
    host, origin = headers.get("host", ""), headers.get("origin")
    if _host_name(f"//{host}") not in _LOCAL_NAMES:
        return answer(403, f"The host {host!r:.80} is not this machine's own name.")
    if origin and origin not in (f"http://{host}", f"https://{host}"):
        return answer(403, "Requests of other sites' pages are not answered.")
    return None


def _host_name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _digest_of_line(line: str) -> bytes:
    hashed = _HASHED.fullmatch(line)
    return bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(line.encode()).digest()
