"""Files must still be what their hash says, each time they are used.

A file that was found right is not read again while its inode, size and times stay the same. The
change time (ctime) cannot be set by a program, so an edit shows even where mtime was put back.
Damage that touches no time, a failing disk, is found by doctor, which reads everything.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.canonical import file_id
from tunesmith.core.errors import Problem, StorageError
from tunesmith.core.nouns import FileEntry
from tunesmith.ledger.database import Database
from tunesmith.ledger.explain import explained

ERASED = "take what was forgotten out of your own copy of the file, and run again from there"
SETTLED_NS = 2_000_000_000  # coarsest clock of a file system: a file younger than this may change unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A file at its place and what it must hold."""

    path: Path
    entry: FileEntry
    remedy: str  # what to do when it doesn't
    erased: str = ""  # when `forget` erased the whole file


def problem_with(file: Placed) -> Problem | None:
    """Read the whole file. None if it is right."""
    if file.erased:
        what = (
            f"was erased on {file.erased[:10]} (UTC): it held what was to be forgotten, and its format cannot be edited"
        )
        return Problem(where=str(file.path), what=what, fix=ERASED)
    with explained(file.path):
        if not file.path.is_file():
            return Problem(where=str(file.path), what="the file is missing", fix=file.remedy)
        size = file.path.stat().st_size
        found = file_id(file.path)
    if found == file.entry.sha256:
        return None
    what = (
        f"the content has changed: expected SHA-256 {file.entry.sha256} ({file.entry.bytes:,} bytes), "
        f"found {found} ({size:,} bytes)"
    )
    return Problem(where=str(file.path), what=what, fix=file.remedy)


class Verifier:
    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self, files: Iterable[Placed]) -> None:
        """Raises StorageError naming every file that is missing or not what it was."""
        problems, fresh = [], []
        for file in files:
            before = _stamp(file.path) if not file.erased else None
            if before is not None and self._is_known(file, before):
                continue
            problem = problem_with(file)
            if problem:
                problems.append(problem)
            elif before is not None and before == _stamp(file.path) and time.time_ns() - max(before[2:]) > SETTLED_NS:
                fresh.append((str(file.path), file.entry.sha256, *before))
        if problems:
            raise StorageError(problems)
        if fresh:
            with suppress(StorageError), self._database.write() as db:  # only a cache: reading goes on without
                db.executemany("INSERT OR REPLACE INTO verified VALUES (?, ?, ?, ?, ?, ?)", fresh)

    def _is_known(self, file: Placed, stamp: tuple[int, int, int, int]) -> bool:
        known = self._database.read(
            "SELECT inode, bytes, mtime_ns, ctime_ns FROM verified WHERE path = ? AND sha256 = ?",
            (str(file.path), file.entry.sha256),
        )
        return known == [stamp]


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    """(inode, bytes, mtime_ns, ctime_ns)"""
    try:
        s = path.stat()
    except OSError:
        return None
    return (s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
