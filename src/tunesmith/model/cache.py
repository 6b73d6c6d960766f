"""Where verified models are kept: folders named by content, written whole or not at all.

`models/<artifact id>/` holds the files, `models/<artifact id>.json` their hashes and the file stamps
(inode, size, times) under which they were last hashed: while a stamp stands, a process start need not
read half a gigabyte again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.canonical import CHUNK, canonical_json, file_id, read_json, sync_folder, write_atomic
from tunesmith.core.errors import ModelError, StorageError
from tunesmith.core.nouns import Artifact, FileEntry

Progress = Callable[..., None]
Stamps = dict[str, tuple[list[int], str]]  # path → ([inode, size, mtime_ns, ctime_ns], sha256)


class Record(msgspec.Struct, frozen=True):
    """models/<artifact id>.json"""

    name: str
    license: str
    files: dict[str, FileEntry]
    stamps: Stamps


def cache_folder(cache: Path | None = None) -> Path:
    """`cache`, else $TUNESMITH_CACHE, else $XDG_CACHE_HOME/tunesmith, else ~/.cache/tunesmith; made if absent."""
    if cache is None:
        own, shared = os.environ.get("TUNESMITH_CACHE"), os.environ.get("XDG_CACHE_HOME")
        cache = Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "tunesmith"
    try:
        (cache / "models").mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(
            f"the model cache cannot be made: {e.strerror}",
            where=str(cache),
            fix="set TUNESMITH_CACHE to a writable folder",
        ) from e
    return cache


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock dies with its holder."""
    try:
        f = open(path, "ab")  # noqa: SIM115 - closed by the with below; only its opening may fail here
    except OSError as e:
        raise StorageError(
            f"cannot be locked: {e.strerror}", where=str(path), fix="set TUNESMITH_CACHE to a writable folder"
        ) from e
    with f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def stamp(path: Path) -> list[int]:
    s = path.stat()
    return [s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]


def hash_files(folder: Path, names: list[str], known: Stamps, progress: Progress) -> Stamps:
    """SHA-256 of each file, read again only where its stamp is not the known one."""
    stamps: Stamps = {}
    total = sum((folder / n).stat().st_size for n in names)
    done = 0
    for name in names:
        now = stamp(folder / name)
        if name in known and known[name][0] == now:
            stamps[name] = (now, known[name][1])
        else:
            progress(done, total, f"hashing {name}")
            stamps[name] = (now, file_id(folder / name))
        done += now[1]
    return stamps


def artifact_of(stamps: Stamps) -> Artifact:
    files = {name: FileEntry(sha256=sha, bytes=s[1]) for name, (s, sha) in sorted(stamps.items())}
    return Artifact(kind="model", files=files)


def open_cached(models: Path, artifact_id: str, progress: Progress) -> tuple[Record, Artifact] | None:
    """The record of a cached model, its files verified; None if it is not there. Raises ModelError."""
    record_file, folder = models / f"{artifact_id}.json", models / artifact_id
    if not record_file.exists() or not folder.is_dir():
        return None
    try:
        record: Record = read_json(record_file, Record)
    except msgspec.DecodeError:
        return None  # written again below; the files themselves are hashed either way
    artifact = Artifact(kind="model", files=record.files)
    wrong = [n for n in record.files if not (folder / n).is_file()]
    stamps: Stamps = {}
    if not wrong:
        stamps = hash_files(folder, list(record.files), record.stamps, progress)
        wrong = [n for n, (_, sha) in stamps.items() if sha != record.files[n].sha256]
    if wrong or artifact.id != artifact_id:
        raise ModelError(
            f"{', '.join(wrong) or record_file.name} no longer matches the hash under which it was stored: "
            "damaged or changed",
            where=str(folder),
            fix=f"remove the folder and run again: rm -r {folder}",
        )
    if stamps != record.stamps:
        write_record(models, artifact_id, msgspec.structs.replace(record, stamps=stamps))
    return record, artifact


def write_record(models: Path, artifact_id: str, record: Any) -> None:
    write_atomic(models / f"{artifact_id}.json", canonical_json(record))


def put(models: Path, name: str, license: str, fill: Callable[[Path], None], *, expect: str, mismatch: str) -> Artifact:
    """`fill` a new folder, hash it, and move it to its place. Raises ModelError if its id is not `expect`."""
    try:
        temporary = Path(tempfile.mkdtemp(dir=models, prefix=".new-"))
    except OSError as e:
        raise StorageError(
            f"cannot be written: {e.strerror}", where=str(models), fix="set TUNESMITH_CACHE to a writable folder"
        ) from e
    try:
        fill(temporary)
        names = sorted(p.name for p in temporary.iterdir())
        stamps = hash_files(temporary, names, {}, lambda *a, **k: None)
        artifact = artifact_of(stamps)
        if artifact.id != expect:
            raise ModelError(
                f"{mismatch} (id {artifact.id[:12]} instead of {expect[:12]})",
                where=f"model {name!r}",
                fix="run again; if it stays so, the files are damaged",
            )
        for n in names:
            with open(temporary / n, "rb") as f:
                os.fsync(f.fileno())
        sync_folder(temporary)
        final = models / artifact.id
        if final.exists():
            shutil.rmtree(final)  # a damaged or half-recorded copy: its record did not verify
        temporary.rename(final)
        sync_folder(models)
        write_record(
            models,
            artifact.id,
            Record(name, license, artifact.files, {n: (stamp(final / n), s[1]) for n, s in stamps.items()}),
        )
        return artifact
    except OSError as e:
        raise StorageError(
            f"could not store the model: {e.strerror}",
            where=str(models),
            fix="free space or set TUNESMITH_CACHE to another folder",
        ) from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(models: Path) -> None:
    """Remove what a killed process left half-written. Call while holding the lock."""
    for left in models.glob(".new-*"):
        shutil.rmtree(left, ignore_errors=True)


def copy_file(source: Path, target: Path) -> str:
    """Bytes only, never a link; the last path component may not be one either. Returns the SHA-256."""
    digest = hashlib.sha256()
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as f, open(target, "xb") as out:
        while chunk := f.read(CHUNK):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()
