"""Ctrl-C and SIGTERM: the first asks for a stop after the state is saved, the second ends the process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals(stoppable: bool) -> Iterator[threading.Event]:
    """An event that a signal sets. With `stoppable` off, signals do what they always do.

    The work then raises Stopped where its state is safe, which ends the command with exit code 130.
    """
    stop = threading.Event()
    if not stoppable or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        stop.set()
        # os.write, not print: a signal may arrive in the middle of another print
        os.write(
            sys.__stderr__.fileno() if sys.__stderr__ else 2,
            b"\nstopping once the state is saved; again to end at once\n",
        )

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
