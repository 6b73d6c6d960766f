"""What OpenAI's clients send, and what they get back when it is refused.

Every field has bounds. A field we don't know is refused; a field of OpenAI's that we don't support is
declared with the one value that asks for nothing, so that it is refused when it asks for something.
Nothing is silently ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tunesmith.core.nouns import Message, Role
from tunesmith.http.refused import Refused
from tunesmith.serve.scheduler import Sampling

MAX_TEXT = 1_000_000  # characters of one text; the body cap and the model's context bind sooner
MAX_MESSAGES = 1_000
MAX_CHOICES = 16
MAX_TOKENS = 1_000_000  # of the field; the server's own limit and the context bind sooner

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
Zero = Annotated[float, Field(ge=0, le=0)]
Nothing = Annotated[list[Any], Field(max_length=0)]
NoKeys = Annotated[dict[str, Any], Field(max_length=0)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Stop = StopText | Annotated[list[StopText], Field(max_length=4)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(Body):
    type: Literal["text"]
    text: Text


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=256)]
    # what the official client sends back when an earlier answer is passed on as it came
    refusal: None = None
    annotations: Nothing | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing | None = None

    def noun(self) -> Message:
        role: Role = "system" if self.role == "developer" else self.role
        text = self.content if isinstance(self.content, str) else "".join(p.text for p in self.content)
        return Message(role=role, content=text)


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextFormat(Body):
    type: Literal["text"]


class Request(Body):
    """What chat and plain completions have in common."""

    model: Name
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, StringConstraints(max_length=256)] | None = Field(
        None, description="kept as a keyed hash in the trace, never as it is"
    )
    # OpenAI's fields that are not supported, with the values that ask for nothing
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: NoKeys | None = None
    service_tier: Literal["auto", "default"] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Request):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: TextFormat | None = None
    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = Field(None, description="without tools it asks for nothing")
    functions: Nothing | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None
    store: Literal[False] | None = None
    metadata: NoKeys | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """Of log-probabilities at each token; None when none are asked for."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Request):
    prompt: (
        Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]
        | Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]],
            Field(min_length=1, max_length=MAX_CHOICES),
        ]
    )
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: Literal[""] | None = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """As in ChatRequest."""
        return self.logprobs


def check_together(request: ChatRequest | CompletionRequest) -> None:
    """Rules between fields. Raises Refused."""
    if request.stream_options is not None and not request.stream:
        raise Refused("stream_options is only allowed when stream is true", param="stream_options")
    if isinstance(request, ChatRequest):
        if request.top_logprobs is not None and not request.logprobs:
            raise Refused("top_logprobs needs logprobs: true", param="top_logprobs")
        both = {request.max_tokens, request.max_completion_tokens}
        if None not in both and len(both) == 2:
            raise Refused(
                "max_tokens and max_completion_tokens differ; give one of them", param="max_completion_tokens"
            )
        if not any(m.noun().content for m in request.messages):
            raise Refused("every message is empty", param="messages")
    elif len(request.prompts) * (request.n or 1) > MAX_CHOICES:
        raise Refused(f"prompts times n must be at most {MAX_CHOICES}", param="n")


def sampling(
    request: ChatRequest | CompletionRequest,
    *,
    prompt_tokens: int,
    context: int,
    room: int,
    most: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> Sampling:
    """The request's wishes with the bundle's own where it has none. Raises Refused before any work is done.

    `context` is what the model can hold, `room` what an answer needs of it at least, `most` what this server
    lets one request ask for; `temperature` and `max_new_tokens` are the bundle's own; `seed` is used when the
    request has none.
    """
    name = "max_tokens" if request.max_tokens is not None else "max_completion_tokens"
    asked = request.token_limit
    if prompt_tokens + max(room, asked or 0) > context:
        raise Refused(
            f"This model's maximum context length is {context} tokens; the prompt has {prompt_tokens} and the answer "
            f"would need {max(room, asked or 0)}. Shorten the messages or ask for fewer tokens.",
            param="messages" if isinstance(request, ChatRequest) else "prompt",
            code="context_length_exceeded",
        )
    if asked is not None and asked > most:
        raise Refused(f"{name} is {asked}; this server allows at most {most}", param=name)
    return Sampling(
        max_new_tokens=asked if asked is not None else min(max_new_tokens, most, context - prompt_tokens),
        temperature=temperature if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=seed if request.seed is None else request.seed,
        stop=request.stops,
        top_logprobs=request.alternatives,
    )


UNSUPPORTED = {
    "frequency_penalty", "presence_penalty", "logit_bias", "service_tier", "tools", "tool_choice", "functions",
    "function_call", "modalities", "audio", "prediction", "reasoning_effort", "verbosity", "web_search_options",
    "store", "metadata", "echo", "best_of", "suffix", "response_format",
}  # fmt: skip


def invalid(errors: Sequence[Any]) -> Refused:
    """Pydantic's errors as one refusal, all problems in it. User content is never repeated."""
    found: dict[str, str] = {}
    branches: dict[str, str] = {}
    for error in errors:
        place = [p for p in error["loc"] if p != "body"]
        field = str(place[0]) if place else ""
        where = _where(place)
        if field in UNSUPPORTED and len(place) <= 2:
            hint = " other than {'type': 'text'}" if field == "response_format" else ""
            found.setdefault(field, f"{field}{hint} is not supported by this server; leave it out")
        elif error["type"] == "extra_forbidden":
            found.setdefault(where, f"Unrecognized request argument supplied: {where}")
        elif error["type"] == "json_invalid":
            found.setdefault("", "The body is not valid JSON")
        elif error["type"] == "missing" and not place:
            found.setdefault("", "A body is needed")
        else:
            text = "only text parts are supported" if place[-1:] == ["type"] and field == "messages" else error["msg"]
            if error["type"] in ("string_type", "list_type"):
                branches.setdefault(where, f"{where}: {text}")  # another branch of a union may say it better
            else:
                found.setdefault(where, f"{where}: {text}" if where else text)
    for where, text in branches.items():
        if not any(other == where or other.startswith(f"{where}[") for other in found):
            found[where] = text
    first = next((str(p) for e in errors for p in e["loc"] if p != "body"), None)
    return Refused("; ".join(list(found.values())[:8]), param=first)


def _where(place: Sequence[Any]) -> str:
    """("messages", 0, "content", "str") as messages[0].content: branches of a union are no fields."""
    out = ""
    for part in place:
        if isinstance(part, int):
            out += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "list") and part[:1].islower():
            out += f".{part}" if out else part
    return out[:200]


class Choices(BaseModel):
    """Shapes of the answers are for the OpenAPI page; see replies.py for how they are filled."""

    model_config = ConfigDict(extra="allow")
    id: str
    object: Literal["chat.completion", "text_completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]]


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    error: ErrorBody


class Health(BaseModel):
    status: Literal["ok", "failed"]


def finite(value: float | None) -> float | None:
    """JSON has no infinity; a log-probability of -inf is what OpenAI writes as -9999."""
    return -9999.0 if value is not None and not math.isfinite(value) else value
