"""The server that runs, for those who change its adapters from outside: where it is, and how to ask it.

Nothing of a model is imported here: whoever asks waits for the server alone.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import InputError

ROUTE = "/adapters"
FILE = "serving.json"  # in the project's state: where the running server is, and the token of these routes


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A server that runs, as its project's state folder says."""

    url: str
    token: str


@contextlib.contextmanager
def announced(file: Path | None, url: str, token: str) -> Iterator[None]:
    """Inside, the file says where the server is and how to change its adapters; readable by its owner alone."""
    if file is None:
        yield
        return
    write_atomic(file, b"")
    file.chmod(0o600)
    file.write_bytes(canonical_json({"url": url, "token": token}) + b"\n")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            if read_json(file, Running).token == token:  # not another server's
                file.unlink()


def find(file: Path) -> Running:
    """Raises InputError where no server runs."""
    try:
        return read_json(file, Running)
    except (OSError, ValueError) as e:
        raise InputError("no server of this project is running", fix="tunesmith serve --adapter NAME=PLACE") from e


def ask(server: Running, method: str, path: str = "", body: dict[str, Any] | None = None) -> Any:
    """One request to the server's adapters. Raises InputError with its reason, or where it does not answer."""
    at = urlsplit(server.url)
    connection = http.client.HTTPConnection(at.hostname or "127.0.0.1", at.port or 80, timeout=600)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    try:
        target = ROUTE + (f"/{quote(path, safe='')}" if path else "")
        connection.request(method, target, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as e:
        raise InputError(f"the server does not answer: {e}", where=server.url, fix="tunesmith serve") from e
    finally:
        connection.close()
    if answer.status != 200:
        raise InputError(str(said.get("error", {}).get("message", said)), where=server.url)
    return said
