"""What every request passes: its id, its key, the page that it comes from, its client's limits."""

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
from tf_finetune.server.limits import Limits

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
        limits: What a client may ask of `/v1`: one key, or without keys one address.
    """

    def __init__(self, app: Any, keys: Sequence[bytes] | None, limits: Limits) -> None:
        self._app, self._keys, self._limits = app, keys, limits

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
        more = {"x-request-id": f"req_{uuid.uuid4().hex}"}

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(more)
            await send(message)

        headers, is_page = Headers(scope=scope), not scope["path"].startswith("/v1")
        refusal = self._refusal(headers, is_page)
        if refusal or is_page:
            await (refusal or self._app)(scope, receive, named)
            return
        client = scope["client"][0] if self._keys is None else _digest_of_key(headers).hex()
        verdict = self._limits.begin(client)
        more |= verdict.headers
        if verdict.refusal:
            await answer(429, verdict.refusal)(scope, receive, named)
            return
        try:
            await self._app(scope, receive, named)
        finally:
            self._limits.end(client)

    def _refusal(self, headers: Headers, is_page: bool) -> Any:
        if self._keys is None:
            return _from_elsewhere(headers)
        if is_page:
            return None
        digest = _digest_of_key(headers)
        # All are compared, so that the time says nothing.
        known = [hmac.compare_digest(digest, other) for other in self._keys]
        if any(known):
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


def _digest_of_key(headers: Headers) -> bytes:
    """Returns the digest of the request's key; without one that of nothing, which is no key."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return hashlib.sha256(key.strip().encode() if scheme.lower() == "bearer" else b"").digest()


def _digest_of_line(line: str) -> bytes:
    hashed = _HASHED.fullmatch(line)
    return bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(line.encode()).digest()
