"""What clients ask of chat.completions and completions, in OpenAI's form."""

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tf_finetune.generation.answer_settings import AnswerSettings
from tf_finetune.server.engine import Inquiry, Prompt
from tf_finetune.server.failures import ApiError
from tf_finetune.server.models import ServedModel

# What may be sent although it is not supported: it asks for nothing.
_NOTHING: dict[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
_Text = Annotated[str, Field(min_length=1)]
_Stops = Annotated[list[_Text], Field(max_length=4)]
_Bias = Annotated[float, Field(ge=-100, le=100)]


class StreamOptions(BaseModel):
    """What a stream tells beside the answer."""

    model_config = ConfigDict(strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: _Text | _Stops | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], _Bias] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # These change nothing here.
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(strict=True)

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: str
    content: str | list[TextPart] | None = None


class ChatRequest(_Request):
    """The body of chat.completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class CompletionRequest(_Request):
    """The body of completions."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=128)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[list[int]], Field(min_length=1, max_length=128)]
    )
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


def chat_inquiry(request: ChatRequest, model: ServedModel) -> Inquiry:
    """Returns what a conversation asks.

    Raises:
        ApiError: It asks for what is not supported.
    """
    most = request.max_completion_tokens
    if most is None:
        most = request.max_tokens
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs=true.", "top_logprobs", "invalid_value")
    messages = [_message(number, message) for number, message in enumerate(request.messages)]
    told = request.top_logprobs if request.logprobs else None
    if request.logprobs and told is None:
        told = 0
    return _inquiry(request, model, [messages], most, told)


def completion_inquiry(request: CompletionRequest, model: ServedModel) -> Inquiry:
    """Returns what a text asks.

    Raises:
        ApiError: It asks for what is not supported.
    """
    given: Any = request.prompt
    one = isinstance(given, str) or isinstance(given[0], int)
    most = 16 if request.max_tokens is None else request.max_tokens
    return _inquiry(request, model, [given] if one else given, most, request.logprobs)


def _inquiry(
    request: _Request,
    model: ServedModel,
    prompts: list[Prompt],
    max_tokens: int | None,
    logprobs: int | None,
) -> Inquiry:
    for name, value in (request.model_extra or {}).items():
        if value is not None and not any(value == nothing for nothing in _NOTHING.get(name, ())):
            raise ApiError(
                400,
                f"{name:.80} is not supported. Leave it out.",
                name[:80],
                "unsupported_parameter",
            )
    stop = request.stop or []
    seed = secrets.randbits(63) if request.seed is None else request.seed % 2**63
    settings = AnswerSettings(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=seed,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias={int(id): value for id, value in (request.logit_bias or {}).items()},
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )
    n = 1 if request.n is None else request.n
    return Inquiry(model, prompts, n, max_tokens, settings, logprobs)


def _message(number: int, message: ChatMessage) -> dict[str, Any]:
    """Returns a message as templates take it."""
    place = f"messages.{number}"
    if message.role not in ("system", "developer", "user", "assistant"):
        raise ApiError(
            400,
            f"{place}.role: {message.role!r:.80} is not supported; roles are system, developer, "
            "user and assistant.",
            f"{place}.role",
            "unsupported_value",
        )
    for name, value in (message.model_extra or {}).items():
        if value and name != "name":
            raise ApiError(
                400,
                f"{place}.{name:.80} is not supported. Leave it out.",
                f"{place}.{name:.80}",
                "unsupported_parameter",
            )
    content = message.content
    if isinstance(content, list):
        content = "".join(_text(f"{place}.content.{at}", part) for at, part in enumerate(content))
    if content is None:
        raise ApiError(400, f"{place}.content is missing.", f"{place}.content", "missing")
    # Templates of open models know no developer.
    role: Literal["system"] | str = "system" if message.role == "developer" else message.role
    return {"role": role, "content": content}


def _text(place: str, part: TextPart) -> str:
    if part.type != "text" or part.text is None:
        raise ApiError(
            400,
            f"{place}: {part.type!r:.80} is not supported; parts are text: "
            '{"type": "text", "text": ...}.',
            place,
            "unsupported_value",
        )
    return part.text
