"""One way to write a value down, so that equal values have equal ids.

Canonical JSON: UTF-8, keys sorted, no white space, no NaN or infinity, floats as Python's shortest
repr. Ids are SHA-256 in lower-case hexadecimal.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.errors import StorageError

CHUNK = 1 << 20  # bytes read at a time when hashing


def plain(value: Any) -> Any:
    """Dataclasses, tuples, enums and paths as JSON-ready builtins."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=str)


def canonical_json(value: Any) -> bytes:
    """Raises ValueError for NaN, infinity and lone surrogates: they have no portable JSON form."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        "utf-8"
    )


def content_id(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_id(path: Path) -> str:
    """SHA-256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Whole or not at all, also after a power cut: new file, fsync, rename, fsync of the folder."""
    try:
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(fd, "wb") as f:
                os.fchmod(fd, 0o666 & ~umask())  # mkstemp's 0600 would shut out the user's own team
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as e:
        raise StorageError(
            f"could not write: {e.strerror}", where=str(path), fix="free space or choose a writable folder"
        ) from e


def umask() -> int:
    """The process's mask; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_lines(path: Path, records: Iterable[Any]) -> int:
    """Canonical JSON lines, atomically; returns how many."""
    body = [canonical_json(r) for r in records]
    write_atomic(path, b"".join(line + b"\n" for line in body))
    return len(body)


def read_lines(path: Path, type: Any = Any) -> Iterator[Any]:
    """Records of a JSON-lines file that Tunesmith wrote, decoded strictly as `type`."""
    decoder = msgspec.json.Decoder(type)
    with open(path, "rb") as f:
        for line in f:
            yield decoder.decode(line)


def read_json(path: Path, type: Any = Any) -> Any:
    return msgspec.json.decode(path.read_bytes(), type=type)
