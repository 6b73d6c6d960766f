"""One pipe from the parent to every process it started: a byte in it means stop, its end means that the parent died.

The pipe is the standard input of the launcher and of all ranks. Nobody reads it, so every process sees the same: the
kernel closes it whatever kills the parent, and a rank then ends at once, so that none is left behind.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable

GONE = 86  # exit code of a process whose parent died


def watch(on_stop: Callable[[], None]) -> None:
    """From now on, in a thread: call `on_stop` when the parent asks for it, and end this process when it dies."""
    threading.Thread(target=_watch, args=(sys.__stdin__.fileno() if sys.__stdin__ else 0, on_stop), daemon=True).start()


def _watch(pipe: int, on_stop: Callable[[], None]) -> None:
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    while True:
        for _, event in poller.poll():
            if event & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                os._exit(GONE)
            if event & select.POLLIN:
                on_stop()
                poller.modify(pipe, 0)  # the byte stays there for the others; only the end is news now
