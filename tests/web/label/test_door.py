"""Who may come in, by every route and method; and what the server says of itself."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from tests.review.rooms import Memory
from tests.web.label.conftest import Live, Serve
from tests.web.label.example import example_room
from tunesmith.core.errors import InputError, StorageError
from tunesmith.web.label.app import label_app
from tunesmith.web.label.door import cookie_name
from tunesmith.web.label.pages import BY_STEM, KEYS, RESERVED
from tunesmith.web.label.server import greeting, serve_labels

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
OPEN = {"/health", "/join", "/api/join", "/static/{name}"}
ANNOTATORS = {"/", "/q/{queue}", "/api/q/{queue}", "/api/judge", "/leave"}
OWNERS = {
    "/q/{queue}/disputes", "/api/q/{queue}/disputes", "/api/later", "/overview", "/overview/live", "/overview.json"
}  # fmt: skip
SAID = {"id": "abcdefgh", "queue": "labels", "item": "ticket00000", "verb": "label", "value": "billing"}


def routes(app: Any) -> Iterator[Any]:
    for route in app.routes:
        inner = getattr(route, "routes", None)
        yield from (routes(route) if inner and not isinstance(route, APIRoute) else [route])


def filled(template: str) -> str:
    return template.replace("{queue}", "labels").replace("{name}", BY_STEM["label.css"].rpartition("/")[2])


def call(
    live: Live, method: str, path: str, *, token: str = "", host: str = "", body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    address = live.base.removeprefix("http://")
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or address)
    given = {"Content-Length": str(len(data)), **{k.replace("_", "-"): v for k, v in headers.items()}}
    if token:
        given["Cookie"] = f"{cookie_name('tickets')}={token}"
    if isinstance(body, dict):
        given["Content-Type"] = "application/json"
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


@pytest.fixture
def closed(serve: Serve) -> Live:
    """As on a host that others can reach: nobody comes in without a link."""
    return serve(me=None)


def test_the_matrix_covers_every_route(closed: Live) -> None:
    """A new route fails here first: it has to be thought about, then listed."""
    assert {route.path for route in routes(closed.app)} == OPEN | ANNOTATORS | OWNERS


@pytest.mark.parametrize("method", METHODS)
def test_every_route_refuses_whoever_is_not_allowed(closed: Live, method: str) -> None:
    ann = closed.room.invite("ann")
    ended, closed_again = closed.room.invite("ben"), closed.room.invite("ben")
    assert ended != closed_again
    address = closed.base.removeprefix("http://")
    for template in [*(r.path for r in routes(closed.app)), "/nowhere", "/q/../overview", "//overview", "/Overview"]:
        path = filled(template)
        for host, headers in (
            ("evil.example", {}),
            (f"{address}.evil.example", {}),
            ("", {"Origin": "http://evil.example"}),
            ("", {"Origin": "null"}),
            ("", {"Origin": f"https://{address}"}),
        ):
            assert call(closed, method, path, token=ann, host=host, **headers)[0] == 403, (method, path, host, headers)
        if template in OPEN:
            continue
        for token in ("", "wrong", ann + "x", ended):
            assert call(closed, method, path, token=token)[0] == 401, (method, path, token)
        if template in OWNERS:
            assert call(closed, method, path, token=ann, body={"queue": "labels", "item": "x"})[0] in (403, 405)
    assert closed.said() == []


def test_a_link_opens_what_its_holder_may_do(closed: Live) -> None:
    ann, olga = closed.room.invite("ann"), closed.room.invite("olga", "owner")
    for template in ANNOTATORS | OWNERS:
        path = filled(template)
        if template in ("/api/judge", "/api/later", "/leave"):
            continue
        assert call(closed, "GET", path, token=olga)[0] in (200, 303), path
        assert call(closed, "GET", path, token=ann)[0] == (403 if template in OWNERS else 303 if path == "/" else 200)
    status, _, body = call(closed, "POST", "/api/judge", token=ann, body=SAID)
    answer = json.loads(body)
    assert status == 200 and answer["kept"] == "abcdefgh" and answer["progress"]["given"] == 1
    assert len(answer["items"]) == 3 and all("I can&#39;t" in i["html"] for i in answer["items"])
    ruling = SAID | {"id": "ijklmnop", "verb": "adjudicate"}
    assert call(closed, "POST", "/api/judge", token=ann, body=ruling)[0] == 403
    form = b"id=ijklmnop&item=ticket00000&adjudicate=billing"
    assert call(closed, "POST", "/q/labels", token=ann, body=form)[0] == 403
    assert call(closed, "POST", "/q/labels/disputes", token=ann, body=form)[0] == 403
    assert call(closed, "POST", "/overview", token=ann, body=b"name=eve&role=owner")[0] == 403
    assert len(closed.said()) == 1


def test_a_page_without_a_link_leads_to_the_join_page_and_programs_are_refused(closed: Live) -> None:
    status, headers, body = call(closed, "GET", "/q/labels", Accept="text/html,*/*")
    assert status == 303 and headers["location"] == "/join" and b"ticket" not in body
    assert call(closed, "GET", "/api/q/labels", Accept="text/html")[0] == 401
    assert call(closed, "POST", "/q/labels", Accept="text/html", body=b"")[0] == 401


def test_the_cookie_is_strict_hidden_from_scripts_and_leaves_with_its_holder(closed: Live) -> None:
    ann = closed.room.invite("ann")
    status, headers, _ = call(closed, "POST", "/api/join", body={"token": ann})
    cookie = headers["set-cookie"]
    assert status == 200 and "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
    assert call(closed, "POST", "/api/join", body={"token": "wrong"})[0] == 403
    status, headers, _ = call(closed, "POST", "/join", body=b"link=https://x/join%23" + ann.encode())
    assert status == 303 and "set-cookie" in headers
    assert call(closed, "POST", "/join", body=b"link=wrong")[0] == 403
    status, headers, _ = call(closed, "POST", "/leave", token=ann)
    assert status == 303 and "Max-Age=0" in headers["set-cookie"]


def test_on_loopback_the_owner_needs_no_link_but_an_ended_link_is_not_the_owner(serve: Serve) -> None:
    live = serve(me="olga")
    assert call(live, "GET", "/overview")[0] == 200
    ann = live.room.invite("ann")
    assert call(live, "GET", "/overview", token=ann)[0] == 403
    live.room.invite("ann")
    assert call(live, "GET", "/q/labels", token=ann)[0] == 401


def test_answers_let_a_browser_do_no_more_than_the_page_needs(serve: Serve) -> None:
    live = serve()
    for path in ("/q/labels", "/overview", "/join", "/api/q/labels"):
        status, headers, body = call(live, "GET", path)
        policy = dict(p.strip().partition(" ")[::2] for p in headers["content-security-policy"].split(";"))
        assert status == 200 and policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'" and "unsafe" not in str(policy)
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin" and "access-control-allow-origin" not in headers
        assert b"<script>" not in body and b" onclick" not in body and b"style=" not in body and b"http" not in body
    for stem, path in BY_STEM.items():
        status, headers, body = call(live, "GET", path)
        assert status == 200 and "immutable" in headers["cache-control"] and len(body) < 20_000, stem
    assert call(live, "GET", "/static/label.css")[0] == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400), (b"{", 400), (b"[]", 400), (SAID | {"more": 1}, 400), (SAID | {"verb": "dance"}, 400),
        (SAID | {"value": ["a"]}, 400), (SAID | {"seconds": -1}, 400), (SAID | {"seconds": "1"}, 400),
        (SAID | {"reason": "x" * 2001}, 400), (SAID | {"queue": "nowhere"}, 409), (SAID | {"item": "nothing"}, 409),
        (SAID | {"value": "weather"}, 409), (SAID | {"id": "../../etc"}, 409), (SAID | {"verb": "skip", "value": None}, 409),
        (b"x" * (1 << 20) + b"x", 413), (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", 400),
        (b'{"id": "abcdefgh", "queue": "labels", "item": "ticket00000", "verb": "skip", "reason": "\\ud800"}', 400),
    ],
)  # fmt: skip
def test_bodies_are_bounded_and_understood_or_refused(serve: Serve, body: Any, status: int) -> None:
    live = serve()
    got, _, answer = call(live, "POST", "/api/judge", body=body, Content_Type="application/json")
    assert got == status and set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
    assert live.said() == []


@pytest.mark.parametrize(
    "form",
    [b"", b"label=billing", b"id=abcdefgh&item=ticket00000&label=weather", b"id=abcdefgh&item=ticket00000&skip=", b"\xff\xfe",
     b"id=abcdefgh&item=ticket00000&adjudicate={", b"&".join(b"a%d=1" % n for n in range(60))],
)  # fmt: skip
def test_forms_that_say_nothing_are_refused_with_the_page(serve: Serve, form: bytes) -> None:
    live = serve()
    status, _, body = call(live, "POST", "/q/labels", body=form)
    assert status in (400, 409) and live.said() == []
    assert status == 400 or b'role="alert"' in body


def test_a_full_disk_is_said_as_something_to_try_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    live = serve()

    def full(*_: Any) -> None:
        raise StorageError("the disk is full", fix="free some space")

    monkeypatch.setattr(live.judgments, "append", full)
    status, headers, body = call(live, "POST", "/api/judge", body=SAID)
    assert status == 503 and headers["retry-after"] and b"the disk is full" in body
    monkeypatch.undo()
    assert call(live, "POST", "/api/judge", body=SAID)[0] == 200


def test_queues_that_do_not_exist_are_not_found(serve: Serve) -> None:
    live = serve()
    for path in ("/q/nothing", "/q/nothing/disputes", "/api/q/nothing", "/q/%2e%2e%2fetc"):
        assert call(live, "GET", path)[0] == 404


def test_the_page_is_whole_without_scripts_and_small(serve: Serve) -> None:
    live = serve()
    _, _, body = call(live, "GET", "/q/labels")
    page = body.decode()
    assert len(body) < 15_000 and page.count("<form") >= 3 and "I was charged twice" in page
    for label in ("billing", "technical problem"):
        assert f'name="label" value="{label}"' in page


def test_keys_are_all_different_and_leave_the_verbs_alone() -> None:
    assert len(set(KEYS)) == len(KEYS) and not set(KEYS) & set(RESERVED + "/?")


def test_hosts_others_can_reach_get_a_link_and_loopback_gets_an_address() -> None:
    room = example_room(Memory())
    here = greeting(room, "127.0.0.1", 8473, "olga")
    assert "http://127.0.0.1:8473/" in here and "#" not in here
    there = greeting(room, "192.0.2.7", 8473, "olga")
    token = there.partition("/join#")[2].split()[0]
    person = room.person(token)
    assert person is not None and (person.name, person.role) == ("olga", "owner") and "not encrypted" in there
    with pytest.raises(InputError, match="needs a name"):
        serve_labels(room, host="127.0.0.1", port=0, me="")


def test_an_app_needs_no_people_to_start() -> None:
    assert label_app(example_room(Memory()), me=None, allowed_hosts=()).routes
