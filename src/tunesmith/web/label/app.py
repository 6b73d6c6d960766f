"""The labelling server: pages for people, the same facts as JSON for their scripts, one door before both.

app = label_app(room, me="ann", allowed_hosts=hosts_for("127.0.0.1"))
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from tunesmith.core.errors import InputError, StorageError
from tunesmith.http.gatekeeper import BodyLimits, Gatekeeper, Scope
from tunesmith.http.log import log
from tunesmith.http.refused import Refused
from tunesmith.web.label.door import COOKIE_DAYS, POLICY, cookie_name, owner_of, person_of, personal
from tunesmith.web.label.pages import STATIC, fragment, join_page, label_page, overview_page
from tunesmith.web.label.room import Person, ReviewRoom

LIMITS = BodyLimits(max_bytes=1 << 20, max_depth=8, seconds=30.0)
FOREVER = "public, max-age=31536000, immutable"  # the name changes with the content
VERBS = ("label", "correct", "approve", "reject", "skip", "undo", "adjudicate")

Someone = Annotated[Person, Depends(person_of)]
Owner = Annotated[Person, Depends(owner_of)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Said(Body):
    """A judgment as a page sends it; the room checks what it means."""

    id: Annotated[str, Field(max_length=64)]
    queue: Annotated[str, Field(max_length=200)]
    item: Annotated[str, Field(max_length=200)]
    verb: Literal["label", "correct", "approve", "reject", "skip", "undo", "adjudicate"]
    value: str | dict[str, str] | None = None
    reason: Annotated[str, Field(max_length=2000)] = ""
    seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 0.0


class Later(Body):
    queue: Annotated[str, Field(max_length=200)]
    item: Annotated[str, Field(max_length=200)]


class Token(Body):
    token: Annotated[str, Field(max_length=200)]


def label_app(room: ReviewRoom, *, me: str | None, allowed_hosts: Iterable[str]) -> FastAPI:
    """An ASGI app. `me`: the owner's name on loopback, who needs no link; None: everybody needs one."""
    app = FastAPI(title="Tunesmith labelling", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    queues = {q["name"]: q for q in room.queues()}
    _open_routes(app, room)
    _label_routes(app, room, queues)
    _dispute_routes(app, room, queues)
    _owner_routes(app, room)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(InputError, _cannot_be)
    app.add_exception_handler(StorageError, _disk)
    app.add_exception_handler(RequestValidationError, _no_judgment)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(
        Gatekeeper,
        admit=personal(room, me=me),
        allowed_hosts=tuple(allowed_hosts),
        limits=LIMITS,
        seen=_seen,
        policy=POLICY,
        referrer="same-origin",
    )
    return app


def _open_routes(app: FastAPI, room: ReviewRoom) -> None:
    @app.get("/health")
    def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            raise Refused("there is no such file", status=404)
        content, media = STATIC[name]
        return Response(content, media_type=media, headers={"Cache-Control": FOREVER})

    @app.get("/join")
    def join() -> Response:
        return HTMLResponse(join_page(room.name, ""))

    @app.post("/join")
    async def join_by_form(request: Request) -> Response:
        link = _form(await request.body()).get("link", "")
        token = link.rpartition("#")[2].strip()
        if room.person(token) is None:
            return HTMLResponse(join_page(room.name, "This link opens nothing. Ask for a new one."), 403)
        return _with_cookie(request, RedirectResponse("/", 303), room, token)

    @app.post("/api/join")
    def join_by_script(request: Request, body: Token) -> Response:
        person = room.person(body.token)
        if person is None:
            raise Refused("this link opens nothing; ask for a new one", status=403, type="permission_error")
        return _with_cookie(request, JSONResponse({"name": person.name}), room, body.token)


def _label_routes(app: FastAPI, room: ReviewRoom, queues: dict[str, dict[str, Any]]) -> None:
    def page(person: Person, name: str, problem: str = "", status: int = 200) -> Response:
        queue = _queue(queues, name)
        asked = room.ask(person.name, name)
        return HTMLResponse(label_page(room, person, queue, asked, disputes=False, problem=problem), status)

    @app.get("/")
    def start(person: Someone) -> Response:
        return RedirectResponse(f"/q/{next(iter(queues))}", 303)

    @app.get("/q/{queue}")
    def label(person: Someone, queue: str) -> Response:
        return page(person, queue)

    @app.post("/q/{queue}")
    async def label_by_form(request: Request, person: Someone, queue: str) -> Response:
        fields = _form(await request.body())
        kind = _queue(queues, queue)["kind"]
        try:
            await run_in_threadpool(_judge, room, person, _draft(fields, queue, kind))
        except InputError as e:
            return await run_in_threadpool(page, person, queue, str(e), 409)
        return RedirectResponse(f"/q/{queue}", 303)

    @app.get("/api/q/{queue}")
    def ask(person: Someone, queue: str) -> Response:
        found = _queue(queues, queue)
        return JSONResponse(_asked(room.ask(person.name, queue), found, disputes=False))

    @app.post("/api/judge")
    def judge(person: Someone, body: Said) -> Response:
        """Answered when the judgment is on disk, with what is asked next."""
        kept = _judge(room, person, body.model_dump())
        return JSONResponse({"kept": kept["id"]} | _next(room, person, _queue(queues, body.queue), body))

    @app.post("/leave")
    def leave(person: Someone) -> Response:
        answer = RedirectResponse("/join", 303)
        answer.delete_cookie(cookie_name(room.name), path="/", httponly=True, samesite="strict")
        return answer


def _dispute_routes(app: FastAPI, room: ReviewRoom, queues: dict[str, dict[str, Any]]) -> None:
    def page(person: Person, name: str, problem: str = "", status: int = 200) -> Response:
        queue = _queue(queues, name)
        asked = room.ask_disputes(person.name, name)
        return HTMLResponse(label_page(room, person, queue, asked, disputes=True, problem=problem), status)

    @app.get("/q/{queue}/disputes")
    def disputes(person: Owner, queue: str) -> Response:
        return page(person, queue)

    @app.post("/q/{queue}/disputes")
    async def adjudicate_by_form(request: Request, person: Owner, queue: str) -> Response:
        fields = _form(await request.body())
        kind = _queue(queues, queue)["kind"]
        try:
            if "later" in fields:
                await run_in_threadpool(room.put_off, person.name, queue, fields.get("item", ""))
            else:
                await run_in_threadpool(_judge, room, person, _draft(fields, queue, kind))
        except InputError as e:
            return await run_in_threadpool(page, person, queue, str(e), 409)
        return RedirectResponse(f"/q/{queue}/disputes", 303)

    @app.get("/api/q/{queue}/disputes")
    def ask_disputes(person: Owner, queue: str) -> Response:
        found = _queue(queues, queue)
        return JSONResponse(_asked(room.ask_disputes(person.name, queue), found, disputes=True))

    @app.post("/api/later")
    def later(person: Owner, body: Later) -> Response:
        queue = _queue(queues, body.queue)
        room.put_off(person.name, body.queue, body.item)
        return JSONResponse(_asked(room.ask_disputes(person.name, body.queue), queue, disputes=True))


def _owner_routes(app: FastAPI, room: ReviewRoom) -> None:
    def page(person: Person, *, link: tuple[str, str] | None = None, problem: str = "", live: bool = False) -> str:
        return overview_page(room.overview(), person, link=link, problem=problem, live=live)

    @app.get("/overview")
    def overview(person: Owner) -> Response:
        return HTMLResponse(page(person))

    @app.get("/overview/live")
    def live(person: Owner) -> Response:
        return HTMLResponse(page(person, live=True))

    @app.get("/overview.json")
    def overview_facts(person: Owner) -> Response:
        return JSONResponse(room.overview())

    @app.post("/overview")
    async def invite(request: Request, person: Owner) -> Response:
        """A new personal link. It is in this answer and nowhere else, so there is no redirect."""
        fields = _form(await request.body())
        role: Literal["owner", "annotator"] = "owner" if fields.get("role") == "owner" else "annotator"
        try:
            token = await run_in_threadpool(room.invite, fields.get("name", "").strip(), role)
        except InputError as e:
            return HTMLResponse(await run_in_threadpool(page, person, problem=str(e)), 409)
        link = f"{request.url.scheme}://{request.headers['host']}/join#{token}"
        return HTMLResponse(await run_in_threadpool(page, person, link=(fields["name"].strip(), link)))


def _judge(room: ReviewRoom, person: Person, draft: dict[str, Any]) -> dict[str, Any]:
    if draft["verb"] == "adjudicate" and person.role != "owner":
        raise Refused("only the owner may adjudicate", status=403, type="permission_error", code="not_owner")
    return room.judge(person.name, draft)


def _next(room: ReviewRoom, person: Person, queue: dict[str, Any], said: Said) -> dict[str, Any]:
    if said.verb == "adjudicate":
        return _asked(room.ask_disputes(person.name, said.queue), queue, disputes=True)
    return _asked(room.ask(person.name, said.queue), queue, disputes=False)


def _asked(asked: dict[str, Any], queue: dict[str, Any], *, disputes: bool) -> dict[str, Any]:
    items = [{"id": i["id"], "html": fragment(i, queue, disputes=disputes)} for i in asked["items"]]
    return {"items": items, "progress": asked["progress"]}


def _queue(queues: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    if name not in queues:
        raise Refused("there is no such queue", status=404)
    return queues[name]


def _form(body: bytes) -> dict[str, str]:
    """The last value of each field; a browser sends UTF-8."""
    try:
        fields = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise Refused("the form could not be read") from None
    return {name: values[-1] for name, values in fields.items()}


def _draft(fields: dict[str, str], queue: str, kind: str) -> dict[str, Any]:
    """The button that was pressed is the verb; its value, the fields beside it, or nothing is the value."""
    verb = next((v for v in VERBS if v in fields), None)
    if verb is None:
        raise InputError("no button was pressed")
    value: Any = fields[verb]
    if verb in ("approve", "reject", "skip"):
        value = None
    elif kind == "pair" and value == "edited":
        value = {"prompt": fields.get("prompt", ""), "completion": fields.get("completion", "")}
        value |= {"verb": "correct"} if verb == "adjudicate" else {}
    elif kind == "pair" and verb == "adjudicate" and value.startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError("the ruling could not be read") from None
    reason = fields.get("reason_text", "").strip() or fields.get("reason", "")
    return {
        "id": fields.get("id", ""), "queue": queue, "item": fields.get("item", ""), "verb": verb, "value": value,
        "reason": reason if verb in ("skip", "reject", "adjudicate") else "", "seconds": 0.0,
    }  # fmt: skip


def _with_cookie(request: Request, answer: Response, room: ReviewRoom, token: str) -> Response:
    answer.set_cookie(
        cookie_name(room.name),
        token,
        max_age=COOKIE_DAYS * 86_400,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


def _seen(scope: Scope, status: int, seconds: float) -> None:
    """By route, never by what was written. Only what a person running the server wants to hear of."""
    if status >= 500:
        route = getattr(scope.get("route"), "path", "none")
        log("request", method=scope["method"][:10], route=route, status=status, seconds=round(seconds, 4))


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _cannot_be(_: Request, error: Exception) -> Response:
    return JSONResponse(Refused(str(error)).body, 409)


async def _disk(_: Request, error: Exception) -> Response:
    return JSONResponse(Refused(str(error), type="server_error").body, 503, headers={"Retry-After": "5"})


async def _no_judgment(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = sorted({".".join(str(p) for p in e["loc"] if p != "body")[:60] for e in error.errors()})
    return JSONResponse(Refused(f"not understood: {', '.join(fields)}").body, 400)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is no such page", 405: "this page does not take that method"}
    refused = Refused(words.get(error.status_code, "the request could not be read"))
    return JSONResponse(refused.body, error.status_code, headers=dict(error.headers or {}))
