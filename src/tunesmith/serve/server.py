"""The HTTP server: OpenAI's routes over bundles, behind one door.

listener = listen(host, port)                    Busy when the port is taken, before a model is loaded
app = create_app({"prod": bundle}, ...)          routes, engines, metrics
serve(app, host, port, listener=listener)        until SIGTERM; running answers are finished first
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from tunesmith.core.errors import InputError
from tunesmith.core.settings import ServeSettings
from tunesmith.core.stage import Exec
from tunesmith.http.gatekeeper import BodyLimits, Gatekeeper, bearer
from tunesmith.http.listening import Server, address, hosts_for, is_loopback, listen, uvicorn_config
from tunesmith.http.log import log_to_stderr
from tunesmith.http.refused import Refused
from tunesmith.serve.adapters import Place
from tunesmith.serve.admin import Roster, add_admin_routes, guarded
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.engine import Engine
from tunesmith.serve.exchange import Desk, Served
from tunesmith.serve.observe import Observer
from tunesmith.serve.routes import add_routes
from tunesmith.serve.running import announced
from tunesmith.serve.wire import invalid

DRAIN_S = 30  # for running answers after SIGTERM
GENERATE = ":generate"  # after a classification bundle's name: free text instead of a label


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one server. The first three are the project's own (serve.* in tunesmith.yaml)."""

    max_queue: int
    max_batch: int
    max_tokens: int
    body_bytes: int = 1 << 20
    json_depth: int = 16
    body_seconds: float = 30.0
    request_seconds: float = 600.0
    cache_columns: int = 32_768  # rows times columns of keys and values held at once
    batch_tokens: int = Exec().micro_batch_tokens


def create_app(
    bundles: Mapping[str, LoadedBundle],
    *,
    token: str | None,
    allowed_hosts: Iterable[str],
    trace: Callable[[dict[str, Any]], None],
    store_content: bool,
    limits: Limits,
    bring: Callable[[str], Place] | None = None,
) -> FastAPI:
    """The app for uvicorn. One bundle under several names shares one engine, and so do bundles on one base.

    `bring` finds the bundle that a place stands for; with it adapters can be changed while the server answers, by
    whoever shows the token in `app.state.admin`.
    """
    together: dict[int, list[LoadedBundle]] = {}
    for bundle in dict.fromkeys(bundles.values()):
        together.setdefault(id(bundle.several or bundle), []).append(bundle)
    engines = {key: _engine(some, limits) for key, some in together.items()}
    served: dict[str, Served] = {}
    for name, bundle in bundles.items():
        served |= named(name, bundle, engines[id(bundle.several or bundle)])
    observer = Observer(trace=trace, store_content=store_content)
    observer.watch(
        lambda: sum(e.scheduler.waiting for e in engines.values()),
        lambda: sum(e.scheduler.running for e in engines.values()),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for engine in engines.values():
            await asyncio.to_thread(engine.start)
        yield
        # By now uvicorn has waited for every open request; what is left here is what it had to cut.
        for engine in engines.values():
            await asyncio.to_thread(engine.stop, drain_s=1.0)

    app = FastAPI(
        title="Tunesmith", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan,
        summary="An OpenAI-compatible server for tuned models",
    )  # fmt: skip
    admit, admin = bearer(token), secrets.token_urlsafe(32)
    if bring is not None:
        add_admin_routes(app, Roster(served, bring, named))
        admit = guarded(admit, admin)
    desk = Desk(served=served, observer=observer, most_tokens=limits.max_tokens, seconds=limits.request_seconds)
    add_routes(app, desk, needs_token=token is not None)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(Exception, _unexpected)
    body = BodyLimits(max_bytes=limits.body_bytes, max_depth=limits.json_depth, seconds=limits.body_seconds)
    app.add_middleware(Gatekeeper, admit=admit, allowed_hosts=tuple(allowed_hosts), limits=body, seen=observer.request)
    app.state.token, app.state.admin = token, admin
    app.state.models, app.state.served = tuple(served), served
    return app


def _engine(bundles: list[LoadedBundle], limits: Limits) -> Engine:
    return Engine(
        bundles,
        max_batch=limits.max_batch,
        max_queue=limits.max_queue,
        cache_columns=limits.cache_columns,
        batch_tokens=limits.batch_tokens,
    )


def named(name: str, bundle: LoadedBundle, engine: Engine) -> dict[str, Served]:
    """The names under which a bundle is asked."""
    whole = Served(name=name, engine=engine, bundle=bundle, labels=bundle.scores_labels)
    if not bundle.scores_labels:
        return {name: whole}
    text = Served(name=name + GENERATE, engine=engine, bundle=bundle, labels=False, open=whole.open)
    return {name: whole, text.name: text}


async def _invalid(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _refused(_, invalid(error.errors()))


async def _refused(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _http(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is no such route", 405: "this route does not take that method"}
    message = words.get(error.status_code, "the request could not be read")
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    refused = Refused(message, status=error.status_code, type=kind)
    return JSONResponse(refused.body, error.status_code, headers=dict(error.headers or {}))


async def _unexpected(_: HttpRequest, __: Exception) -> Response:
    """Our own mistake. The gatekeeper logs where it was, not what it said: that may quote a prompt."""
    return JSONResponse(Refused("internal error", status=500, type="server_error").body, 500)


def token_for(host: str, environment: Mapping[str, str]) -> str | None:
    """The bearer token to ask for: TUNESMITH_TOKEN where it is set, a new one on a non-loopback host, else none.

    Raises InputError for a token too short to protect anything.
    """
    given = environment.get("TUNESMITH_TOKEN", "")
    if given:
        if len(given) < 16 or not given.isascii() or not given.isprintable() or " " in given:
            raise InputError(
                "the token must have at least 16 visible ASCII characters",
                where="TUNESMITH_TOKEN",
                fix="export TUNESMITH_TOKEN=$(openssl rand -hex 24)",
            )
        return given
    return None if is_loopback(host) else secrets.token_urlsafe(32)


def load_and_serve(
    load: Callable[[], Mapping[str, LoadedBundle]],
    *,
    host: str,
    port: int,
    settings: ServeSettings,
    trace: Callable[[dict[str, Any]], None],
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], None] = print,
    bring: Callable[[str], Place] | None = None,
    announce: Path | None = None,
) -> None:
    """The whole of `tunesmith serve`: take the port, then load, then answer until stopped.

    `bring` and `announce` as in create_app and running.announced: where adapters are changed from.
    Raises Busy for a port in use, InputError for a token that protects nothing, and what `load` raises.
    """
    token = token_for(host, environment)
    listener = listen(host, port)
    try:
        app = create_app(
            load(),
            token=token,
            allowed_hosts=hosts_for(host),
            trace=trace,
            store_content=settings.store_content,
            limits=Limits(max_queue=settings.max_queue, max_batch=settings.max_batch, max_tokens=settings.max_tokens),
            bring=bring,
        )
        if token is not None and token != environment.get("TUNESMITH_TOKEN"):
            say(f"A token was made for this run and is shown once:\n\n  export TUNESMITH_TOKEN={token}\n")
        at = address(host, listener.getsockname()[1])
        with announced(announce, at, app.state.admin):
            serve(app, host, port, listener=listener, say=say)
    finally:
        listener.close()


def serve(
    app: FastAPI,
    host: str,
    port: int,
    *,
    listener: socket.socket | None = None,
    say: Callable[[str], None] = print,
    drain_s: int = DRAIN_S,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish running answers for at most `drain_s` seconds.

    Raises InputError for a host that others can reach when the app asks for no token.
    """
    token: str | None = app.state.token
    if not is_loopback(host) and token is None:
        raise InputError(
            f"{host} can be reached by others, and no token is set",
            where="serve.host",
            fix="set TUNESMITH_TOKEN, or serve on 127.0.0.1",
        )
    taken = listener or listen(host, port)
    log_to_stderr()
    say(greeting(app, host, taken.getsockname()[1]))
    try:
        Server(uvicorn_config(app, drain_s)).run(sockets=[taken])
    finally:
        taken.close()


def greeting(app: FastAPI, host: str, port: int) -> str:
    """Where it listens, and what to paste. The token itself is not in it."""
    base = f"{address(host, port)}/v1"
    model = app.state.models[0] if app.state.models else "prod"
    key = "$TUNESMITH_TOKEN" if app.state.token else "none"
    header = '-H "Authorization: Bearer $TUNESMITH_TOKEN" ' if app.state.token else ""
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    python_key = 'os.environ["TUNESMITH_TOKEN"]' if app.state.token else f'"{key}"'
    imports = "import os; from openai import OpenAI" if app.state.token else "from openai import OpenAI"
    return "\n".join(
        [
            f"Listening on {base} ({', '.join(app.state.models)}). Stop with Ctrl-C.",
            "",
            f"  curl {base}/chat/completions {header}-H 'Content-Type: application/json' -d '{body}'",
            "",
            f"  {imports}",
            f'  client = OpenAI(base_url="{base}", api_key={python_key})',
            f'  answer = client.chat.completions.create(model="{model}", messages=[{{"role": "user", "content": "Hello"}}])',
            "  print(answer.choices[0].message.content)",
        ]
    )
