"""Serving a review room until stopped.

serve_labels(room, host="127.0.0.1", port=8473, me="ann")
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from tunesmith.core.errors import InputError
from tunesmith.http.listening import Server, address, hosts_for, is_loopback, listen, uvicorn_config
from tunesmith.http.log import log_to_stderr
from tunesmith.web.label.app import label_app
from tunesmith.web.label.room import ReviewRoom

DRAIN_S = 5


def serve_labels(
    room: ReviewRoom,
    *,
    host: str,
    port: int,
    me: str,
    listener: socket.socket | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM; every judgment that was acknowledged is on disk whenever it ends.

    On loopback `me` is let in as the owner without a link. On any other host nobody is: a new owner's link
    for `me` is said once at the start, and that one hands out the others.
    Raises Busy for a port in use, InputError for a name that can't be one.
    """
    if not me:
        raise InputError("the owner of the room needs a name", where="label.me", fix="say who you are")
    here = is_loopback(host)
    taken = listener or listen(host, port, setting="label.port", verb="tunesmith data label")
    try:
        app = label_app(room, me=me if here else None, allowed_hosts=hosts_for(host))
        log_to_stderr(logging.WARNING)
        say(greeting(room, host, taken.getsockname()[1], me))
        Server(uvicorn_config(app, DRAIN_S)).run(sockets=[taken])
    finally:
        taken.close()


def greeting(room: ReviewRoom, host: str, port: int, me: str) -> str:
    """What to open. On another host than loopback this makes the owner's link, which ends the one before."""
    base = address(host, port)
    if is_loopback(host):
        opened = f"Label: {base}/   Overview and links for others: {base}/overview"
        return f"{opened}\nYou are {me}. Stop with Ctrl-C; every judgment is kept as you make it."
    named = address(socket.gethostname() if base.startswith("http://127.") else host, port)
    link = f"{named}/join#{room.invite(me, 'owner')}"
    return (
        f"Your own link, {me}; it is shown once and opens everything:\n\n  {link}\n\n"
        f"Make links for others at {named}/overview. What is sent is not encrypted: use a network you trust,\n"
        "or a proxy with TLS in front. Stop with Ctrl-C; every judgment is kept as it is made."
    )
