"""One OpenAI-compatible endpoint, asked politely: bounded waiting, no redirect followed, the token kept to itself.

Only `https`, or `http` to this machine. The standard library does it, so that nothing reads proxies or settings from
the environment.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tunesmith.core.errors import InputError, Stopped, TunesmithError
from tunesmith.core.stage import Clock

TIMEOUT_S = 120.0  # without a byte
LONGEST_REPLY_S = 600.0
TRIES = 6
FIRST_WAIT_S = 1.0  # doubles each time
LONGEST_WAIT_S = 60.0  # also of what the endpoint asks for with Retry-After
LIMIT = 1 << 22  # bytes of a reply
PATH = "/chat/completions"
AGAIN = {408, 409, 425, 429}  # and every 5xx
THIS_REQUEST = {400, 413, 422}  # what was asked, not how the endpoint is reached


class Refused(Exception):
    """The endpoint refuses this one request for good; others may pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    host: str
    port: int | None
    secure: bool
    path: str
    token: str  # never shown

    def __repr__(self) -> str:
        return f"Endpoint({'https' if self.secure else 'http'}://{self.host}{self.path})"


def endpoint(url: str, token_env: str) -> Endpoint:
    """Raises InputError for a URL that could leak the token or the text, and for a token that is not set."""
    where = "documents.teacher.url"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise InputError(f"{url!r} is no URL", where=where, fix="https://HOST/v1") from e
    if parts.username or parts.password or parts.query or parts.fragment:
        what = "has a name, a password, a query or a fragment in it; what is in a URL is kept and shown"
        raise InputError(f"the URL {what}", where=where, fix="put the token into an environment variable: token_env")
    host = parts.hostname or ""
    if not host or parts.scheme not in ("http", "https"):
        raise InputError(f"{url!r} is no http or https URL", where=where, fix="https://HOST/v1")
    if parts.scheme == "http" and not _is_here(host):
        what = f"{host} is another machine, and http would send the documents and the token in the clear"
        raise InputError(what, where=where, fix=f"https://{parts.netloc}{parts.path}")
    token = ""
    if token_env:
        token = os.environ.get(token_env, "").strip()
        if not token:
            raise InputError(
                f"the environment variable {token_env} is not set",
                where="documents.teacher.token_env",
                fix=f"export {token_env}=...",
            )
        if not token.isascii() or not token.isprintable():
            raise InputError(
                f"the token in {token_env} has characters that no header may hold",
                where="documents.teacher.token_env",
                fix="copy it again",
            )
    path = parts.path.rstrip("/")
    return Endpoint(
        host=host,
        port=port,
        secure=parts.scheme == "https",
        path=path if path.endswith(PATH) else path + PATH,
        token=token,
    )


def _is_here(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ask(to: Endpoint, body: Mapping[str, Any], stop: threading.Event, *, first_wait_s: float = FIRST_WAIT_S) -> Any:
    """The reply's JSON. Waits and tries again after 408, 409, 425, 429, 5xx and broken connections.

    Raises Refused for 400, 413 and 422; InputError for every other refusal and for redirects; TunesmithError if the
    endpoint does not answer in TRIES tries; Stopped. A reply that is lost after it was sent is paid for again: the
    protocol has no way to ask for it.
    """
    said = ""
    for attempt in range(TRIES):
        if stop.is_set():
            raise Stopped("stopped; replies so far are kept", fix="run the same command again to go on")
        wait = min(first_wait_s * 2**attempt, LONGEST_WAIT_S)
        try:
            status, headers, raw = _once(to, body)
        except (OSError, http.client.HTTPException) as e:
            if isinstance(e, ssl.SSLCertVerificationError):
                raise InputError(
                    f"the certificate of {to.host} is not trusted", where="documents.teacher.url", fix="check the host"
                ) from e
            said = f"{type(e).__name__}"
        else:
            if status == 200:
                return _json(raw, to)
            if status not in AGAIN and status < 500:
                raise _refusal(status, headers, raw, to)
            said = f"HTTP {status}"
            wait = _asked_to_wait(headers, wait)
        if attempt + 1 < TRIES:
            stop.wait(wait)
    raise TunesmithError(
        f"the teacher at {to.host} did not answer in {TRIES} tries ({said}); the replies so far are kept",
        where="documents.teacher.url",
        fix="run the same command again later: nothing is asked twice",
    )


def _once(to: Endpoint, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
    connection: http.client.HTTPConnection
    if to.secure:
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(to.host, to.port, timeout=TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(to.host, to.port, timeout=TIMEOUT_S)
    try:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if to.token:
            headers["Authorization"] = f"Bearer {to.token}"
        connection.request("POST", to.path, json.dumps(body).encode("utf-8"), headers)
        reply = connection.getresponse()
        raw = _read(reply)
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, raw
    finally:
        connection.close()


def _read(reply: http.client.HTTPResponse) -> bytes:
    """At most a byte more than LIMIT. Raises TimeoutError for an endpoint that trickles."""
    clock = Clock()
    raw = bytearray()
    while len(raw) <= LIMIT and (piece := reply.read1(1 << 16)):
        raw += piece
        if clock.seconds > LONGEST_REPLY_S:
            raise TimeoutError
    if reply.length and len(raw) <= LIMIT:
        raise http.client.IncompleteRead(bytes(raw), reply.length)  # cut off: read1 alone does not say so
    return bytes(raw[: LIMIT + 1])


def _json(raw: bytes, to: Endpoint) -> Any:
    """None for what is no JSON or too long: a malformed reply, which the caller counts."""
    if len(raw) > LIMIT:
        return None
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _refusal(status: int, headers: Mapping[str, str], raw: bytes, to: Endpoint) -> Exception:
    where = "documents.teacher"
    if status in THIS_REQUEST:
        return Refused(f"HTTP {status}{_code(raw)}")
    if 300 <= status < 400:
        target = urlsplit(headers.get("location", "")).hostname or "elsewhere"
        what = f"{to.host} redirects to {target}; no redirect is followed, so that the token goes nowhere else"
        return InputError(what, where=f"{where}.url", fix="name the final URL")
    if status in (401, 403):
        return InputError(f"{to.host} refuses the token (HTTP {status})", where=f"{where}.token_env", fix="check it")
    if status == 404:
        what = f"{to.host} has no {to.path}, or no such model (HTTP 404)"
        return InputError(what, where=f"{where}.url", fix="the URL ends before /chat/completions, often with /v1")
    return InputError(f"{to.host} answers HTTP {status}", where=f"{where}.url", fix="check the URL and the model")


def _code(raw: bytes) -> str:
    """The error's own code, if it is one: its message may repeat the passage, and errors are kept."""
    try:
        error = json.loads(raw[:LIMIT]).get("error", {})
        code = error.get("code") or error.get("type")
    except (ValueError, AttributeError):
        return ""
    return f" ({code})" if isinstance(code, str) and re.fullmatch(r"\w{1,40}", code, re.ASCII) else ""


def _asked_to_wait(headers: Mapping[str, str], otherwise: float) -> float:
    try:
        return min(max(float(headers.get("retry-after", "")), 0.0), LONGEST_WAIT_S)
    except ValueError:
        return otherwise
