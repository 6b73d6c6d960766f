"""One request on its way through an engine: from a checked body to jobs, from events to choices, to a trace."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from tunesmith.core.errors import TunesmithError
from tunesmith.core.nouns import Message
from tunesmith.http.refused import Refused
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.engine import Engine
from tunesmith.serve.observe import Observer
from tunesmith.serve.replies import Choice, Reply, usage_of
from tunesmith.serve.scheduler import Closed, Event, Finished, Job, Mode, Overloaded, Piece, Sampling
from tunesmith.serve.wire import ChatRequest, CompletionRequest, check_together, sampling

Prompt = Sequence[Message] | str  # a conversation, or plain text to be continued


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A name that clients may ask for, and what answers under it."""

    name: str
    engine: Engine
    bundle: LoadedBundle
    labels: bool  # answers are labels
    open: set[str] = field(default_factory=set)  # requests under way: a bundle is taken away when there are none


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request on its way through the engine."""

    served: Served
    reply: Reply
    route: str
    client: str
    messages: Sequence[Message]
    streaming: bool
    with_logprobs: bool
    prompt_tokens: int = 0
    jobs: list[Job] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    events: asyncio.Queue[tuple[int, Event]] = field(default_factory=asyncio.Queue)
    started: float = field(default_factory=time.perf_counter)
    first: float | None = None
    status: int = 200
    closed: bool = False

    def add(
        self, mode: Mode, prompt: tuple[int, ...], wish: Sampling, messages: tuple[Message, ...], deadline: float
    ) -> None:
        """One more answer to be made."""
        emit = _emitter(self.events, len(self.jobs))
        self.choices.append(Choice())
        self.jobs.append(
            Job(
                mode=mode,
                prompt=prompt,
                sampling=wish,
                emit=emit,
                messages=messages,
                deadline=deadline,
                bundle=self.served.bundle,
            )
        )

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
        self.served.open.discard(self.reply.id)
        self.served.engine.scheduler.cancel([j for j, c in zip(self.jobs, self.choices, strict=True) if not c.end])
        if self.status == 200 and not all(c.end for c in self.choices):
            self.status = 499  # as nginx writes it: the client left
        observer.answered(self._trace(), messages=self.messages, answer="\n".join(c.text for c in self.choices))

    def refuse(self, status: int, observer: Observer) -> None:
        """Nothing was queued; only the trace is left."""
        self.closed, self.status = True, status
        self.served.open.discard(self.reply.id)
        observer.keep(self._trace(), messages=self.messages, answer="")

    def _trace(self) -> dict[str, Any]:
        """Fields as in the trace store, content aside."""
        ends = [c.end for c in self.choices if c.end]
        reasons = {e.reason for e in ends}
        finish = "aborted" if self.status == 499 else next((r for r in ("length", "stop") if r in reasons), None)
        return {
            "id": ("chatcmpl-" if self.reply.chat else "cmpl-") + self.reply.id,
            "bundle": self.served.bundle.id,
            "route": self.route,
            "model": self.served.name,
            "status": self.status,
            "streaming": int(self.streaming),
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.usage["completion_tokens"],
            "seconds": time.perf_counter() - self.started,
            "time_to_first_token": self.first,
            "finish": finish,
            "confidence": ends[0].confidence if ends else None,
            "client": self.client,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every route needs."""

    served: Mapping[str, Served]
    observer: Observer
    most_tokens: int  # one request may ask for
    seconds: float  # one request may take

    def find(self, name: str) -> Served:
        if name not in self.served:
            raise Refused(
                f"there is no such model here; there is: {', '.join(self.served)}",
                status=404, param="model", code="model_not_found",
            )  # fmt: skip
        return self.served[name]


async def begin(
    desk: Desk, request: Request, body: ChatRequest | CompletionRequest, prompts: Sequence[Prompt]
) -> Exchange:
    """Check, tokenize, queue. A refusal leaves a trace too, once the model is known. Raises Refused."""
    chosen = desk.find(body.model)
    chat = isinstance(body, ChatRequest)
    exchange = Exchange(
        served=chosen,
        reply=Reply(chat=chat, model=body.model),
        route=request.url.path,
        client=desk.observer.client_hash(body.user or (request.client.host if request.client else "")),
        messages=[m for p in prompts for m in ((Message(role="user", content=p),) if isinstance(p, str) else p)],
        streaming=bool(body.stream),
        with_logprobs=body.alternatives is not None,
    )
    chosen.open.add(exchange.reply.id)
    try:
        check_together(body)
        # not on the event loop: a long prompt takes a while, and streams are to keep flowing
        ids = await asyncio.to_thread(lambda: [_tokens(chosen, p) for p in prompts])
        exchange.prompt_tokens = sum(map(len, ids))
        mode: Mode = "label" if chosen.labels and chat else "generate"
        wishes = _wishes(desk, chosen, body, ids, mode)
        deadline = time.monotonic() + desk.seconds
        for tokens, wish, prompt in zip(ids, wishes, prompts, strict=True):
            messages = () if isinstance(prompt, str) else tuple(prompt)
            for k in range(body.n or 1):
                exchange.add(mode, tuple(tokens), _nth(wish, k), messages, deadline)
        _submit(exchange)
    except Refused as e:
        exchange.refuse(e.status, desk.observer)
        raise
    except BaseException:
        chosen.open.discard(exchange.reply.id)
        raise
    return exchange


def _wishes(
    desk: Desk, chosen: Served, body: ChatRequest | CompletionRequest, ids: Sequence[Sequence[int]], mode: Mode
) -> list[Sampling]:
    """How each prompt is to be answered. A label is never cut unless the client itself asks for fewer tokens."""
    bundle = chosen.bundle
    label = max((len(bundle.renderer.answer(text)) for text in bundle.labels), default=1)
    seed = secrets.randbits(62)
    return [
        sampling(
            body,
            prompt_tokens=len(i),
            context=bundle.context,
            room=label if mode == "label" else 1,
            most=max(desk.most_tokens, label) if mode == "label" else desk.most_tokens,
            temperature=bundle.settings.temperature,
            max_new_tokens=label if mode == "label" else bundle.settings.max_new_tokens,
            seed=seed,
        )
        for i in ids
    ]


def _tokens(served: Served, prompt: Prompt) -> list[int]:
    """Raises Refused when the chat template does not take these turns."""
    renderer = served.bundle.renderer
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
    return dataclasses.replace(wish, seed=int.from_bytes(digest[:7], "big"))


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
