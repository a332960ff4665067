"""`ApiError`, and every failure in OpenAI's form."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: HTTP's status.
        message: What is wrong, and the remedy.
        param: The field of the request that is wrong.
        code: A name of the mistake, for programs.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


def not_found(kind: str, name: str, param: str = "id") -> ApiError:
    """Returns the error for something that is not there.

    Args:
        kind: What it would be: file, fine-tuning job, model.
        name: Its id in the request.
        param: The request's field.
    """
    code = "model_not_found" if kind == "model" else "not_found"
    return ApiError(404, f"No such {kind}: {name:.200}.", param, code)


def answer(status: int, message: str, param: str | None = None, code: str | None = None) -> Any:
    """Returns the response of a failure."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:  # What there are too many of.
        kind, code = "requests", "rate_limit_exceeded"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status)


def add_handlers(app: FastAPI) -> None:
    """Makes an app answer every failure in OpenAI's form."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Any:
        response = answer(error.status, error.message, error.param, error.code)
        if error.status == 413:  # The rest of the body is not waited for.
            response.headers["connection"] = "close"
        return response

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Any:
        response = answer(error.status_code, _http_message(request, error))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Any:
        return answer(400, *_first(error.errors()))

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Any:
        del error  # The server's log has it.
        return answer(500, "The server failed at this request; its log says why.")


def _http_message(request: Request, error: HTTPException) -> str:
    if error.status_code in (404, 405):
        what = "no such address" if error.status_code == 404 else "not a method of this address"
        return f"Invalid URL ({request.method} {request.url.path:.200}): {what}."
    return str(error.detail)


def _first(errors: Sequence[Any]) -> tuple[str, str | None, str]:
    """Returns the message, the field and the code of the first of pydantic's errors."""
    error = errors[0]
    # Behind a field stand the alternatives that were tried, such as literal['auto'] or int.
    place = [str(part) for part in error["loc"][1:] if "[" not in str(part)]
    more = [other["msg"] for other in errors[1:] if other["loc"][:-1] == error["loc"][:-1]]
    if error["type"] == "json_invalid":
        return f"The body is not JSON: {error['ctx']['error']}.", None, "json_invalid"
    if more and place and place[-1] in ("int", "float", "str"):
        place.pop()
    param = ".".join(place) or None
    said = " or: ".join(dict.fromkeys([error["msg"], *more]))
    value = error.get("input")
    found = "" if error["type"] == "missing" else f" (found: {value!r:.80})"
    return f"{param or 'The request'}: {said}{found}.", param, error["type"]
