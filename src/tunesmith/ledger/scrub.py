"""The second half of `forget`: once the facts say that something is erased, nothing of it may stay on the disk.

`.tunesmith/forget.pending` is written before those facts and removed when all of this is done, so that the
next command that opens the project goes on where a killed one stopped. It says which unfinished work to remove,
and nothing of what was forgotten.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tunesmith.core.canonical import canonical_json, sync_folder, write_atomic
from tunesmith.core.errors import Busy
from tunesmith.ledger.database import Database
from tunesmith.ledger.explain import explained
from tunesmith.ledger.locks import FileLock
from tunesmith.ledger.objects import Objects
from tunesmith.ledger.records import Records


class Scrub:
    def __init__(self, state: Path, objects: Objects, records: Records) -> None:
        self._state = state
        self._objects = objects
        self._records = records
        self._pending = state / "forget.pending"
        self._lock = state / "locks" / "objects"

    def announce(self, work: Sequence[str]) -> None:
        """`work`: the keys of unfinished stages that hold it."""
        write_atomic(self._pending, canonical_json({"work": sorted(work)}))

    def resume(self) -> None:
        """Finish what a killed `forget` began, unless somebody is writing: then the next command will."""
        if not self._pending.exists():
            return
        lock = FileLock(self._lock)
        if not lock.try_now():
            return
        try:
            with suppress(Busy):
                self.finish()
        finally:
            lock.release()

    def finish(self) -> None:
        """Only while the objects' lock is held alone."""
        with explained(self._state):
            if not self._pending.exists():
                return
            for key in json.loads(self._pending.read_bytes())["work"]:
                shutil.rmtree(self._state / "work" / Path(key).name, ignore_errors=True)
            for (sha256,) in self._records.database.read("SELECT DISTINCT old FROM redactions"):
                file = self._objects.file(sha256)
                if file.exists() and not self._records.is_referenced(sha256):
                    file.unlink()
                    sync_folder(file.parent)
            for (artifact,) in self._records.database.read("SELECT DISTINCT artifact FROM redactions"):
                shutil.rmtree(self._state / "views" / artifact, ignore_errors=True)  # links to what is gone
            self._forget_checks()
            self._records.database.scrub()
            self._scrub_traces()
            self._pending.unlink()
            sync_folder(self._state)

    def _forget_checks(self) -> None:
        erased = [
            (os.fspath(self._objects.file(s)),)
            for (s,) in self._records.database.read("SELECT DISTINCT old FROM redactions")
            if not self._objects.file(s).exists()
        ]
        with self._records.database.write() as db:
            db.executemany("DELETE FROM verified WHERE path = ?", erased)

    def _scrub_traces(self) -> None:
        path = self._state / "traces.db"
        if path.exists():
            from tunesmith.ledger.traces import SCHEMA

            traces = Database(path, SCHEMA, synchronous="NORMAL")
            try:
                traces.scrub()
            finally:
                traces.close()
