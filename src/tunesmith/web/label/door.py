"""Who may come in: whoever has a personal link, and on loopback the person at this computer.

A personal link carries its token behind the #, which browsers never send: the join page exchanges it for a
cookie that other sites can't use and scripts can't read.
"""

from __future__ import annotations

import hashlib
import ipaddress
from http.cookies import CookieError, SimpleCookie
from typing import cast

from starlette.requests import Request

from tunesmith.http.gatekeeper import Admit, Headers, Scope
from tunesmith.http.refused import Refused
from tunesmith.web.label.room import Person, ReviewRoom

OPEN = frozenset({"/health", "/join", "/api/join"})  # and what the join page needs, below
STATIC = "/static/"
COOKIE_DAYS = 60
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def cookie_name(room: str) -> str:
    """One for each room: cookies know no ports, and two rooms may be open on one machine."""
    return "tunesmith_" + hashlib.sha256(room.encode()).hexdigest()[:12]


def personal(room: ReviewRoom, *, me: str | None) -> Admit:
    """Deny by default. `me`: who a visitor from this computer without a link is; None: a link is needed."""
    name = cookie_name(room.name)

    def admit(scope: Scope, headers: Headers) -> None:
        path = scope["path"]
        if path in OPEN or path.startswith(STATIC):
            return
        token = _cookie(headers, name)
        if token is not None:
            person = room.person(token)  # a link that ended lets nobody in, not even as the owner
        elif me is not None and _is_here(scope):
            person = room.owner(me)
        else:
            person = None
        if person is None:
            raise _unknown(scope, headers)
        scope.setdefault("state", {})["person"] = person

    return admit


def person_of(request: Request) -> Person:
    """Whom the door let in."""
    return cast(Person, request.scope["state"]["person"])


def owner_of(request: Request) -> Person:
    """The same, for what only the owner may do. Raises Refused."""
    person = person_of(request)
    if person.role != "owner":
        raise Refused("only the owner may do that", status=403, type="permission_error", code="not_owner")
    return person


def _unknown(scope: Scope, headers: Headers) -> Refused:
    wants_page = scope["method"] == "GET" and b"text/html" in b",".join(headers.get(b"accept", []))
    if wants_page and not scope["path"].startswith("/api/"):
        return Refused("open your personal link", status=303, code="no_link", headers={"Location": "/join"})
    return Refused(
        "open your personal link; the owner of this room can make you one",
        status=401, type="authentication_error", code="no_link",
    )  # fmt: skip


def _cookie(headers: Headers, name: str) -> str | None:
    for value in headers.get(b"cookie", []):
        try:
            found = SimpleCookie(value.decode("latin-1")).get(name)
        except CookieError:
            continue
        if found is not None:
            return found.value
    return None


def _is_here(scope: Scope) -> bool:
    client = scope.get("client")
    try:
        return client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
