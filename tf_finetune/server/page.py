"""The server's web page: its files from a fixed table, under a strict policy."""

from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

FOLDER = Path(__file__).with_name("page")
MODULES = (
    *("main", "dom", "api", "key", "models", "files", "report", "jobs", "job", "new_job"),
    *("chart", "playground"),
)
_JAVASCRIPT = "text/javascript; charset=utf-8"
# What is served, by its address: no name of a client becomes a path.
ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/page/{name}.js": (f"{name}.js", _JAVASCRIPT) for name in MODULES},
}
# Nothing from elsewhere, nothing inline: what data and models say cannot become a program.
POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "connect", "img")),
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors")),
    ]
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def make_router() -> APIRouter:
    """Makes the addresses of the page, which need no key: what it shows comes from the API."""
    router = APIRouter(include_in_schema=False)
    for address, (name, kind) in ASSETS.items():
        router.add_api_route(address, _sender(name, kind), response_class=Response)
    return router


def _sender(name: str, kind: str) -> Callable[[], Response]:
    content = (FOLDER / name).read_bytes()

    def send() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return send
