"""The endpoints that answer: chat.completions and completions, whole and streamed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.types import Message

from tf_finetune.errors import UserError
from tf_finetune.server.completion_answers import Choice, Form
from tf_finetune.server.completion_requests import (
    ChatRequest,
    CompletionRequest,
    chat_inquiry,
    completion_inquiry,
)
from tf_finetune.server.engine import Engine, Failed, Inquiry, Stream
from tf_finetune.server.failures import ApiError
from tf_finetune.server.limits import RETRY_AFTER
from tf_finetune.server.models import ServedModel

# The largest body of a request.
MOST_BYTES = 2**23


def make_router(engine: Engine, resolve: Callable[[str], ServedModel]) -> APIRouter:
    """Makes the endpoints that answer.

    Args:
        engine: Answers.
        resolve: Returns a model by its name; raises `ApiError`.
    """
    router = APIRouter(tags=["answers"], route_class=BoundedRoute)

    @router.post("/chat/completions", response_model=None)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        model = await run_in_threadpool(resolve, body.model)
        inquiry = chat_inquiry(body, model)
        return await _respond(engine, inquiry, body, request)

    @router.post("/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        model = await run_in_threadpool(resolve, body.model)
        inquiry = completion_inquiry(body, model)
        return await _respond(engine, inquiry, body, request)

    return router


class BoundedRoute(APIRoute):
    """A route whose requests have bounded bodies: they are counted while they come."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns what answers a request."""
        answer = super().get_route_handler()

        async def answer_bounded(request: Request) -> Response:
            count = 0

            async def receive() -> Message:
                nonlocal count
                message = await request.receive()
                count += len(message.get("body", b""))
                if count > MOST_BYTES:
                    raise HTTPException(
                        413, f"The body has more than {MOST_BYTES:,} bytes. Ask for less at once."
                    )
                return message

            return await answer(Request(request.scope, receive))

        return answer_bounded


async def _respond(
    engine: Engine, inquiry: Inquiry, body: ChatRequest | CompletionRequest, request: Request
) -> Response:
    form = Form(isinstance(body, ChatRequest), body.model, inquiry.logprobs is not None)
    try:
        stream = engine.submit(inquiry)
    except UserError as error:
        raise ApiError(400, str(error), code="invalid_value") from None
    if stream is None:
        raise HTTPException(
            429,
            f"The server is answering {engine.waiting} prompts, as many as may wait. Try again.",
            {"retry-after": str(RETRY_AFTER)},
        )
    try:
        prompt_tokens = await _unless_gone(request, stream.begin())
        if prompt_tokens is None:
            stream.close()
            return Response(status_code=499)
        if body.stream:
            tells_usage = bool(body.stream_options and body.stream_options.include_usage)
            events = _events(stream, form, prompt_tokens, tells_usage)
            return StreamingResponse(events, media_type="text/event-stream", headers=_UNBUFFERED)
        choices = await _unless_gone(request, _collect(stream))
        stream.close()
        if choices is None:
            return Response(status_code=499)
        return JSONResponse(form.whole(choices, prompt_tokens))
    except UserError as error:
        stream.close()
        raise ApiError(400, str(error), code="invalid_value") from None
    except Failed as error:
        stream.close()
        raise ApiError(500, str(error)) from None
    except BaseException:
        stream.close()
        raise


# Proxies such as nginx would keep pieces back.
_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def _unless_gone(request: Request, work: Any) -> Any:
    """Waits for some work; returns None once the client is gone."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _collect(stream: Stream) -> list[Choice]:
    choices = _choices(stream)
    async for piece in stream:
        choices[piece.index].push(piece)
    return choices


async def _events(
    stream: Stream, form: Form, prompt_tokens: int, tells_usage: bool
) -> AsyncIterator[str]:
    """Yields server-sent events."""
    choices = _choices(stream)
    # A client that asks for the usage finds the field in every chunk.
    more: dict[str, Any] = {"usage": None} if tells_usage else {}
    try:
        if form.is_chat:
            for index in range(len(choices)):
                yield _event({**form.first(index), **more})
        async for piece in stream:
            for chunk in form.chunk(piece, choices[piece.index]):
                yield _event({**chunk, **more})
            choices[piece.index].push(piece)
        if tells_usage:
            yield _event(form.last(choices, prompt_tokens))
        yield "data: [DONE]\n\n"
    except Failed as error:
        told = {"message": str(error), "type": "server_error", "param": None, "code": None}
        yield _event({"error": told})
    finally:
        stream.close()


def _event(content: dict[str, Any]) -> str:
    # As JSONResponse writes it; lone surrogates of a text would have no UTF-8.
    return f"data: {json.dumps(content, separators=(',', ':'))}\n\n"


def _choices(stream: Stream) -> list[Choice]:
    return [Choice() for _ in range(len(stream.inquiry.prompts) * stream.inquiry.n)]
