"""Facts, append-only and chained by hash, and the tables that answer questions about them.

SQLite's pages carry no checksum, so every fact does: its hash covers its own content and the hash
of the fact before it. `derive` is the only place that turns a fact into rows of the other tables;
doctor runs it again and compares.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from tunesmith.core.canonical import canonical_json, content_id, plain
from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Artifact, FileEntry, Run
from tunesmith.ledger.database import Database, Schema

APPLICATION_ID = 0x54534D4C  # "TSML"
GENESIS = "0" * 64
SCHEMA = Schema.load("ledger", APPLICATION_ID, Path(__file__).parent / "migrations")
DERIVED = ("artifacts", "files", "places", "runs", "edges", "moves", "notes", "judgments", "redactions")
# every stored file as it is now: artifact, path, sha256 (NULL where it was erased), bytes, and what it was at first
CURRENT_FILES = """(
    SELECT f.artifact, f.path, CASE WHEN r.seq IS NULL THEN f.sha256 ELSE r.new END AS sha256,
           CASE WHEN r.seq IS NULL THEN f.bytes ELSE r.bytes END AS bytes, f.sha256 AS first
    FROM files f LEFT JOIN redactions r ON r.artifact = f.artifact AND r.path = f.path AND r.seq =
        (SELECT max(q.seq) FROM redactions q WHERE q.artifact = f.artifact AND q.path = f.path)
)"""
PREFIX = 6  # shortest start of an id that is looked up: fewer characters match by accident


@dataclass(frozen=True, slots=True)
class Fact:
    kind: Literal["artifact", "run", "reference", "note", "forget"]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move of a reference such as `prod`."""

    name: str
    target: str | None  # None: the name was taken away
    why: str
    at: str  # ISO 8601, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    run: str
    direction: Literal["in", "out"]
    name: str
    artifact: str


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def fact_hash(prev: str, seq: int, at: str, kind: str, body: str) -> str:
    # surrogateescape: doctor hashes whatever bytes it finds
    text = "\n".join((prev, str(seq), at, kind, body))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def run_id(run: Run) -> str:
    """An id of everything a run says but its id; `started` makes it unique."""
    return content_id({f.name: getattr(run, f.name) for f in fields(run) if f.name not in ("id", "reused")})


def artifact_fact(artifact: Artifact, folder: str) -> Fact:
    """`folder` is where the files lie outside the object store, or ''."""
    return Fact("artifact", {"id": artifact.id, "kind": artifact.kind, "files": artifact.files, "folder": folder})


def run_fact(run: Run) -> Fact:
    return Fact("run", {f.name: getattr(run, f.name) for f in fields(run) if f.name != "reused"})


def edges_of(body: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(run, direction, name, artifact) of a run's fact; families are flattened to 'name.member'."""
    for direction, side in (("in", body["inputs"]), ("out", body["outputs"])):
        for name, value in side.items():
            members = (
                {f"{name}.{member}": id for member, id in value.items()} if isinstance(value, dict) else {name: value}
            )
            for member, id in members.items():
                if id is not None:
                    yield body["id"], direction, member, id


def derive(db: sqlite3.Connection, seq: int, kind: str, body: dict[str, Any]) -> None:
    """The rows that follow from one fact."""
    if kind == "artifact":
        db.execute("INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?)", (body["id"], body["kind"], seq))
        files = [(body["id"], path, f["sha256"], f["bytes"]) for path, f in body["files"].items()]
        db.executemany("INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?)", files)
        db.execute("INSERT INTO places VALUES (?, ?, ?)", (seq, body["id"], body["folder"]))
    elif kind == "run":
        row = (seq, body["id"], body["key"], body["stage"], body["status"])
        db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", row)
        db.executemany("INSERT INTO edges VALUES (?, ?, ?, ?)", list(edges_of(body)))
    elif kind == "reference":
        db.execute("INSERT INTO moves VALUES (?, ?, ?, ?)", (seq, body["name"], body["target"], body["why"]))
    elif kind == "note":
        db.execute("INSERT INTO notes VALUES (?, ?)", (seq, body["kind"]))
        if body["kind"] == "judgment":
            said = body["body"]
            row = (seq, said["id"], said["queue"], said["item"], said["annotator"])
            db.execute("INSERT INTO judgments VALUES (?, ?, ?, ?, ?)", row)
    elif kind == "forget":
        rows = [(seq, f["artifact"], f["path"], f["old"], f["new"], f["bytes"]) for f in body["files"]]
        db.executemany("INSERT INTO redactions VALUES (?, ?, ?, ?, ?, ?)", rows)
    else:
        raise ValueError(f"unknown kind of fact: {kind}")


def rewrite(db: sqlite3.Connection, bodies: dict[int, str]) -> None:
    """Put other bodies into facts: only inside the transaction whose `forget` fact names them (`proofs`).
    Their hashes stay, so the chain goes on; what follows from them is derived again."""
    trigger = "facts_are_never_changed"
    (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (trigger,)).fetchone()
    db.execute(f"DROP TRIGGER {trigger}")
    for seq, text in bodies.items():
        (kind,) = db.execute("SELECT kind FROM facts WHERE seq = ?", (seq,)).fetchone()
        db.execute("UPDATE facts SET body = ? WHERE seq = ?", (text, seq))
        if kind != "run":  # of a run's body nothing that is derived is ever rewritten
            for table in ("notes", "judgments", "moves"):
                db.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))  # noqa: S608
            derive(db, seq, kind, msgspec.json.decode(text))
    db.execute(sql)


class Records:
    def __init__(self, path: Path) -> None:
        self.database = Database(path, SCHEMA)

    def append(
        self, facts: Callable[[], Sequence[Fact]] | Sequence[Fact], rewritten: dict[int, str] | None = None
    ) -> None:
        """All of them or none, in one transaction. A function is called inside it, so that what it
        looks up cannot change before its facts are written. `rewritten`: see `rewrite`."""
        with self.database.write() as db:
            last = db.execute("SELECT seq, hash FROM facts ORDER BY seq DESC LIMIT 1").fetchone()
            seq, prev = last or (0, GENESIS)
            for fact in facts() if callable(facts) else facts:
                if fact.kind == "forget":
                    rewrite(db, rewritten or {})
                seq, at = seq + 1, now()
                text = canonical_json(fact.body).decode("utf-8")
                hash = fact_hash(prev, seq, at, fact.kind, text)
                db.execute("INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?)", (seq, at, fact.kind, text, prev, hash))
                derive(db, seq, fact.kind, plain(fact.body))
                prev = hash

    def proofs(self, bodies: dict[int, str]) -> dict[str, str]:
        """What a `forget` fact says of the facts it rewrites: the hash that each would have with its new body, so
        that time, kind and place in the chain stay as provable as they were."""
        found = {}
        for seq, text in bodies.items():
            ((prev, at, kind),) = self.database.read("SELECT prev, at, kind FROM facts WHERE seq = ?", (seq,))
            found[str(seq)] = fact_hash(prev, seq, at, kind, text)
        return found

    def artifact(self, id: str) -> Artifact | None:
        found = self.database.read("SELECT kind FROM artifacts WHERE id = ?", (id,))
        if not found:
            return None
        rows = self.database.read("SELECT path, sha256, bytes FROM files WHERE artifact = ?", (id,))
        return Artifact(kind=found[0][0], files={path: FileEntry(sha256=h, bytes=n) for path, h, n in rows})

    def folder(self, artifact_id: str) -> str | None:
        """'' for the object store; None for an unknown artifact."""
        found = self.database.read(
            "SELECT folder FROM places WHERE artifact = ? ORDER BY seq DESC LIMIT 1", (artifact_id,)
        )
        return found[0][0] if found else None

    def is_referenced(self, sha256: str) -> bool:
        """Some artifact has this file now."""
        found = self.database.read(
            "SELECT 1 FROM files f WHERE sha256 = ? AND NOT EXISTS "
            "(SELECT 1 FROM redactions r WHERE r.artifact = f.artifact AND r.path = f.path) "
            "UNION ALL SELECT 1 FROM redactions r WHERE new = ? AND seq = "
            "(SELECT max(seq) FROM redactions q WHERE q.artifact = r.artifact AND q.path = r.path) LIMIT 1",
            (sha256, sha256),
        )
        return bool(found)

    def redacted(self, artifact: str) -> dict[str, tuple[str | None, int, str]]:
        """Path -> what `forget` made of it: SHA-256 (None: erased), bytes, and when."""
        rows = self.database.read(
            "SELECT path, new, bytes, at FROM redactions JOIN facts USING (seq) WHERE artifact = ? ORDER BY seq",
            (artifact,),
        )
        return {path: (new, size, at) for path, new, size, at in rows}

    def erased_lines(self) -> dict[str, tuple[int, ...]]:
        """SHA-256 of a user's file as it was -> the lines on which it held what has been forgotten since."""
        rows = self.database.read("SELECT body FROM facts WHERE kind = 'forget' ORDER BY seq DESC")
        later: dict[tuple[str, str], set[int]] = {}  # by artifact and path: lines keep their numbers
        found: dict[str, set[int]] = {}
        for (body,) in rows:
            for file in msgspec.json.decode(body)["files"]:
                lines = later.setdefault((file["artifact"], file["path"]), set())
                lines.update(file["lines"])
                found.setdefault(file["old"], set()).update(lines)
        return {sha256: tuple(sorted(lines)) for sha256, lines in found.items() if lines}

    def erased_at(self, sha256: str) -> str | None:
        """When a file with this content was erased from the store; None if it never was, or is referred to."""
        rows = self.database.read(
            "SELECT at FROM redactions JOIN facts USING (seq) WHERE old = ? ORDER BY seq DESC LIMIT 1", (sha256,)
        )
        return rows[0][0] if rows and not self.is_referenced(sha256) else None

    def runs(self, where: str, values: Sequence[Any], limit: int | None) -> list[Run]:
        """Newest first. `where` is a condition of ours on `runs`, never text from outside."""
        rows = self.database.read(
            f"SELECT body FROM runs JOIN facts USING (seq) WHERE {where} ORDER BY runs.seq DESC LIMIT ?",  # noqa: S608
            (*values, -1 if limit is None else limit),
        )
        decoder = msgspec.json.Decoder(Run)
        return [decoder.decode(body) for (body,) in rows]

    def complete(self, prefix: str, table: Literal["artifacts", "runs"]) -> str | None:
        """The one id that starts with `prefix`. Raises InputError if there are several."""
        if len(prefix) < PREFIX or not set(prefix) <= set("0123456789abcdef"):
            return None
        query = f"SELECT id FROM {table} WHERE id >= ? AND id < ? LIMIT 9"  # noqa: S608
        found = [id for (id,) in self.database.read(query, (prefix, prefix + "g"))]
        if len(found) > 1:
            listed = ", ".join(id[: len(prefix) + 6] for id in found)
            raise InputError(f"{prefix} is the start of several ids: {listed}", fix="give more characters")
        return found[0] if found else None

    def edges(self, column: Literal["run", "artifact"], id: str) -> list[Edge]:
        rows = self.database.read(
            f"SELECT run, direction, name, artifact FROM edges WHERE {column} = ? ORDER BY run, direction, name",  # noqa: S608
            (id,),
        )
        return [Edge(run=r, direction=d, name=n, artifact=a) for r, d, n, a in rows]

    def moves(self, name: str) -> list[Move]:
        """Newest first."""
        rows = self.database.read(
            "SELECT target, why, at FROM moves JOIN facts USING (seq) WHERE name = ? ORDER BY moves.seq DESC", (name,)
        )
        return [Move(name=name, target=target, why=why, at=at) for target, why, at in rows]

    def notes(self, kind: str) -> list[dict[str, Any]]:
        """Oldest first, each with the time it was noted under "at"."""
        rows = self.database.read(
            "SELECT at, body FROM notes JOIN facts USING (seq) WHERE notes.kind = ? ORDER BY notes.seq", (kind,)
        )
        return [{"at": at, **msgspec.json.decode(body)["body"]} for at, body in rows]
