"""The routes. Each reads a checked body, asks an engine, and turns events into OpenAI's shapes."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tunesmith.core.errors import TunesmithError
from tunesmith.core.nouns import Message
from tunesmith.serve.engine import Engine
from tunesmith.serve.observe import Observer
from tunesmith.serve.replies import DONE, Choice, Reply, event, usage_of
from tunesmith.serve.scheduler import Closed, Event, Failed, Finished, Job, Overloaded, Piece, Sampling
from tunesmith.serve.wire import (
    ChatRequest,
    Choices,
    CompletionRequest,
    ErrorReply,
    Health,
    ModelList,
    Refused,
    check_together,
    sampling,
)

STARTED = int(time.time())
REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorReply, "description": text}
    for code, text in {
        400: "the request is not understood or does not fit the model",
        401: "no token, or a wrong one",
        403: "a Host or Origin that is not ours",
        404: "no such model",
        408: "the body did not arrive in time",
        413: "the body is too large",
        429: "the queue is full; Retry-After says when to come back",
        500: "our own mistake",
        503: "the server is shutting down",
        504: "the request took too long",
    }.items()
}
STREAM = {"text/event-stream": {"schema": {"type": "string", "description": "server-sent events of chunks"}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A name that clients may ask for, and what answers under it."""

    name: str
    engine: Engine
    labels: bool  # answers are labels


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request on its way through the engine."""

    served: Served
    reply: Reply
    route: str
    client: str
    messages: Sequence[Message]
    prompt_tokens: int
    streaming: bool
    with_logprobs: bool
    jobs: list[Job] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    events: asyncio.Queue[tuple[int, Event]] = field(default_factory=asyncio.Queue)
    started: float = field(default_factory=time.perf_counter)
    first: float | None = None
    status: int = 200
    closed: bool = False

    async def next(self) -> tuple[int, Event]:
        """The next event, with the index of its choice; kept in the choice too."""
        index, happened = await self.events.get()
        if isinstance(happened, Piece):
            self.first = time.perf_counter() - self.started if self.first is None else self.first
            self.choices[index].add(happened)
        elif isinstance(happened, Finished):
            self.choices[index].end = happened
        else:
            self.status = happened.status
        return index, happened

    @property
    def usage(self) -> dict[str, int]:
        return usage_of(self.prompt_tokens, self.choices)

    def close(self, observer: Observer) -> None:
        """Give back the places of answers nobody waits for, and leave a trace. Harmless when called again."""
        if self.closed:
            return
        self.closed = True
        self.served.engine.scheduler.cancel([j for j, c in zip(self.jobs, self.choices, strict=True) if not c.end])
        ends = [c.end for c in self.choices if c.end]
        aborted = len(ends) < len(self.choices) and self.status == 200
        if aborted:
            self.status = 499  # as nginx writes it: the client left
        reasons = {e.reason for e in ends}
        finish = "aborted" if aborted else "length" if "length" in reasons else "stop" if ends else None
        answer_tokens = self.usage["completion_tokens"]
        trace = {
            "id": ("chatcmpl-" if self.reply.chat else "cmpl-") + self.reply.id,
            "bundle": self.served.engine.bundle.id,
            "route": self.route,
            "model": self.served.name,
            "status": self.status,
            "streaming": int(self.streaming),
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": answer_tokens,
            "seconds": time.perf_counter() - self.started,
            "time_to_first_token": self.first,
            "finish": finish,
            "confidence": ends[0].confidence if ends else None,
            "client": self.client,
        }
        observer.answered(trace, messages=self.messages, answer="\n".join(c.text for c in self.choices))


def add_routes(
    app: FastAPI, served: Mapping[str, Served], observer: Observer, bounds: tuple[int, float], *, needs_token: bool
) -> None:
    """`bounds`: most tokens one request may ask for, and seconds it may take."""
    most_tokens, seconds = bounds
    seen_by = [Depends(HTTPBearer(auto_error=False))] if needs_token else []  # for the OpenAPI page; the door decides

    def find(name: str) -> Served:
        if name not in served:
            raise Refused(
                f"there is no such model here; there is: {', '.join(served)}",
                status=404, param="model", code="model_not_found",
            )  # fmt: skip
        return served[name]

    async def begin(
        request: Request, body: ChatRequest | CompletionRequest, prompts: Sequence[Sequence[Message] | str]
    ) -> Exchange:
        chosen = find(body.model)
        check_together(body)
        started = time.perf_counter()
        bundle = chosen.engine.bundle
        ids = await asyncio.to_thread(lambda: [_tokens(chosen, p) for p in prompts])
        chat = isinstance(body, ChatRequest)
        mode: Literal["label", "generate"] = "label" if chosen.labels and chat else "generate"
        label = max((len(bundle.renderer.answer(text)) for text in bundle.labels), default=1)
        seed = secrets.randbits(62)
        wishes = [
            sampling(
                body,
                prompt_tokens=len(i),
                context=bundle.context,
                room=label if mode == "label" else 1,
                most=most_tokens,
                temperature=bundle.settings.temperature,
                max_new_tokens=label if mode == "label" else bundle.settings.max_new_tokens,
                seed=seed,
            )
            for i in ids
        ]
        exchange = Exchange(
            served=chosen,
            reply=Reply(chat=chat, model=body.model),
            route=request.url.path,
            client=observer.client_hash(body.user or (request.client.host if request.client else "")),
            messages=[m for p in prompts for m in ((Message(role="user", content=p),) if isinstance(p, str) else p)],
            prompt_tokens=sum(map(len, ids)),
            streaming=bool(body.stream),
            with_logprobs=wishes[0].top_logprobs is not None,
            started=started,
        )
        deadline = time.monotonic() + seconds
        for tokens, wish, prompt in zip(ids, wishes, prompts, strict=True):
            for k in range(body.n or 1):
                index = len(exchange.jobs)
                exchange.choices.append(Choice())
                exchange.jobs.append(
                    Job(
                        mode=mode,
                        prompt=tuple(tokens),
                        sampling=_nth(wish, k),
                        emit=_emitter(exchange.events, index),
                        messages=() if isinstance(prompt, str) else tuple(prompt),
                        deadline=deadline,
                    )
                )
        _submit(exchange)
        return exchange

    async def answer(request: Request, exchange: Exchange, body: ChatRequest | CompletionRequest) -> Response:
        if body.stream:
            chunks = _chunks(exchange, with_usage=body.includes_usage)
            return EventStream(chunks, lambda: exchange.close(observer))
        try:
            await _unless_gone(request, _collect(exchange))
        finally:
            exchange.close(observer)
        whole = exchange.reply.whole(exchange.choices, usage=exchange.usage, with_logprobs=exchange.with_logprobs)
        return JSONResponse(whole)

    @app.get("/health", response_model=Health, responses={503: {"model": Health, "description": "an engine died"}})
    async def health() -> Response:
        alive = all(s.engine.alive for s in served.values())
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    refusals: dict[int | str, dict[str, Any]] = {code: reply for code, reply in REFUSALS.items() if code in (401, 403)}

    @app.get("/metrics", dependencies=seen_by, responses=refusals, response_class=Response)
    async def metrics() -> Response:
        return Response(observer.page(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models", dependencies=seen_by, response_model=ModelList, responses=refusals)
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(s) for s in served.values()]})

    @app.get("/v1/models/{model}", dependencies=seen_by, responses=refusals | {404: REFUSALS[404]})
    async def model(model: str) -> Response:
        return JSONResponse(_model(find(model)))

    answers = REFUSALS | {200: {"model": Choices, "content": STREAM, "description": "the answer, whole or streamed"}}

    @app.post("/v1/chat/completions", dependencies=seen_by, responses=answers, response_model=None)
    async def chat(request: Request, body: ChatRequest) -> Response:
        messages = [m.noun() for m in body.messages]
        return await answer(request, await begin(request, body, [messages]), body)

    @app.post("/v1/completions", dependencies=seen_by, responses=answers, response_model=None)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        return await answer(request, await begin(request, body, body.prompts), body)


def _model(served: Served) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": STARTED, "owned_by": "tunesmith"}


def _tokens(served: Served, prompt: Sequence[Message] | str) -> list[int]:
    """Raises Refused when the chat template does not take these turns."""
    renderer = served.engine.bundle.renderer
    try:
        if isinstance(prompt, str):
            return list(renderer.render((), prompt).ids[:-1])  # plain text as in training, its end left open
        return renderer.prompt(prompt)
    except TunesmithError as e:
        problem = e.problems[0]
        what = problem.what.split(": ")[0]  # what follows a colon may quote the message
        raise Refused(f"{what}; {problem.fix}" if problem.fix else what, param="messages") from None


def _nth(wish: Sampling, k: int) -> Sampling:
    """The k-th of n answers: its own seed, which the request's seed determines."""
    if not k:
        return wish
    digest = hashlib.sha256(f"{wish.seed}/{k}".encode()).digest()
    return Sampling(
        max_new_tokens=wish.max_new_tokens,
        temperature=wish.temperature,
        top_p=wish.top_p,
        seed=int.from_bytes(digest[:7], "big"),
        stop=wish.stop,
        top_logprobs=wish.top_logprobs,
    )


def _emitter(events: asyncio.Queue[tuple[int, Event]], index: int) -> Callable[[Event], None]:
    loop = asyncio.get_running_loop()
    return lambda happened: _put(loop, events, (index, happened))


def _put(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[tuple[int, Event]], item: tuple[int, Event]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(events.put_nowait, item)


def _submit(exchange: Exchange) -> None:
    try:
        exchange.served.engine.scheduler.submit(exchange.jobs)
    except Overloaded as e:
        raise Refused(
            "the server is busy; try again later",
            status=429, type="rate_limit_error", code="queue_full", headers={"Retry-After": str(e.retry_after_s)},
        ) from None  # fmt: skip
    except Closed:
        raise Refused(
            "the server is shutting down", status=503, type="server_error", code="shutting_down",
            headers={"Retry-After": "5"},
        ) from None  # fmt: skip


async def _collect(exchange: Exchange) -> None:
    while not all(c.end for c in exchange.choices):
        _, happened = await exchange.next()
        if isinstance(happened, Failed):
            raise _failure(happened)


def _failure(failed: Failed) -> Refused:
    return Refused(failed.message, status=failed.status, type="server_error")


async def _unless_gone(request: Request, work: Any) -> None:
    """Run `work`, but stop it when the client leaves: an answer nobody reads must not hold a place."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refused("the client left", status=400)
        task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chunks(exchange: Exchange, *, with_usage: bool) -> AsyncIterator[bytes]:
    reply, opened = exchange.reply, set()
    while not all(c.end for c in exchange.choices):
        index, happened = await exchange.next()
        if isinstance(happened, Failed):
            yield event(_failure(happened).body)
            return
        if reply.chat and index not in opened:
            opened.add(index)
            yield event(reply.opening(index))
        if isinstance(happened, Piece):
            offset = len(exchange.choices[index].text) - len(happened.text)
            yield event(reply.part(index, happened, offset=offset, with_logprobs=exchange.with_logprobs))
        else:
            yield event(reply.closing(index, happened))
    if with_usage:
        yield event(reply.usage(exchange.usage))
    yield DONE


class EventStream(StreamingResponse):
    """Server-sent events; `done` is called however the stream ends, also when the client leaves."""

    def __init__(self, chunks: AsyncIterator[bytes], done: Callable[[], None]) -> None:
        super().__init__(chunks, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()
