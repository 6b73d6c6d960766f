"""One SQLite file in WAL mode with numbered migrations, shared by threads and processes.

Users never read "database is locked": writers take turns at a file lock of the kernel first, because
SQLite's own waiting starves (8 writers: slowest commit 5.5 s without it, 0.04 s with it), and whatever
SQLite still refuses is tried again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunesmith.core.errors import Busy, StorageError
from tunesmith.ledger.explain import explained, is_busy
from tunesmith.ledger.locks import FileLock

PATIENCE_S = 120.0  # a commit takes milliseconds; who holds the lock longer is stopped or hung
_inherited: list[sqlite3.Connection] = []
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    name: str  # "ledger"; for messages
    application_id: int  # in the file's header, so that a foreign database is never written to
    migrations: tuple[str, ...]  # SQL scripts; the n-th leads from version n - 1 to version n

    @classmethod
    def load(cls, name: str, application_id: int, folder: Path) -> Schema:
        scripts = sorted(folder.glob("[0-9]*.sql"))
        return cls(
            name=name, application_id=application_id, migrations=tuple(p.read_text(encoding="utf-8") for p in scripts)
        )


def statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit before the first."""
    lines: list[str] = []
    for line in script.splitlines(keepends=True):
        lines.append(line)
        text = "".join(lines)
        if line.strip() and sqlite3.complete_statement(text):
            yield text
            lines = []


def migrate(
    db: sqlite3.Connection, schema: Schema, where: Path, *, after_statement: Callable[[], None] = lambda: None
) -> None:
    """Bring the database to the newest version; a kill at any moment leaves the old version or the new.

    Raises StorageError where the file is of a newer version than ours, or of another program.
    """
    newest = len(schema.migrations)
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        owner = db.execute("PRAGMA application_id").fetchone()[0]
        empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner != schema.application_id and not (empty and owner == version == 0):
            raise StorageError(f"this is not a Tunesmith {schema.name}", where=str(where), fix="move the file away")
        if version > newest:
            raise StorageError(
                f"this {schema.name} has schema version {version}; this Tunesmith knows versions up to {newest}",
                where=str(where),
                fix="install the Tunesmith that wrote it, or a newer one: pip install --upgrade tunesmith",
            )
        if version < newest:
            db.execute(f"PRAGMA application_id = {schema.application_id}")
            for number in range(version, newest):
                for statement in statements(schema.migrations[number]):
                    db.execute(statement)
                    after_statement()
            db.execute(f"PRAGMA user_version = {newest}")
            after_statement()
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class Database:
    def __init__(self, path: Path, schema: Schema, *, synchronous: str = "FULL") -> None:
        self.path = path
        self._schema = schema
        self._synchronous = synchronous  # FULL: a committed fact survives a power cut
        self._queue = path.with_name(path.name + "-queue")
        self._thread_lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.read("SELECT 1")

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._thread_lock, explained(self.path):
            return self._patiently(lambda: self._open().execute(sql, values).fetchall())

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._thread_lock, explained(self.path), FileLock(self._queue):
            db = self._patiently(self._open)
            self._patiently(lambda: db.execute("BEGIN IMMEDIATE"))
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite has rolled back by itself after some faults
                    db.execute("ROLLBACK")
                raise

    def copy_to(self, destination: Path) -> None:
        """A consistent copy at one moment, while other processes write."""
        with self._thread_lock, explained(destination):
            target = sqlite3.connect(destination, isolation_level=None)
            try:
                self._patiently(lambda: self._open().backup(target))
            finally:
                target.close()

    def scrub(self) -> None:
        """Rewrite the file, so that no free page and no log keeps what was deleted. Raises Busy where another
        process reads on and on."""
        with self._thread_lock, explained(self.path), FileLock(self._queue):
            db = self._patiently(self._open)
            self._patiently(lambda: db.execute("VACUUM"))
            deadline = time.monotonic() + PATIENCE_S
            while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise Busy("another process keeps reading the database", where=str(self.path), fix="end it")
                time.sleep(0.05)

    def close(self) -> None:
        with self._thread_lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._process == os.getpid():
            return self._connection
        if self._connection is not None:
            _inherited.append(self._connection)  # of the process this one was forked from: not even to be closed
        db = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            migrate_if_needed(db, self._schema, self.path)
        except BaseException:
            db.close()
            raise
        self._connection, self._process = db, os.getpid()
        return db

    def _patiently(self, action: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return action()
            except sqlite3.OperationalError as e:
                if not is_busy(e) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)


def migrate_if_needed(db: sqlite3.Connection, schema: Schema, where: Path) -> None:
    """Readers of a current database take no write lock."""
    current = (
        db.execute("PRAGMA user_version").fetchone()[0] == len(schema.migrations)
        and db.execute("PRAGMA application_id").fetchone()[0] == schema.application_id
    )
    if not current:
        migrate(db, schema, where)
    if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        db.execute("PRAGMA journal_mode = WAL")
