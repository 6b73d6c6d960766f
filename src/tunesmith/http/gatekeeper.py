"""The one door: every request passes here before any route, and is refused unless it is allowed.

Host must be on a list (a page that rebinds its DNS name to this machine sends its own name), a foreign
Origin is refused (browsers of other sites), the server's own rule says who may come in (a bearer token,
a person's cookie), bodies are capped and may not nest deeply. Answers carry headers that allow a browser
to do nothing with them but what the server's own policy says.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from tunesmith.http.log import error_line
from tunesmith.http.refused import Refused, too_deep

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, list[bytes]]
Admit = Callable[[Scope, Headers], None]  # raises Refused; may leave who it is in scope["state"]

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(?::[0-9]{1,5})?")  # a name or an address, and a port
OPEN = frozenset({"/health"})  # the only path that needs no bearer token
NOTHING = "default-src 'none'; frame-ancestors 'none'"


def sealing(policy: str, referrer: str) -> list[tuple[bytes, bytes]]:
    """Headers of every answer; `policy` is what a browser may do with it (Content-Security-Policy)."""
    return [
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", policy.encode()),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", referrer.encode()),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What a request's body may be. A slow or huge sender is cut off, not waited for."""

    max_bytes: int
    max_depth: int
    seconds: float  # to send the whole body


def bearer(token: str | None) -> Admit:
    """Whoever shows the token may come in. None: no token is asked for, which is only right on loopback."""
    secret = token.encode() if token is not None else None

    def admit(scope: Scope, headers: Headers) -> None:
        if secret is None or scope["path"] in OPEN:
            return
        given = headers.get(b"authorization", [])
        scheme, _, value = (given[0] if len(given) == 1 else b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(value.strip(), secret):
            raise Refused(
                "a valid token is needed: Authorization: Bearer <token>",
                status=401, type="authentication_error", code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    return admit


class Gatekeeper:
    """ASGI middleware. `seen` is told of every exchange that is over: scope, status, seconds."""

    def __init__(
        self,
        app: App,
        *,
        admit: Admit,
        allowed_hosts: Iterable[str],
        limits: BodyLimits,
        seen: Callable[[Scope, int, float], None],
        policy: str = NOTHING,
        referrer: str = "no-referrer",  # under which browsers post forms as of origin null: pages need same-origin
    ) -> None:
        self._app = app
        self._ask = admit
        self._hosts = frozenset(h.lower() for h in allowed_hosts)
        self._limits = limits
        self._seen = seen
        self._sealing = sealing(policy, referrer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # websockets: there are none
            return await send({"type": "websocket.close", "code": 1008})
        started = time.perf_counter()
        seen: dict[str, int] = {"status": 500}

        async def sealed_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                seen["started"] = 1
                given = list(message.get("headers", ()))
                own = {name.lower() for name, _ in given if name.lower() == b"cache-control"}  # may be kept longer
                message = {**message, "headers": given + [h for h in self._sealing if h[0] not in own]}
            await send(message)

        try:
            headers = _headers(scope)
            self._admit(scope, headers)
            body = await self._body(scope, headers, receive)
            await self._app(scope, body, sealed_send)
        except Refused as e:
            if scope.get("unread"):  # the rest of the body was never taken in: this connection is over
                e.headers["Connection"] = "close"
            await _refuse(e, sealed_send)
        except Exception as e:  # our own mistake: said in the log without the request's content
            error_line(e)
            if "started" not in seen:
                await _refuse(Refused("internal error", status=500, type="server_error"), sealed_send)
        finally:
            self._seen(scope, seen["status"], time.perf_counter() - started)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        host = headers.get(b"host", [])
        if len(host) != 1 or not self._knows(host[0].decode("latin-1").lower(), scope):
            raise Refused(
                "this server does not answer under that Host name; add it to the allowed hosts",
                status=403, type="permission_error", code="host_not_allowed",
            )  # fmt: skip
        origins = headers.get(b"origin", [])
        own = f"{scope.get('scheme', 'http')}://{host[0].decode('latin-1')}".lower()
        if any(o.decode("latin-1").lower() != own for o in origins):
            raise Refused(
                "requests from other origins are refused", status=403, type="permission_error", code="foreign_origin"
            )
        self._ask(scope, headers)

    def _knows(self, host: str, scope: Scope) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1]
        if name in self._hosts:
            return True
        # An address can't be rebound as a name can: the one that this very connection came in on is ours.
        server = scope.get("server")
        try:
            return server is not None and ipaddress.ip_address(name.strip("[]")) == ipaddress.ip_address(server[0])
        except ValueError:
            return False

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """The whole body, capped, then handed on as one message. GET and HEAD have none that we read."""
        if scope["method"] in ("GET", "HEAD"):
            return receive
        too_large = Refused(
            f"the body is larger than {self._limits.max_bytes} bytes", status=413, code="request_too_large"
        )
        declared = headers.get(b"content-length", [b"0"])[0]
        scope["unread"] = True
        if declared.isdigit() and int(declared[:20]) > self._limits.max_bytes:
            raise too_large
        chunks: list[bytes] = []
        size = 0
        deadline = time.monotonic() + self._limits.seconds
        while True:
            message = await _within(receive(), deadline)
            if message["type"] == "http.disconnect":
                raise Refused("the client left", status=400)
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._limits.max_bytes:
                raise too_large
            if not message.get("more_body"):
                break
        scope["unread"] = False
        body = b"".join(chunks)
        if too_deep(body, self._limits.max_depth):
            raise Refused(f"the JSON nests deeper than {self._limits.max_depth} levels", code="too_deep")
        given = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()  # from here on: only the client's leaving

        return replay


async def _within(awaitable: Awaitable[MutableMapping[str, Any]], deadline: float) -> MutableMapping[str, Any]:
    try:
        return await asyncio.wait_for(awaitable, max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        raise Refused("the body did not arrive in time", status=408, code="body_timeout") from None


def _headers(scope: Scope) -> Headers:
    found: Headers = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


async def _refuse(refused: Refused, send: Send) -> None:
    body = json.dumps(refused.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(k.lower().encode(), v.encode()) for k, v in refused.headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
