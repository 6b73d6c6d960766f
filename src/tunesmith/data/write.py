"""Canonical JSON lines written as they come, for files too long to hold."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tunesmith.core.canonical import canonical_json, sync_folder
from tunesmith.core.errors import StorageError


class LinesWriter:
    """`with LinesWriter(path) as out: out.write(record)`. The file appears whole at the end, or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._file: BinaryIO | None = None

    def __enter__(self) -> LinesWriter:
        try:
            self._file = open(self._temporary, "wb", buffering=1 << 20)
        except OSError as e:
            raise self._storage_error(e) from e
        return self

    def write(self, record: Any) -> None:
        self.write_line(canonical_json(record))

    def write_line(self, line: bytes) -> None:
        """A line that is canonical JSON already, without its line break."""
        assert self._file is not None, "used outside `with`"
        try:
            self._file.write(line)
            self._file.write(b"\n")
        except OSError as e:
            raise self._storage_error(e) from e
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        try:
            try:
                if error is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            finally:
                self._file.close()
            if error is None:
                self._temporary.replace(self.path)
                sync_folder(self.path.parent)
        except OSError as e:
            if error is None:
                raise self._storage_error(e) from e
        finally:
            self._temporary.unlink(missing_ok=True)

    def _storage_error(self, e: OSError) -> StorageError:
        return StorageError(
            f"could not write: {e.strerror}", where=str(self.path), fix="free space or choose a writable folder"
        )
