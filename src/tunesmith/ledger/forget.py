"""Erase what a row or a person said from everything the project keeps, and say what was built from it.

search → new files beside the old → one transaction (what each file is now, rewritten facts, tombstones) → the
old files, views and unfinished work removed, the databases rewritten (scrub). A kill before the transaction leaves
everything as it was; after it, the next command that opens the project finishes.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import file_id
from tunesmith.core.errors import Busy, InputError
from tunesmith.core.stage import no_progress
from tunesmith.core.tombstones import tombstone
from tunesmith.ledger import opaque
from tunesmith.ledger.elsewhere import NOTE, rewritten_facts, traces_that_hold, unfinished
from tunesmith.ledger.explain import explained
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.locks import FileLock
from tunesmith.ledger.objects import Session
from tunesmith.ledger.outside import Outside, look_outside
from tunesmith.ledger.reach import Earlier, Reached, earlier, reach
from tunesmith.ledger.records import Fact
from tunesmith.ledger.redact import SHOWN_LINES, about, redact, written_like
from tunesmith.ledger.search import row_records, search
from tunesmith.ledger.sought import Sought
from tunesmith.ledger.stock import Stock, Stored

SHOWN_PLACES = 100
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """What shall be forgotten."""

    rows: tuple[str, ...] = ()  # ids of examples, or the start of one; keys of rows that were left out
    places: tuple[str, ...] = ()  # "rows.csv:12", as the newest version of the file has it
    texts: tuple[str, ...] = ()  # of a person: a name, an address; "Schmidt*" lets the word go on
    why: str = ""  # kept for good, so it must not name the person


@dataclass(frozen=True, slots=True, kw_only=True)
class Redacted:
    """One stored file."""

    path: str
    artifacts: tuple[str, ...]
    kinds: tuple[str, ...]
    count: int  # records, lines or strings; 1 for a whole file
    lines: tuple[int, ...]  # where, the first 20
    erased: bool  # the whole file: its format cannot be edited


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was (or, dry, would be) erased, and what could not be."""

    dry_run: bool
    rows: int  # examples, each with a tombstone
    places: tuple[str, ...]  # where those stand: "rows.csv:12"; the first SHOWN_PLACES
    files: tuple[Redacted, ...]
    facts: int  # judgments, notes and runs whose words were replaced
    traces: int  # served requests whose content was removed
    work: int  # unfinished stages whose state was removed
    reached: tuple[Reached, ...]  # data sets, models and bundles built from it
    outside: tuple[Outside, ...]  # the user's own files that hold it
    unread: tuple[str, ...]  # stored files that could not be looked into, and why
    names: tuple[str, ...]  # stored files whose very name holds it
    running: tuple[str, ...]  # stages that were at work meanwhile and may write it again
    earlier: tuple[Earlier, ...]  # what was forgotten before

    @property
    def nothing(self) -> bool:
        return not (self.files or self.facts or self.traces)

    def __str__(self) -> str:
        from tunesmith.ledger.forget_words import words

        return words(self)


def tombstones(ledger: Ledger) -> tuple[str, ...]:
    """The "salt:hash" of every row that was forgotten, sorted; see core/tombstones."""
    return tuple(sorted({t for note in ledger.notes(NOTE) for t in note["rows"]}))


def forget(
    ledger: Ledger,
    request: Forget,
    *,
    dry_run: bool = False,
    outside: Mapping[str, Path] | None = None,
    progress: Callable[..., None] = no_progress,
) -> Forgotten:
    """`outside`: the user's own files by the names to call them; they are looked into and never changed.

    Waits for whoever is writing. Raises InputError for a request that means nothing, Busy while a stage runs
    (it may hold what is to be forgotten in memory), StorageError for any fault of the disk.
    """
    if not (request.rows or request.places or request.texts):
        raise InputError("nothing was named to forget", fix="give a row, a place or a text")
    with _alone(ledger, dry_run), explained(ledger.state):
        return _Forgetting(ledger, request, dry_run, progress).run(outside or {})


@contextmanager
def _alone(ledger: Ledger, dry_run: bool) -> Iterator[None]:
    with FileLock(ledger.locks / "objects", shared=dry_run):
        if not dry_run and (busy := running(ledger)):
            raise Busy(
                f"a stage is at work and may hold in memory what is to be forgotten: {'; '.join(busy)}",
                fix="wait for it, or stop it (Ctrl-C keeps what it has done), and run the same command again",
            )
        yield


def running(ledger: Ledger) -> list[str]:
    """Who holds the lock of a stage's key right now."""
    found = []
    for path in sorted(ledger.locks.iterdir()):
        if not _KEY.fullmatch(path.name):
            continue
        lock = FileLock(path)
        if lock.try_now():
            lock.release()
            continue
        holder: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            holder = json.loads(path.read_bytes())
        found.append(f"process {holder.get('pid', '?')} on {holder.get('host', '?')}")
    return found


@dataclass(slots=True)
class _Change:
    """A stored file with its successor, not yet in the store."""

    stored: Stored
    file: Path | None  # None: the whole object goes
    count: int
    lines: list[int] = field(default_factory=list)


class _Forgetting:
    """One execution: what its parts hand to each other."""

    def __init__(self, ledger: Ledger, request: Forget, dry_run: bool, progress: Callable[..., None]) -> None:
        self._ledger = ledger
        self._request = request
        self._dry = dry_run
        self._progress = progress
        self._unread: list[str] = []
        self._changes: dict[str, _Change] = {}  # by the SHA-256 of the file as it is

    def run(self, outside: Mapping[str, Path]) -> Forgotten:
        ledger, request = self._ledger, self._request
        notes = ledger.notes(NOTE)
        salt = notes[0]["salt"] if notes else secrets.token_hex(16)
        self._progress(0.0, 1.0, "forget: searching")
        stock = Stock(ledger)
        sought = search(ledger, stock, request.rows, request.places, request.texts, salt, tombstones(ledger))
        if sought.in_text(request.why):
            raise InputError("the reason holds what is to be forgotten, and reasons are kept", where="--why")
        rows, places = _examples(ledger, stock, sought)
        try:
            for done, stored in enumerate(stock.files):
                self._progress(float(done), float(len(stock.files)), "forget: files")
                self._change(stock, stored, sought)
            if not self._dry:
                self._follow_hashes(stock)
            bodies = rewritten_facts(ledger, sought)
            touched = self._touched(stock)
            result = Forgotten(
                dry_run=self._dry, rows=len(rows), places=places, facts=len(bodies), names=self._names(sought),
                files=tuple(_redacted(c) for c in self._changes.values() if c.count),
                traces=traces_that_hold(ledger, sought, erase=False), work=0, unread=tuple(self._unread), running=(),
                reached=reach(ledger, stock, touched), earlier=earlier(ledger),
                outside=look_outside(outside, sought, stock, ledger.records.erased_lines()),
            )  # fmt: skip
            if result.nothing:
                return replace(result, reached=reach(ledger, stock, self._touched_before()))
            work = unfinished(ledger, set(touched), sought)
            if not self._dry:
                self._commit(sought, rows, bodies, work, result)
            return replace(result, work=len(work), running=tuple(running(ledger)) if not self._dry else ())
        finally:
            for change in self._changes.values():
                if change.file is not None:
                    change.file.unlink(missing_ok=True)

    # files

    def _change(self, stock: Stock, stored: Stored, sought: Sought) -> None:
        path = self._ledger.objects.file(stored.sha256)
        standing = stock.standing(stored, sought)
        if stored.form == "opaque":
            holds = bool(standing.lines)
            try:
                holds = holds or opaque.holds(path, stored.name, sought)
            except opaque.Unread as e:
                self._unread.append(f"{stored.name} ({stored.holders[0].artifact[:12]}): {e}")
            if holds:
                self._changes[stored.sha256] = _Change(stored, None, 1)
            return
        with open(path, "rb") as source:
            if self._dry:
                found = redact(stored.form, source, None, sought, standing)
            else:
                temporary = self._temporary()
                with open(temporary, "wb") as target:
                    found = redact(stored.form, source, target, sought, standing)
                if found.count:
                    self._changes[stored.sha256] = _Change(stored, temporary, found.count, found.lines)
                else:
                    temporary.unlink()
        if found.count and self._dry:
            self._changes[stored.sha256] = _Change(stored, None, found.count, found.lines)

    def _temporary(self) -> Path:
        return self._ledger.objects.temporary / f"{uuid.uuid4().hex}.forget"

    def _follow_hashes(self, stock: Stock) -> None:
        """Files that name others by hash (a seal, a bundle's manifest) must name them as they are now."""
        moved = {old: c.file for old, c in self._changes.items() if c.file is not None}
        names: dict[str, tuple[str, int]] = {}
        while moved:
            for old, file in moved.items():
                new = (file_id(file), file.stat().st_size)
                names = {k: (new if v[0] == old else v) for k, v in names.items()} | {old: new}
            moved = {}
            for stored in stock.files:
                if stored.form != "json" or stored.keeps_lines:
                    continue
                change = self._changes.get(stored.sha256)
                now = change.file if change is not None and change.file else self._ledger.objects.file(stored.sha256)
                raw = now.read_bytes()
                new_text = _renamed(raw, names) if any(old.encode() in raw for old in names) else None
                if new_text is None:
                    continue
                temporary = self._temporary()
                temporary.write_bytes(new_text)
                if change is None:
                    self._changes[stored.sha256] = _Change(stored, temporary, 0)
                    moved[stored.sha256] = temporary
                else:
                    moved[file_id(now)] = temporary
                    now.unlink()
                    change.file = temporary
                    names[stored.sha256] = (file_id(temporary), temporary.stat().st_size)

    def _touched(self, stock: Stock) -> dict[str, set[str]]:
        """Artifact -> its files that held it."""
        found: dict[str, set[str]] = {}
        for change in self._changes.values():
            for holder in change.stored.holders if change.count else ():
                found.setdefault(holder.artifact, set()).add(holder.path)
        return found

    def _touched_before(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for artifact, path in self._ledger.records.database.read("SELECT artifact, path FROM redactions"):
            found.setdefault(artifact, set()).add(path)
        return found

    def _names(self, sought: Sought) -> tuple[str, ...]:
        paths = self._ledger.records.database.read("SELECT DISTINCT path FROM files ORDER BY path")
        return tuple(path for (path,) in paths if sought.in_text(path.replace("/", " / ").replace("_", " ")))

    # the end

    def _commit(
        self, sought: Sought, rows: set[str], bodies: dict[int, str], work: list[str], result: Forgotten
    ) -> None:
        ledger = self._ledger
        intent = ledger.objects.temporary / f"{uuid.uuid4().hex}.intent"
        new_files = {old: c.file for old, c in self._changes.items() if c.file is not None}
        entries = Session(ledger.objects, intent).take(new_files, move=True)
        ledger.scrub.announce(work)
        traces_that_hold(ledger, sought, erase=True)
        files = [
            {
                "artifact": h.artifact, "path": h.path, "old": old, "count": c.count,
                "lines": c.lines if h.kind == "source" else [],
                "new": entries[old].sha256 if old in entries else None,
                "bytes": entries[old].bytes if old in entries else 0,
            }
            for old, c in sorted(self._changes.items()) for h in c.stored.holders
        ]  # fmt: skip
        said = {
            "why": self._request.why, "rows": len(rows), "facts": len(bodies), "traces": result.traces,
            "files": files, "bodies": ledger.records.proofs(bodies),
        }  # fmt: skip
        stones = {"salt": sought.salt, "rows": sorted(tombstone(id, sought.salt) for id in rows)}
        facts = [Fact("forget", said), Fact("note", {"kind": NOTE, "body": stones})]
        ledger.records.append(facts, bodies)
        intent.unlink(missing_ok=True)
        ledger.scrub.finish()


def _redacted(change: _Change) -> Redacted:
    holders = change.stored.holders
    return Redacted(
        path=change.stored.name,
        artifacts=tuple(h.artifact for h in holders),
        kinds=tuple(sorted({h.kind for h in holders})),
        count=change.count,
        lines=tuple(sorted(set(change.lines)))[:SHOWN_LINES],
        erased=change.stored.form == "opaque",
    )


def _examples(ledger: Ledger, stock: Stock, sought: Sought) -> tuple[set[str], tuple[str, ...]]:
    """Ids of the examples that go (each gets a tombstone), and where they stand."""
    ids: set[str] = set()
    places: set[tuple[str, int]] = set()
    for _, record, standing in row_records(ledger, stock, sought):
        if "messages" in record and "target" in record and about(record, sought, standing):
            ids.add(record["id"])
            places.add((record["file"], record["line"]))
    return ids, tuple(f"{file}:{line}" for file, line in sorted(places)[:SHOWN_PLACES])


def _renamed(raw: bytes, names: Mapping[str, tuple[str, int]]) -> bytes | None:
    """A JSON file with new hashes for old, and the sizes that stand beside them; None if none of them stands alone."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            new = {k: renamed(v) for k, v in value.items()}
            if value.get("sha256") in names and isinstance(value.get("bytes"), int):
                new["bytes"] = names[value["sha256"]][1]
            return new
        if isinstance(value, list):
            return [renamed(v) for v in value]
        return names[value][0] if isinstance(value, str) and value in names else value

    try:
        value = json.loads(raw)
    except ValueError:
        return None
    new_value = renamed(value)
    return written_like(new_value, raw) if new_value != value else None
