"""Loaded tiny bundles, and live servers on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.serve.bundles import LABELS, make_bundle
from tunesmith.serve.bundle import LoadedBundle


@pytest.fixture(scope="session")
def chat_bundle(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    return LoadedBundle.load(*make_bundle(tmp_path_factory.mktemp("chat")))


@pytest.fixture(scope="session")
def classify_bundle(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    return LoadedBundle.load(*make_bundle(tmp_path_factory.mktemp("classify"), kind="classify", labels=LABELS))


@pytest.fixture(scope="session")
def bundle_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_bundle(tmp_path_factory.mktemp("folders"), kind="classify", labels=LABELS)


@dataclass
class Live:
    """A server in a thread of this process."""

    base: str
    app: Any
    traces: list[dict[str, Any]]
    engines: dict[str, Any] = field(default_factory=dict)

    def client(self, token: str = "none", **options: Any) -> Any:
        from openai import OpenAI

        return OpenAI(base_url=f"{self.base}/v1", api_key=token, max_retries=0, **options)


Start = Callable[..., Live]


@pytest.fixture
def start() -> Iterator[Start]:
    """start({"name": bundle}, token=..., **limits): uvicorn on a free loopback port until the test ends."""
    stops: list[Callable[[], None]] = []
    yield lambda bundles, **options: _start(stops, bundles, **options)
    for stop in stops:
        stop()


@pytest.fixture(scope="module")
def live(chat_bundle: LoadedBundle, classify_bundle: LoadedBundle) -> Iterator[Live]:
    stops: list[Callable[[], None]] = []
    yield _start(stops, {"prod": chat_bundle, "coder": classify_bundle})
    for stop in stops:
        stop()


def _start(
    stops: list[Callable[[], None]],
    bundles: dict[str, LoadedBundle],
    *,
    token: str | None = None,
    store_content: bool = False,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
    bring: Callable[[str], tuple[Path, Path]] | None = None,
    **limits: Any,
) -> Live:
    import uvicorn

    from tunesmith.serve.server import Limits, create_app, listen, uvicorn_config

    traces: list[dict[str, Any]] = []
    app = create_app(
        bundles,
        token=token,
        allowed_hosts=hosts,
        trace=traces.append,
        store_content=store_content,
        bring=bring,
        limits=Limits(**{"max_queue": 64, "max_batch": 8, "max_tokens": 400, **limits}),
    )
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(app, drain_s=5))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()

    def stop() -> None:
        server.should_exit = True
        thread.join(15)
        listener.close()
        assert not thread.is_alive()

    stops.append(stop)
    return Live(base=f"http://127.0.0.1:{listener.getsockname()[1]}", app=app, traces=traces)
