"""Adapters put on, replaced and taken off while the server answers.

A request that has begun is finished by the adapter it began with; the old one leaves the base when none is left.
The routes ask for a token of their own, made for each run and written where only this project's owner can read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.responses import Response

from tunesmith.core.errors import InputError, TunesmithError
from tunesmith.http.gatekeeper import Admit, bearer
from tunesmith.http.log import log
from tunesmith.http.refused import Refused
from tunesmith.serve.adapters import Place, check_name, read_beside
from tunesmith.serve.engine import Engine
from tunesmith.serve.exchange import Served
from tunesmith.serve.running import ROUTE
from tunesmith.serve.wire import Body, Name

POLL_S = 0.02


class Source(Body):
    source: Name  # a project's folder, FOLDER@BUNDLE, or a bundle's id or folder


class Roster:
    """The adapters of one server by name. Its methods run on the event loop, so changes follow each other."""

    def __init__(self, served: dict[str, Served], bring: Callable[[str], Place], named: Callable[..., Any]) -> None:
        """`bring` finds what a source stands for; `named` gives the names under which a bundle is asked."""
        self._served, self._bring, self._named = served, bring, named
        self._sources: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    def facts(self) -> list[dict[str, Any]]:
        return [_facts(s, self._sources.get(s.name, "")) for s in self._adapters()]

    async def put(self, name: str, source: str) -> dict[str, Any]:
        """Load it, then let the name mean it. Raises InputError for one that cannot be on this base."""
        async with self._changing:
            check_name(name)
            before = self._served.get(name)
            if before is not None and before.bundle.several is None:
                raise InputError("is the name of a model of its own", where=name, fix="give the adapter another name")
            some = next(iter(self._adapters()), None)
            if some is None:
                what = "this server holds one merged model, and no base for adapters"
                raise InputError(what, where=name, fix="start it with --adapter NAME=PLACE, or with serve.adapters")
            bundle, held = await asyncio.to_thread(lambda: read_beside(self._bring(source), name, some.bundle))
            await asyncio.wrap_future(some.engine.add(bundle, held))
            self._forget(name)
            self._served.update(self._named(name, bundle, some.engine))
            self._sources[name] = source
            if before is not None:
                self._leave(before)
            log("adapter_replaced" if before else "adapter_added", model=name, bundle=bundle.id)
            return _facts(self._served[name], source)

    async def remove(self, name: str) -> dict[str, Any]:
        async with self._changing:
            names = [s.name for s in self._adapters()]
            if name not in names:
                raise InputError("is no adapter here", where=name, fix=f"there is: {', '.join(names)}")
            if len(names) == 1:
                raise InputError(
                    "is the last adapter here", where=name, fix="stop the server, or add another one first"
                )
            gone = self._served[name]
            self._forget(name)
            self._leave(gone)
            log("adapter_removed", model=name, bundle=gone.bundle.id)
            return _facts(gone, self._sources.pop(name, ""))

    def _adapters(self) -> list[Served]:
        """Those that share a base, each once."""
        return [s for s in self._served.values() if s.bundle.adapter and s.labels == s.bundle.scores_labels]

    def _forget(self, name: str) -> None:
        old = self._served.get(name)
        for key in [k for k, s in self._served.items() if old is not None and s.bundle is old.bundle]:
            del self._served[key]

    def _leave(self, gone: Served) -> None:
        async def leave() -> None:
            while gone.open:
                await asyncio.sleep(POLL_S)
            await asyncio.wrap_future(_removed(gone.engine, gone))
            log("adapter_gone", model=gone.name, bundle=gone.bundle.id)

        task = asyncio.create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def _removed(engine: Engine, gone: Served) -> Any:
    return engine.remove(gone.bundle)


def _facts(served: Served, source: str) -> dict[str, Any]:
    bundle = served.bundle
    return {
        "name": served.name,
        "bundle": bundle.id,
        "kind": bundle.kind,
        "labels": len(bundle.labels),
        "source": source,
    }


def add_admin_routes(app: FastAPI, roster: Roster) -> None:
    async def done(work: Any) -> Response:
        try:
            return JSONResponse(await work)
        except TunesmithError as e:
            raise Refused(str(e), status=400, param="source", code="adapter_refused") from e

    @app.get(ROUTE, include_in_schema=False)
    async def adapters() -> Response:
        return JSONResponse({"data": roster.facts()})

    @app.put(ROUTE + "/{name}", include_in_schema=False)
    async def put(name: str, body: Source) -> Response:
        return await done(roster.put(name, body.source))

    @app.delete(ROUTE + "/{name}", include_in_schema=False)
    async def delete(name: str) -> Response:
        return await done(roster.remove(name))


def guarded(everywhere: Admit, admin_token: str) -> Admit:
    """As `everywhere`, but these routes open to the admin token alone."""
    admin = bearer(admin_token)

    def admit(scope: Any, headers: Any) -> None:
        (admin if scope["path"] == ROUTE or scope["path"].startswith(ROUTE + "/") else everywhere)(scope, headers)

    return admit
