"""Files by their SHA-256: `objects/ab/abcdef...`, read-only, each written once.

Order for every file: write, fsync, rename to its final name, fsync of the folder. So a name in the
store always holds the whole content, also after a power cut. The file system calls go through `os`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.canonical import CHUNK, file_id, sync_folder
from tunesmith.core.errors import InputError
from tunesmith.core.nouns import FileEntry
from tunesmith.ledger.explain import explained
from tunesmith.ledger.locks import FileLock


@dataclass(frozen=True, slots=True)
class _Ready:
    """A file that is hashed and synced, and needs only its final name."""

    path: Path
    entry: FileEntry
    source: Path | None  # to be removed afterwards: moved from another file system


class Objects:
    def __init__(self, folder: Path, lock: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self._lock = lock
        with explained(folder):
            self.temporary.mkdir(parents=True, exist_ok=True)

    def file(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def holds(self, entry: FileEntry) -> bool:
        """There, and as long as it should be. Cheap: the content is not read."""
        try:
            return self.file(entry.sha256).stat().st_size == entry.bytes
        except OSError:
            return False

    def hashes(self) -> Iterator[str]:
        for folder in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(p.name for p in folder.iterdir())

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Add files, then record them in the ledger, then leave: until then `sweep` keeps away."""
        intent = self.temporary / f"{uuid.uuid4().hex}.intent"
        with FileLock(self._lock, shared=True), explained(self.folder):
            session = Session(self, intent)
            yield session
            intent.unlink(missing_ok=True)

    def sweep(self, is_referenced: Callable[[str], bool]) -> int:
        """Remove what killed writers left behind; returns how many files.

        Does nothing while any process is writing. An intent lists the hashes a writer was about to
        add: those that no artifact refers to were never acknowledged.
        """
        lock = FileLock(self._lock)
        if not lock.try_now():
            return 0
        swept = 0
        try:
            with explained(self.temporary):
                for path in sorted(self.temporary.iterdir()):
                    if path.suffix == ".intent":
                        for sha256 in path.read_text(encoding="ascii").split():
                            if not is_referenced(sha256):
                                swept += self.file(sha256).exists()
                                self.file(sha256).unlink(missing_ok=True)
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                    swept += path.suffix != ".intent"
        finally:
            lock.release()
        return swept


class Session:
    """One writer's additions, from the first file to the record in the ledger."""

    def __init__(self, objects: Objects, intent: Path) -> None:
        self._objects = objects
        self._intent = intent

    def take(self, files: Mapping[str, Path], *, move: bool) -> dict[str, FileEntry]:
        """Put files (by relative POSIX name) into the store. A file already there is not written again.

        With `move` a file is read once, to be hashed, and renamed into the store; a link, which
        somebody else may write through, is copied. Without, it is hashed while it is copied.
        """
        ready: dict[str, _Ready] = {}
        try:
            for name, path in sorted(files.items()):
                ready[name] = self._hash_in_place(path) if move and _is_ours_alone(path) else self._copy(path, move)
            self._announce([r.entry.sha256 for r in ready.values()])
            for folder in {self._publish(r) for r in ready.values()}:
                sync_folder(folder)
        finally:
            for r in ready.values():
                if r.path.parent == self._objects.temporary:
                    r.path.unlink(missing_ok=True)
        return {name: r.entry for name, r in ready.items()}

    def _hash_in_place(self, path: Path) -> _Ready:
        if path.stat().st_dev != self._objects.temporary.stat().st_dev:
            return self._copy(path, move=True)
        fd = os.open(path, os.O_RDONLY)
        try:
            digest, size = hashlib.sha256(), 0
            while chunk := os.read(fd, CHUNK):
                digest.update(chunk)
                size += len(chunk)
            os.fchmod(fd, 0o444)
            os.fsync(fd)
        finally:
            os.close(fd)
        return _Ready(path, FileEntry(sha256=digest.hexdigest(), bytes=size), None)

    def _copy(self, path: Path, move: bool) -> _Ready:
        temporary = self._objects.temporary / f"{uuid.uuid4().hex}.tmp"
        try:
            entry = copy_hashed(path, temporary)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return _Ready(temporary, entry, path if move else None)

    def _announce(self, hashes: list[str]) -> None:
        # not synced: after a power cut an object without a reference may stay, and doctor lists it
        fd = os.open(self._intent, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _write_all(fd, "".join(h + "\n" for h in hashes).encode("ascii"))
        finally:
            os.close(fd)

    def _publish(self, ready: _Ready) -> Path:
        target = self._objects.file(ready.entry.sha256)
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            sync_folder(self._objects.folder)
        if self._objects.holds(ready.entry) and file_id(target) == ready.entry.sha256:
            ready.path.unlink(missing_ok=True)
        else:  # absent, or damaged: the good copy takes its place
            ready.path.rename(target)
        if ready.source is not None:
            ready.source.unlink(missing_ok=True)
        return target.parent


def copy_hashed(source: Path, target: Path) -> FileEntry:
    """Copy into a new read-only file, synced; the hash is of the bytes that were written."""
    digest, size = hashlib.sha256(), 0
    reading = os.open(source, os.O_RDONLY)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            while chunk := os.read(reading, CHUNK):
                digest.update(chunk)
                _write_all(writing, chunk)
                size += len(chunk)
            os.fchmod(writing, 0o444)
            os.fsync(writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return FileEntry(sha256=digest.hexdigest(), bytes=size)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:  # a write may be short: a nearly full disk, a signal
        view = view[os.write(fd, view) :]


def _is_ours_alone(path: Path) -> bool:
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def files_of(folder: Path) -> dict[str, Path]:
    """The files in a folder, by relative POSIX name; links are followed.

    Raises InputError for what has no content to keep: a missing folder, a broken link, a device, a
    name that is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder), fix="check the path")
    found: dict[str, Path] = {}
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(root) / name
            shown = path.relative_to(folder).as_posix()
            if not path.is_file():
                raise InputError("not a regular file, or a broken link", where=str(path), fix="remove it")
            if shown != shown.encode("utf-8", "replace").decode("utf-8"):
                raise InputError("the name of this file is not UTF-8", where=repr(str(path)), fix="rename it")
            found[shown] = path
    return found
