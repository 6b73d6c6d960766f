"""The routes. Each reads a checked body, asks an engine, and turns events into OpenAI's shapes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tunesmith.http.refused import Refused
from tunesmith.serve.exchange import Desk, Exchange, Served, begin
from tunesmith.serve.replies import DONE, event
from tunesmith.serve.scheduler import Failed, Piece
from tunesmith.serve.wire import ChatRequest, Choices, CompletionRequest, ErrorReply, Health, ModelList

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
STREAM = {"text/event-stream": {"schema": {"description": "server-sent events of chunks"}}}


def add_routes(app: FastAPI, desk: Desk, *, needs_token: bool) -> None:
    seen_by = [Depends(HTTPBearer(auto_error=False))] if needs_token else []  # for the OpenAPI page; the door decides
    refusals: dict[int | str, dict[str, Any]] = {code: reply for code, reply in REFUSALS.items() if code in (401, 403)}
    answers = REFUSALS | {200: {"model": Choices, "content": STREAM, "description": "the answer, whole or streamed"}}

    @app.get("/health", response_model=Health, responses={503: {"model": Health, "description": "an engine died"}})
    async def health() -> Response:
        alive = all(s.engine.alive for s in desk.served.values())
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    @app.get("/metrics", dependencies=seen_by, responses=refusals, response_class=Response)
    async def metrics() -> Response:
        return Response(desk.observer.page(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models", dependencies=seen_by, response_model=ModelList, responses=refusals)
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(s) for s in desk.served.values()]})

    @app.get("/v1/models/{model}", dependencies=seen_by, responses=refusals | {404: REFUSALS[404]})
    async def model(model: str) -> Response:
        return JSONResponse(_model(desk.find(model)))

    @app.post("/v1/chat/completions", dependencies=seen_by, responses=answers, response_model=None)
    async def chat(request: Request, body: ChatRequest) -> Response:
        messages = [m.noun() for m in body.messages]
        return await _answer(desk, request, await begin(desk, request, body, [messages]), body)

    @app.post("/v1/completions", dependencies=seen_by, responses=answers, response_model=None)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        return await _answer(desk, request, await begin(desk, request, body, body.prompts), body)


async def _answer(desk: Desk, request: Request, exchange: Exchange, body: ChatRequest | CompletionRequest) -> Response:
    if body.stream:
        chunks = _chunks(exchange, with_usage=body.includes_usage)
        return EventStream(chunks, lambda: exchange.close(desk.observer))
    try:
        await _unless_gone(request, _collect(exchange))
    finally:
        exchange.close(desk.observer)
    reply = exchange.reply.whole(exchange.choices, usage=exchange.usage, with_logprobs=exchange.with_logprobs)
    return JSONResponse(reply)


def _model(served: Served) -> dict[str, Any]:
    about = {"bundle": served.bundle.id, "kind": served.bundle.kind}
    if served.bundle.adapter:
        about["shares_base"] = "yes"  # answered in one batch with the other adapters
    return {"id": served.name, "object": "model", "created": STARTED, "owned_by": "tunesmith", "tunesmith": about}


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
