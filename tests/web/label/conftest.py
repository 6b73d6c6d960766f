"""A labelling server on loopback over a real ledger, and a browser."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.web.label.example import example_room
from tunesmith.http.listening import LOOPBACK, listen, uvicorn_config
from tunesmith.ledger.judgments import Judgments
from tunesmith.ledger.ledger import Ledger
from tunesmith.review.room import Room
from tunesmith.web.label.app import label_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Live:
    base: str
    app: Any
    room: Room
    judgments: Judgments

    def link(self, name: str, role: Any = "annotator") -> str:
        return f"{self.base}/join#{self.room.invite(name, role)}"

    def said(self, queue: str = "labels") -> list[tuple[str, str, str, Any]]:
        return [(j["annotator"], j["item"], j["verb"], j["value"]) for j in self.judgments.list(queue)]


Serve = Callable[..., Live]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """serve(me="olga", **rules): until the test ends."""
    import uvicorn

    stops: list[Callable[[], None]] = []

    def start(me: str | None = "olga", **options: Any) -> Live:
        ledger = Ledger.open(tmp_path / f".tunesmith{len(stops)}")
        judgments = Judgments(ledger)
        room = example_room(judgments, **options)
        app = label_app(room, me=me, allowed_hosts=LOOPBACK)
        listener = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn_config(app, 1))
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)

        def stop() -> None:
            server.should_exit = True
            thread.join(10)
            ledger.close()

        stops.append(stop)
        return Live(f"http://127.0.0.1:{listener.getsockname()[1]}", app, room, judgments)

    yield start
    for stop in stops:
        stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        opened = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield opened
        opened.close()
