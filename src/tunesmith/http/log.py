"""What a server says on stderr: one JSON line a request, nothing of what the client wrote."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

logger = logging.getLogger("tunesmith.http")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def log(event: str, *, level: int = logging.INFO, **facts: Any) -> None:
    """One JSON line; json.dumps escapes every control character."""
    logger.log(level, json.dumps({"at": now(), "event": event, **facts}))


def error_line(error: BaseException) -> None:
    """The kind of an unexpected error and where it was raised. Not its message: that may quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
    log("error", level=logging.ERROR, kind=type(error).__name__, where=where)


class _Bare(logging.Formatter):
    """Our lines as they are; lines of uvicorn and others as JSON, with the kind of an exception but not its text."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == logger.name:
            return record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            line = {"event": "error", "kind": type(record.exc_info[1]).__name__, "logger": record.name}
        else:
            line = {"event": "log", "logger": record.name, "message": record.getMessage()[:300]}
        return json.dumps({"at": now(), **line})


def log_to_stderr(level: int = logging.INFO) -> None:
    """Called by a server's command: JSON lines on stderr, nothing else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Bare())
    for name in (logger.name, "uvicorn", "uvicorn.error", "asyncio"):
        chosen = logging.getLogger(name)
        chosen.handlers = [handler]
        chosen.propagate = False
        chosen.setLevel(level if name == logger.name else logging.WARNING)
