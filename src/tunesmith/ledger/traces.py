"""One row for each served request, in a database of its own.

Another write rate, retention and privacy than the ledger: rows are written in batches by one thread,
a power cut may lose the last, and the content of a request is kept only where the owner chose so.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.core.canonical import canonical_json
from tunesmith.core.errors import TunesmithError
from tunesmith.ledger.database import Database, Schema
from tunesmith.ledger.records import now

SCHEMA = Schema.load("trace store", 0x5453_5452, Path(__file__).parent / "migrations" / "traces")  # "TSTR"
REQUIRED = (
    "id", "bundle", "route", "model", "status", "streaming", "prompt_tokens", "answer_tokens", "seconds", "client",
)  # fmt: skip
OPTIONAL = ("at", "time_to_first_token", "finish", "confidence")
CONTENT = ("messages", "answer")
COLUMNS = (*REQUIRED, *OPTIONAL, *CONTENT)
BATCH_S = 0.2  # longest a row waits in memory
MOST_WAITING = 20_000  # rows kept in memory while the disk refuses them


class Traces:
    def __init__(self, path: Path, *, store_content: bool = False) -> None:
        self._database = Database(path, SCHEMA, synchronous="NORMAL")
        self._store_content = store_content
        self._waiting: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._closed = False
        self.lost = 0  # rows given up because the disk refused them for too long
        self.problem: TunesmithError | None = None  # why rows are waiting; None while all is well
        self._writer = threading.Thread(target=self._write_on, name="traces", daemon=True)
        self._writer.start()

    @classmethod
    def open(cls, path: Path, *, store_content: bool = False) -> Traces:
        """Open or create. Raises StorageError if the file cannot be written or is newer than this program."""
        return cls(path, store_content=store_content)

    def append(self, **trace: Any) -> None:
        """Returns at once and never raises for the disk: an answer must not fail for its trace.

        Takes the columns of migrations/traces by name; `messages` and `answer` are dropped unless
        content is kept. Raises TypeError for an unknown or a missing one.
        """
        unknown, missing = set(trace) - set(COLUMNS), set(REQUIRED) - set(trace)
        if unknown or missing:
            raise TypeError(f"a trace has no {sorted(unknown)} and needs {sorted(missing)}")
        row = dict.fromkeys(COLUMNS) | {"at": now()} | trace
        if not self._store_content:
            row |= dict.fromkeys(CONTENT)
        elif row["messages"] is not None:
            row["messages"] = canonical_json(row["messages"]).decode("utf-8")
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self.lost += 1
                return
            self._waiting.append(row)

    def flush(self) -> None:
        """Returns when every row appended before is in the database. Raises StorageError if it can't be."""
        with self._writing:
            with self._changed:
                batch, self._waiting = self._waiting, []
            if not batch:
                return
            refused: list[sqlite3.Error] = []
            try:
                with self._database.write() as db:
                    refused = [e for row in batch if (e := _insert(db, row))]
            except TunesmithError as e:
                self.problem = e
                with self._changed:
                    self._waiting[:0] = batch
                raise
            self.problem = None
            if refused:
                self.lost += len(refused)
                self.problem = TunesmithError(f"a trace was refused: {refused[0]}")
                raise self.problem

    def rows(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Newest first, including those just appended."""
        self.flush()
        found = self._database.read(
            f"SELECT {', '.join(COLUMNS)} FROM traces ORDER BY seq DESC LIMIT ?",  # noqa: S608
            (-1 if limit is None else limit,),
        )
        return [dict(zip(COLUMNS, row, strict=True)) for row in found]

    def close(self) -> None:
        """Write what is waiting. Raises StorageError if that can't be."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._writer.join()
        try:
            self.flush()
        finally:
            self._database.close()

    def __enter__(self) -> Traces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_on(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait(BATCH_S)
            try:
                self.flush()
            except TunesmithError:
                continue  # kept in `problem`, where /health shows it; tried again


def _insert(db: sqlite3.Connection, row: dict[str, Any]) -> sqlite3.Error | None:
    """What is wrong with a row that breaks a rule of the table; it must not take the others with it."""
    try:
        db.execute(f"INSERT INTO traces ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{c}' for c in COLUMNS)})", row)  # noqa: S608
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError) as e:
        return e
    return None
