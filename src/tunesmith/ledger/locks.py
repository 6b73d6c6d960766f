"""Locks that die with their process: flock on a small file that says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.ledger.explain import explained

POLL_S = 0.05
_open_here: set[int] = set()  # descriptors of this process; a forked child drops its copies


def _drop_inherited() -> None:
    # a lock belongs to the open file, not to the process: children of a killed holder would keep it
    for fd in _open_here:
        with suppress(OSError):
            os.close(fd)
    _open_here.clear()


os.register_at_fork(after_in_child=_drop_inherited)


def _held_by_me() -> bytes:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]])[:200]
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now, "command": command}).encode()


class FileLock:
    """`with FileLock(path):` waits in the kernel. With `waiting`, polls and calls it with the holder
    (pid, host, since, command; {} if unknown) until the lock is free; it may raise to give up.
    """

    def __init__(
        self,
        path: Path,
        *,
        shared: bool = False,
        waiting: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._path = path
        self._mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._waiting = waiting
        self._fd = -1

    def __enter__(self) -> FileLock:
        with explained(self._path):
            while not self._try(block=self._waiting is None):
                if self._waiting is not None:
                    self._waiting(self._holder())
                    time.sleep(POLL_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def try_now(self) -> bool:
        """Take the lock if it is free."""
        with explained(self._path):
            return self._try(block=False)

    def sign(self) -> None:
        """Write down who holds the lock, for those who wait."""
        with suppress(OSError):  # the lock holds all the same
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, _held_by_me(), 0)

    def release(self, *, remove: bool = False) -> None:
        if self._fd not in _open_here:  # not held, or the lock of the process this one was forked from
            return
        if remove:  # only while held: whoever opened the file meanwhile sees that it is gone
            with suppress(OSError):  # a file left behind is free all the same
                self._path.unlink()
        _open_here.discard(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _try(self, *, block: bool) -> bool:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, self._mode | (0 if block else fcntl.LOCK_NB))
            is_current = self._path.stat().st_ino == os.fstat(fd).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_current = False
        except BaseException:
            os.close(fd)
            raise
        if not is_current:  # held by another, or removed by its last holder while we waited
            os.close(fd)
            return False
        self._fd = fd
        _open_here.add(fd)
        return True

    def _holder(self) -> dict[str, Any]:
        try:
            held = json.loads(self._path.read_bytes())
        except (OSError, ValueError):  # just released, or not written yet
            return {}
        return held if isinstance(held, dict) else {}
