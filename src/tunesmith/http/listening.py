"""Taking a port, and serving on it until stopped."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from tunesmith.core.errors import Busy

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def hosts_for(host: str) -> tuple[str, ...]:
    """Host names a client may use: loopback's, the one bound, this machine's own. Addresses need no listing."""
    own = () if is_loopback(host) else (host, socket.gethostname(), socket.getfqdn())
    return tuple(dict.fromkeys((*LOOPBACK, *own)))


def listen(host: str, port: int, *, setting: str = "serve.port", verb: str = "tunesmith serve") -> socket.socket:
    """Take the port now, so that a taken one is said before minutes go into loading. Raises Busy."""
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it on, the second packet of an
    # answer waits 40 ms for the client's delayed acknowledgement of the first
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bare, port))
        listener.listen(128)
    except OSError as e:
        listener.close()
        raise Busy(
            f"can't listen on {host}:{port}: {e.strerror}",
            where=setting,
            fix=f"stop what uses it, or choose another port: {verb} --set {setting}=0 takes a free one",
        ) from e
    return listener


def address(host: str, port: int) -> str:
    """The address to open in a browser on this machine."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::", "[::]") else host  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name and not name.startswith('[') else name}:{port}"


def uvicorn_config(app: Any, drain_s: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,  # its lines hold the path and query as the client wrote them
        server_header=False,
        proxy_headers=False,  # a client must not choose the address it is seen under
        timeout_keep_alive=5,
        timeout_graceful_shutdown=drain_s,
        limit_concurrency=1024,
    )


class Server(uvicorn.Server):
    """uvicorn raises the signal again once it has drained, which would kill us before our own files are closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {}
        with contextlib.suppress(ValueError):  # not the main thread: whoever started us stops us
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
