"""Replies that were paid for, kept as they arrive: by the id of what was asked, whatever becomes of the run.

state/replies.jsonl   append-only, one line a reply; a line torn by a kill is asked again
the cache             one file a reply beside the workspaces, so that a change of another setting pays for nothing
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from tunesmith.core.canonical import canonical_json, write_atomic
from tunesmith.core.stage import Workspace

CACHE = "teacher-replies"  # a folder beside the workspaces of one project


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the teacher said to one request."""

    request: str  # content id of what was asked
    text: str | None  # None: the endpoint's reply had no text, or it refused
    problem: str = ""  # why there is no text
    finish: str = ""  # the endpoint's finish_reason
    prompt_tokens: int = 0
    answer_tokens: int = 0


class Replies:
    """`with Replies(work) as replies`. Safe for several threads."""

    def __init__(self, work: Workspace, *, shared: bool) -> None:
        """`shared`: use the cache. A local model has none: its replies depend on a folder that no request names."""
        self._path = work.state / "replies.jsonl"
        self._cache = work.root.resolve().parent / CACHE if shared else None
        self._lock = threading.Lock()
        self._known: dict[str, Reply] = {}
        self.reused = 0

    def __enter__(self) -> Replies:
        whole = 0
        if self._path.exists():
            for line in self._path.read_bytes().splitlines(keepends=True):
                try:
                    reply = msgspec.json.decode(line, type=Reply)
                except msgspec.DecodeError:
                    break  # torn by a kill; nothing follows a torn line
                if not line.endswith(b"\n"):
                    break
                self._known[reply.request] = reply
                whole += len(line)
        self._file = open(self._path, "ab")
        self._file.truncate(whole)
        return self

    def find(self, request: str) -> Reply | None:
        if request not in self._known and self._cache is not None:
            cached = self._read(self._at(self._cache, request))
            if cached is not None and cached.request == request:
                self._append(cached)
        with self._lock:
            self.reused += request in self._known
            return self._known.get(request)

    def add(self, reply: Reply) -> None:
        """When this returns, the reply survives a kill and a power cut. One without text is not cached: it may be
        a proxy's, and another run may ask again."""
        if self._cache is not None and reply.text is not None:
            at = self._at(self._cache, reply.request)
            at.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(at, canonical_json(reply) + b"\n")
        self._append(reply)

    def _append(self, reply: Reply) -> None:
        with self._lock:
            if reply.request in self._known:
                return
            self._file.write(canonical_json(reply) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._known[reply.request] = reply

    @staticmethod
    def _at(cache: Path, request: str) -> Path:
        return cache / request[:2] / f"{request}.json"

    @staticmethod
    def _read(path: Path) -> Reply | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Reply)
        except (OSError, msgspec.DecodeError):
            return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def text_of(body: Any) -> tuple[str | None, str, str, int, int]:
    """(text, problem, finish reason, prompt tokens, answer tokens) of a chat completion, whatever it is."""
    if not isinstance(body, dict):
        return None, "the reply is no JSON object", "", 0, 0
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    counts = [usage.get(k) for k in ("prompt_tokens", "completion_tokens")] if usage else [0, 0]
    tokens = [n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else 0 for n in counts]
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    finish = first.get("finish_reason")
    message = first.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    shown = finish if isinstance(finish, str) else ""
    if not isinstance(content, str) or not content.strip():
        return None, "the reply has no text", shown, tokens[0], tokens[1]
    return _valid(content), "", shown, tokens[0], tokens[1]


def _valid(text: str) -> str:
    """Without lone surrogates, which JSON can carry and a file can't."""
    return text.encode("utf-8", "replace").decode("utf-8")
