"""Makes schemathesis ask a model that is there, so that it answers; notes the statuses."""

import os
from typing import Any

import schemathesis

from tf_finetune.server.completion_requests import ChatRequest, CompletionRequest

_ANSWERS: dict[str, Any] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Names the model in most requests, and mends what is refused by name in half of those."""
    body, size = case.body, len(repr(case.body))
    if isinstance(body, dict) and "model" in body and size % 5:
        case.body = {**body, "model": "tiny"}
        request = _ANSWERS.get(case.operation.path)
        if request and size % 2:
            case.body = _mended(case.body, request.model_fields)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Notes the path and the status."""
    with open(os.environ["STATUSES"], "a") as file:
        file.write(f"{case.operation.path} {response.status_code}\n")


def _mended(body: dict[str, Any], known: Any) -> dict[str, Any]:
    """Leaves out unknown fields, and asks for answers that the tiny model has room for, soon."""
    body = {name: value for name, value in body.items() if name in known}
    if body.get("max_completion_tokens") is None:
        body.setdefault("max_tokens", 8)
    for name, most in (("n", 4), ("max_tokens", 8), ("max_completion_tokens", 8)):
        value = body.get(name)
        if type(value) is int and value > most:
            body[name] = most
    if body.get("top_logprobs") is not None:
        body["logprobs"] = True
    if isinstance(prompt := body.get("prompt"), str):
        body["prompt"] = f"mon {prompt:.20}"
    if isinstance(messages := body.get("messages"), list):
        body["messages"] = [_mended_message(message) for message in messages[:3]]
    return body


def _mended_message(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    content = message.get("content")
    return {"role": "user", "content": content[:20] if isinstance(content, str) else "mon"}
