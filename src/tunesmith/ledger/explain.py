"""What went wrong on the disk or in the database, where, and what to do about it."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.core.errors import Busy, StorageError, TunesmithError

AGAIN = "then run the same command again; finished work is kept"
FULL = f"free some space, {AGAIN}"
WRITABLE = f"make the folder writable for you, or move the project to a folder that is, {AGAIN}"
DISK = f"check the disk (its log, its cables), move the project to another one if need be, {AGAIN}"
DAMAGED = "restore the newest backup; `tunesmith doctor` says what else is damaged"

# what a stage may meet on a disk; every other OSError in a stage is a bug and keeps its traceback
DISK_ERRORS = {
    errno.ENOSPC: ("the disk is full", FULL),
    errno.EDQUOT: ("your disk quota is used up", FULL),
    errno.EROFS: ("the folder is read-only", WRITABLE),
    errno.EACCES: ("no permission", WRITABLE),
    errno.EPERM: ("no permission", WRITABLE),
    errno.EIO: ("the disk reports an input/output error", DISK),
}
SQLITE_ERRORS = {
    sqlite3.SQLITE_FULL: ("the disk is full", FULL),
    sqlite3.SQLITE_READONLY: ("the database is read-only", WRITABLE),
    sqlite3.SQLITE_PERM: ("no permission", WRITABLE),
    sqlite3.SQLITE_CANTOPEN: ("the database cannot be opened or created", WRITABLE),
    sqlite3.SQLITE_IOERR: ("the disk reports an input/output error", DISK),
    sqlite3.SQLITE_CORRUPT: ("the database is damaged", DAMAGED),
    sqlite3.SQLITE_NOTADB: ("this is not a database", DAMAGED),
}


def disk_error(error: OSError, where: Path | str) -> StorageError:
    what, fix = DISK_ERRORS.get(error.errno or 0, (error.strerror or str(error), DISK))
    return StorageError(what, where=str(error.filename or where), fix=fix)


def database_error(error: sqlite3.Error, where: Path) -> TunesmithError | None:
    """None for an error that only a mistake of ours can cause: a broken constraint, bad SQL."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python's own, of a stored text that is no longer UTF-8
        return damaged_text(where) if "UTF-8" in str(error) else None
    if is_busy(error):
        return Busy("another process keeps the database locked", where=str(where), fix="end it, or wait for it")
    if code & 0xFF in SQLITE_ERRORS:
        what, fix = SQLITE_ERRORS[code & 0xFF]
        return StorageError(what, where=str(where), fix=fix)
    return None


def damaged_text(where: Path) -> StorageError:
    return StorageError("the database is damaged: a text in it is no longer UTF-8", where=str(where), fix=DAMAGED)


def is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def explained(where: Path) -> Iterator[None]:
    """Inside the ledger every OSError and every fault of the database becomes a StorageError."""
    try:
        yield
    except OSError as e:
        raise disk_error(e, where) from e
    except UnicodeDecodeError as e:  # even SQLite's message quotes the damaged text
        raise damaged_text(where) from e
    except sqlite3.Error as e:
        known = database_error(e, where)
        if known is None:
            raise
        raise known from e
