"""One door, deny by default: every route and method, every way of not being allowed."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from tests.serve.conftest import Live, _start
from tunesmith.core.errors import InputError
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.server import Limits, create_app, greeting, hosts_for, serve, token_for

TOKEN = "the-right-token-0123456789"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
KNOWN = {
    "/health",
    "/metrics",
    "/openapi.json",
    "/v1/models",
    "/v1/models/{model}",
    "/v1/chat/completions",
    "/v1/completions",
}
CHAT = {"model": "prod", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def closed(chat_bundle: LoadedBundle) -> Iterator[Live]:
    stops: list[Any] = []
    yield _start(stops, {"prod": chat_bundle}, token=TOKEN, body_bytes=20_000, body_seconds=1.0)
    for stop in stops:
        stop()


def paths(live: Live) -> list[str]:
    return sorted({getattr(route, "path", "?") for route in _routes(live.app.routes)})


def _routes(routes: Any) -> Iterator[Any]:
    for route in routes:
        inner = getattr(route, "routes", None)
        if inner and not isinstance(route, APIRoute):
            yield from _routes(inner)
        else:
            yield route


def call(
    live: Live, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None, host: str = ""
) -> tuple[int, dict[str, str], bytes]:
    address = live.base.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or address)
    for name, value in {"Content-Length": str(len(body or b"")), **(headers or {})}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


RIGHT = {"Authorization": f"Bearer {TOKEN}"}


def test_the_matrix_covers_every_route(closed: Live) -> None:
    """A new route fails here first: it has to be thought about, then listed."""
    assert set(paths(closed)) == KNOWN


@pytest.mark.parametrize("method", METHODS)
def test_every_route_refuses_whoever_is_not_allowed(closed: Live, method: str) -> None:
    address = closed.base.removeprefix("http://")
    for template in [*paths(closed), "/nowhere", "/v1/", "//health", "/health/", "/HEALTH", "/%68ealth", "/docs"]:
        path = template.replace("{model}", "prod")
        needs_token = path not in ("/health", "/%68ealth")
        attempts = [
            (401, {}, ""),
            (401, {"Authorization": "Bearer wrong"}, ""),
            (401, {"Authorization": f"Bearer {TOKEN}x"}, ""),
            (401, {"Authorization": f"Basic {TOKEN}"}, ""),
            (401, {"Authorization": TOKEN}, ""),
            (403, RIGHT, "evil.example"),
            (403, RIGHT, f"{address}.evil.example"),
            (403, RIGHT, "127.0.0.1.evil.example:80"),
            (403, RIGHT | {"Origin": "http://evil.example"}, ""),
            (403, RIGHT | {"Origin": "null"}, ""),
            (403, RIGHT | {"Origin": f"https://{address}"}, ""),
        ]
        for status, headers, host in attempts:
            if status == 401 and not needs_token:
                continue
            got, _, body = call(closed, method, path, headers, host=host)
            assert got == status, (method, path, headers, host)
            if method != "HEAD":
                assert json.loads(body)["error"]["type"] in ("authentication_error", "permission_error")


def test_the_right_token_opens_every_route(closed: Live) -> None:
    for path in ("/health", "/metrics", "/openapi.json", "/v1/models", "/v1/models/prod"):
        assert call(closed, "GET", path, RIGHT)[0] == 200
    body = json.dumps(CHAT).encode()
    own = RIGHT | {"Content-Type": "application/json", "Origin": closed.base}
    assert call(closed, "POST", "/v1/chat/completions", own, body)[0] == 200
    assert call(closed, "GET", "/health")[0] == 200


def test_answers_and_refusals_let_a_browser_do_nothing(closed: Live) -> None:
    for headers in (RIGHT, {}):
        _, found, _ = call(closed, "GET", "/v1/models", headers)
        assert found["x-content-type-options"] == "nosniff"
        assert found["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert found["cache-control"] == "no-store" and found["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in found and "set-cookie" not in found


@pytest.mark.parametrize(
    "body, status, message",
    [
        (b"x" * 20_001, 413, "larger than 20000 bytes"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", 400, "nests deeper than 16 levels"),
        (b'{"a": "' + b"[" * 40 + b'"}', 400, "Unrecognized request argument supplied: a"),  # brackets in a string
        (b"{", 400, "not valid JSON"),
        (b"", 400, "A body is needed"),
        (b"[]", 400, "valid dictionary"),
        (b"\xff\xfe{}", 400, ""),
        (b'{"model": "prod", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "messages[0].content"),
        (b'{"model": "prod", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}', 400, "temperature"),
        (b'{"model": "prod", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1e400}', 400, "max_tokens"),
        (
            b'{"model": "prod", "messages": [{"role": "user", "content": "a"}], "max_tokens": ' + b"9" * 5000 + b"}",
            400,
            "",
        ),
        (b'{"model": "prod", "messages": [{"role": "user", "content": "a"}], "max_tokens": -1}', 400, "max_tokens"),
        (b'{"model": "prod", "messages": [{"role": "user", "content": "a"}], "n": true}', 400, "n"),
        (
            b'{"model": "prod", "messages": [{"role": "user", "content": "a"}], "seed": 9223372036854775808}',
            400,
            "seed",
        ),
    ],
)
def test_bodies_are_bounded_and_understood_or_refused(closed: Live, body: bytes, status: int, message: str) -> None:
    headers = RIGHT | {"Content-Type": "application/json"}
    got, _, answer = call(closed, "POST", "/v1/chat/completions", headers, body)
    error = json.loads(answer)["error"]
    assert got == status and set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]


def test_a_body_that_lies_about_its_length_or_never_comes_is_cut_off(closed: Live) -> None:
    headers = RIGHT | {"Content-Type": "application/json", "Content-Length": "100"}
    got, _, body = call(closed, "POST", "/v1/chat/completions", headers, b"{")
    assert got == 408 and b"did not arrive in time" in body
    chunk = b"5000\r\n" + b" " * 0x5000 + b"\r\n"
    headers = RIGHT | {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    address = closed.base.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.putrequest("POST", "/v1/chat/completions")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(chunk * 2)
    assert connection.getresponse().status == 413
    connection.close()


def test_unknown_routes_and_methods_speak_openais_error_shape(closed: Live) -> None:
    for method, path, status in (
        ("GET", "/v1/nowhere", 404),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/completions", 405),
    ):
        got, headers, body = call(closed, method, path, RIGHT)
        assert got == status and set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
        assert status != 405 or headers["allow"]


TRAVERSALS = [
    prefix + form + target
    for prefix in ("", "/", "prod/", "file://")
    for form in (
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%252f",
        "..\\",
        "..%5c",
        "%c0%ae%c0%ae/",
        "....//",
        "..;/",
        "\x00../".replace("\x00", "%00"),
    )
    for target in ("../../etc/passwd", "../../proc/self/environ", "tunesmith.json")
]


def test_no_parameter_is_a_path(closed: Live) -> None:
    """Every traversal form in the one path parameter and in every text field: refused, and no file's content."""
    headers = RIGHT | {"Content-Type": "application/json"}
    for form in TRAVERSALS:
        got, _, body = call(closed, "GET", f"/v1/models/{form}", RIGHT)
        assert got == 404, form
        assert b"root:" not in body and b"PATH=" not in body and b"sha256" not in body
        for field in ("model", "user", "seed", "stop"):
            got, _, body = call(
                closed, "POST", "/v1/chat/completions", headers, json.dumps(CHAT | {field: form}).encode()
            )
            assert got == {"model": 404, "seed": 400}.get(field, 200), (field, form)
            assert b"root:" not in body and b"PATH=" not in body and b"sha256" not in body


def test_loopback_needs_no_token_and_other_hosts_always_have_one() -> None:
    assert token_for("127.0.0.1", {}) is None and token_for("::1", {}) is None and token_for("localhost", {}) is None
    made = {token_for("0.0.0.0", {}) for _ in range(2)}
    assert len(made) == 2 and all(t and len(t) >= 32 for t in made)
    assert token_for("127.0.0.1", {"TUNESMITH_TOKEN": TOKEN}) == TOKEN
    with pytest.raises(InputError, match="at least 16 visible ASCII characters"):
        token_for("0.0.0.0", {"TUNESMITH_TOKEN": "short"})
    assert "evil.example" not in hosts_for("0.0.0.0")


def test_an_open_host_without_a_token_is_refused(chat_bundle: LoadedBundle) -> None:
    limits = Limits(max_queue=1, max_batch=1, max_tokens=8)
    app = create_app(
        {"prod": chat_bundle}, token=None, allowed_hosts=(), trace=print, store_content=False, limits=limits
    )
    with pytest.raises(InputError, match="can be reached by others, and no token is set"):
        serve(app, "0.0.0.0", 0)


def test_the_greeting_can_be_pasted_and_holds_no_token(chat_bundle: LoadedBundle) -> None:
    limits = Limits(max_queue=1, max_batch=1, max_tokens=8)
    app = create_app(
        {"prod": chat_bundle}, token=TOKEN, allowed_hosts=(), trace=print, store_content=False, limits=limits
    )
    text = greeting(app, "0.0.0.0", 8471)
    assert "curl http://127.0.0.1:8471/v1/chat/completions" in text and TOKEN not in text
    assert 'api_key=os.environ["TUNESMITH_TOKEN"]' in text and 'model="prod"' in text
