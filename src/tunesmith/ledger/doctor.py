"""Is everything still what it was? Reads every stored byte and every fact, changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.core.errors import TunesmithError
from tunesmith.core.stage import no_progress
from tunesmith.ledger.database import migrate
from tunesmith.ledger.explain import DAMAGED
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.locks import FileLock
from tunesmith.ledger.records import DERIVED, GENESIS, SCHEMA, derive, fact_hash
from tunesmith.ledger.verify import problem_with

RESTORE = "restore the newest backup: facts cannot be made again"
REBUILD = "restore the newest backup; if no fact is damaged, nothing is lost: keep the project and report this"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    severity: Literal["damage", "waste"]  # waste: harmless, takes up space
    where: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    findings: tuple[Finding, ...]
    facts: int
    objects: int
    bytes: int  # of the objects

    @property
    def is_clean(self) -> bool:
        """No damage. Waste is no damage."""
        return not any(f.severity == "damage" for f in self.findings)


def doctor(ledger: Ledger, progress: Callable[..., None] = no_progress) -> Health:
    """Re-hash all objects and models outside, verify the chain of facts, and that every row follows from a fact."""
    damage: list[Finding] = []
    db = sqlite3.connect(ledger.records.database.path, isolation_level=None)
    db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")  # damaged text must be shown, not raise
    facts = 0
    try:
        db.execute("BEGIN")  # one moment, whatever others write
        damage.extend(_database(db))
        fresh = sqlite3.connect(":memory:", isolation_level=None)
        migrate(fresh, SCHEMA, ledger.state)
        damage.extend(_chain(db, fresh))
        facts = db.execute("SELECT count(*) FROM facts").fetchone()[0]
        damage.extend(_derived(db, fresh))
    except (sqlite3.Error, UnicodeDecodeError) as e:
        damage.append(Finding(severity="damage", where="ledger.db", what=f"unreadable: {e}", fix=RESTORE))
    finally:
        db.close()
    waste: list[Finding] = []
    objects = size = 0
    try:
        damage.extend(_files(ledger, progress))
        waste.extend(_waste(ledger))
        stored = [ledger.objects.file(sha256) for sha256 in ledger.objects.hashes()]
        objects, size = len(stored), sum(p.stat().st_size for p in stored)
    except (TunesmithError, sqlite3.Error) as e:
        damage.append(Finding(severity="damage", where="ledger.db", what=f"unreadable: {e}", fix=DAMAGED))
    return Health(findings=(*damage, *waste), facts=facts, objects=objects, bytes=size)


def _damage(where: str, what: str, fix: str = RESTORE) -> Finding:
    return Finding(severity="damage", where=where, what=what, fix=fix)


def _database(db: sqlite3.Connection) -> Iterator[Finding]:
    """The file's own structure, and that its tables, indexes and triggers are ours."""
    for (line,) in db.execute("PRAGMA integrity_check").fetchall():
        if line != "ok":
            yield _damage("ledger.db", f"SQLite finds: {line}")
    for table, _, parent, _ in db.execute("PRAGMA foreign_key_check").fetchall():
        yield _damage(f"ledger.db: {table}", f"a row refers to a missing row of {parent}")


def _chain(db: sqlite3.Connection, fresh: sqlite3.Connection) -> Iterator[Finding]:
    """Each fact against its hash and the one before; its rows are derived again into `fresh`."""
    prev, expected = GENESIS, 1
    rewritten = _rewritten(db)
    for seq, at, kind, body, before, hash in db.execute(
        "SELECT seq, at, kind, body, prev, hash FROM facts ORDER BY seq"
    ):
        where = f"ledger.db: fact {seq} ({kind}, {at})"
        if not all(isinstance(value, str) for value in (at, kind, body, before, hash)):
            yield _damage(where, "is not text")
            continue
        if seq != expected:
            yield _damage(where, f"facts {expected} to {seq - 1} are missing")
        elif before != prev:
            yield _damage(where, "does not continue the chain: this fact or the one before was changed")
        if fact_hash(before, seq, at, kind, body) != rewritten.get(seq, hash):
            yield _damage(where, f"was changed after it was written: its hash is not {hash}")
        prev, expected = hash, seq + 1
        try:
            derive(fresh, seq, kind, json.loads(body))
        except (sqlite3.Error, ValueError, LookupError, TypeError, AttributeError) as e:
            yield _damage(where, f"cannot be read: {type(e).__name__}")


def _rewritten(db: sqlite3.Connection) -> dict[int, str]:
    """Facts whose body `forget` rewrote -> the hash they must have since; a later fact says so, in the chain."""
    found: dict[int, str] = {}
    for seq, body in db.execute("SELECT seq, body FROM facts WHERE kind = 'forget' ORDER BY seq"):
        try:
            named = json.loads(body)["bodies"].items()
            found |= {int(n): str(id) for n, id in named if int(n) < seq}
        except (ValueError, LookupError, TypeError, AttributeError):
            continue  # a damaged fact: the chain says so, and what it named is found changed
    return found


def _derived(db: sqlite3.Connection, fresh: sqlite3.Connection) -> Iterator[Finding]:
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    for table, query in {"schema": schema, **{t: f"SELECT * FROM {t}" for t in DERIVED}}.items():  # noqa: S608
        want = set(_rows(fresh, query))
        have = set(_rows(db, query))
        for row in sorted(want - have, key=repr):
            yield _damage(f"ledger.db: {table}", f"lacks the row {_short(row)}", REBUILD)
        for row in sorted(have - want, key=repr):
            yield _damage(f"ledger.db: {table}", f"has a row that follows from no fact: {_short(row)}", REBUILD)


def _rows(db: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    return db.execute(query).fetchall()


def _short(row: tuple[Any, ...]) -> str:
    return ", ".join(str(value).encode("utf-8", "backslashreplace").decode()[:80] for value in row)


def _files(ledger: Ledger, progress: Callable[..., None]) -> Iterator[Finding]:
    """Every file of every artifact, once."""
    ids = [id for (id,) in ledger.records.database.read("SELECT id FROM artifacts ORDER BY id")]
    seen = set()
    for done, id in enumerate(ids):
        progress(float(done), float(len(ids)), "reading every stored file")
        artifact = ledger.records.artifact(id)
        if artifact is None:
            continue
        if artifact.id != id:
            yield _damage(f"ledger.db: artifact {id}", f"its files make it {artifact.id}")
        for file in ledger.files(artifact).values():
            if file.erased or (file.path, file.entry.sha256) in seen:
                continue
            seen.add((file.path, file.entry.sha256))
            problem = problem_with(file)
            if problem:
                yield _damage(problem.where, problem.what, problem.fix)
    for name, target in ledger.references().items():
        if target not in ids and not ledger.records.runs("id = ?", [target], 1):
            yield _damage(name, f"points to {target}, which is not in the ledger", "gate a bundle again to set it")


def _waste(ledger: Ledger) -> Iterator[Finding]:
    """Looked for only while nobody writes: what a live writer has in hand is no waste."""
    lock = FileLock(ledger.locks / "objects")
    if not lock.try_now():
        return
    try:
        for sha256 in ledger.objects.hashes():
            if not ledger.records.is_referenced(sha256):
                where = str(ledger.objects.file(sha256))
                yield Finding(severity="waste", where=where, what="no artifact has this file", fix="it may be removed")
        for path in sorted(ledger.objects.temporary.iterdir()):
            yield Finding(
                severity="waste",
                where=str(path),
                what="left by a process that was killed",
                fix="the next command that opens the project removes it",
            )
    finally:
        lock.release()
