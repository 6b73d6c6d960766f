"""A whole, consistent copy of the ledger in another folder, while other processes write."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.canonical import sync_folder
from tunesmith.core.errors import InputError, StorageError
from tunesmith.ledger.explain import explained
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.objects import copy_hashed
from tunesmith.ledger.records import CURRENT_FILES, Records


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    folder: Path
    facts: int
    objects: int
    bytes: int
    left_out: tuple[str, ...]  # folders outside the project that the ledger refers to: models in the user's cache


def backup(ledger: Ledger, destination: Path) -> Backup:
    """Copy into a new folder, which appears whole or not at all. Until then nothing can be forgotten. `Ledger.open(destination)` restores it.

    First the database at one moment, then the files it refers to: objects are never removed while
    a record names them, and `forget` waits. Every file is hashed as it is copied. Traces and models in the user's cache
    are not part of it. Raises InputError if the destination exists, StorageError for a damaged file.
    """
    destination = destination.absolute()
    if destination.exists():
        raise InputError("the destination exists", where=str(destination), fix="name a new folder")
    temporary = destination.with_name(f".{destination.name}.partial")
    with explained(destination):
        shutil.rmtree(temporary, ignore_errors=True)  # of a backup that was killed
        temporary.mkdir(parents=True)
        try:
            with ledger.objects.session():
                ledger.records.database.copy_to(temporary / "ledger.db")
                records = Records(temporary / "ledger.db")
                try:
                    objects, size = _copy_objects(ledger, records, temporary)
                    facts = records.database.read("SELECT count(*) FROM facts")[0][0]
                    left_out = _external_folders(records)
                finally:
                    records.database.close()
            _sync(temporary)
            temporary.rename(destination)
            sync_folder(destination.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return Backup(folder=destination, facts=facts, objects=objects, bytes=size, left_out=left_out)


def _copy_objects(ledger: Ledger, records: Records, target: Path) -> tuple[int, int]:
    count = total = 0
    stored = records.database.read(
        f"SELECT DISTINCT sha256 FROM {CURRENT_FILES} WHERE sha256 IS NOT NULL "  # noqa: S608
        "AND artifact IN (SELECT artifact FROM places WHERE folder = '')"
    )
    for (sha256,) in stored:
        copy = target / "objects" / sha256[:2] / sha256
        copy.parent.mkdir(parents=True, exist_ok=True)
        entry = copy_hashed(ledger.objects.file(sha256), copy)
        if entry.sha256 != sha256:
            raise StorageError(
                f"the content has changed: expected SHA-256 {sha256}, found {entry.sha256}; nothing was backed up",
                where=str(ledger.objects.file(sha256)),
                fix="tunesmith doctor says what is damaged; repair that first, and keep the older backups",
            )
        count, total = count + 1, total + entry.bytes
    return count, total


def _external_folders(records: Records) -> tuple[str, ...]:
    rows = records.database.read("SELECT DISTINCT folder FROM places WHERE folder <> '' ORDER BY folder")
    return tuple(folder for (folder,) in rows)


def _sync(folder: Path) -> None:
    """The database and every folder; the copied files are synced already."""
    fd = os.open(folder / "ledger.db", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    for root, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(root))
