"""Files packed with gzip or zstd, opened with a limit: a few kilobytes can unpack to more than any disk holds."""

from __future__ import annotations

import gzip
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from tunesmith.core.errors import DataError
from tunesmith.core.extras import need
from tunesmith.data.lines import FileFacts

MOST_BYTES = 64 << 30  # unpacked, of one file
MOST_RATIO = 250  # unpacked to packed; JSON lines of one template reach about 60
FREE_BYTES = 64 << 20  # below this the ratio is not looked at: a short file of blanks packs very well
CHUNK = 1 << 20
SMALL = 1 << 11  # packed bytes taken at a time: 4 bytes of zstd can stand for 128 KiB


class _Limited(io.RawIOBase):
    """What a decompressor gives, as far as it may."""

    def __init__(self, inner: Any, facts: FileFacts, errors: tuple[type[Exception], ...]) -> None:
        self._inner = inner
        self._facts = facts
        self._errors = errors
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._inner.read(len(buffer))
        except self._errors as e:
            raise DataError(
                f"cannot be unpacked to its end: {e or type(e).__name__}",
                where=self._facts.file,
                fix="copy the file again: it is cut short or damaged",
            ) from e
        self._given += len(piece)
        packed = max(self._facts.bytes, 1)
        if self._given > MOST_BYTES or (self._given > FREE_BYTES and self._given > MOST_RATIO * packed):
            raise DataError(
                f"{packed:,} bytes unpack to more than {self._given:,}: at most {MOST_RATIO} times as many, and "
                f"{MOST_BYTES >> 30} GiB, are unpacked",
                where=self._facts.file,
                fix="unpack it yourself if you trust it, and name the unpacked file",
            )
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._inner.close()
        super().close()


class _Frames:
    """A zstd file's frames, which may follow each other as `cat a.zst b.zst` makes them. zstandard's own reader takes
    the end of the file for the end of a frame; here a frame that is cut short is an EOFError."""

    def __init__(self, raw: BinaryIO, zstd: Any) -> None:
        self._raw = raw
        self._new: Callable[[], Any] = lambda: zstd.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        self._frame: Any = None
        self._left = b""  # packed bytes behind the last frame
        self._ready = memoryview(b"")

    def read(self, n: int) -> bytes:
        while not self._ready:
            piece = self._left or self._raw.read(SMALL)
            self._left = b""
            if not piece:
                if self._frame is not None:
                    raise EOFError("the last frame is cut short")
                return b""
            self._frame = self._frame or self._new()
            self._ready = memoryview(self._frame.decompress(piece))
            if self._frame.eof:
                self._left, self._frame = self._frame.unused_data, None
        given, self._ready = bytes(self._ready[:n]), self._ready[n:]
        return given

    def close(self) -> None:
        self._raw.close()


def open_source(path: Path, facts: FileFacts) -> BinaryIO:
    """The file's bytes, unpacked. Raises DataError, not OSError: the file is the user's."""
    try:
        raw = open(path, "rb")  # noqa: SIM115  whoever gets it closes it
    except OSError as e:
        raise DataError(
            f"cannot be read: {e.strerror}", where=facts.file, fix="check that the file exists and that you may read it"
        ) from e
    if facts.packed == "gz":
        packed: Any = gzip.GzipFile(fileobj=raw)
        return cast(BinaryIO, io.BufferedReader(_Limited(packed, facts, (OSError, EOFError, zlib.error)), CHUNK))
    if facts.packed == "zst":
        try:
            zstd = need("zstandard", extra="tables", why=f"reading {facts.file}")
        except BaseException:
            raw.close()
            raise
        unpacking = _Frames(raw, zstd)
        return cast(BinaryIO, io.BufferedReader(_Limited(unpacking, facts, (OSError, EOFError, zstd.ZstdError)), CHUNK))
    return raw


@contextmanager
def whole_file(path: Path, facts: FileFacts) -> Iterator[Path]:
    """A path to the unpacked bytes, for formats that are read from their end: the file itself, or a copy
    that is removed again."""
    if not facts.packed:
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="tunesmith-", suffix=Path(path.stem).suffix) as copy:
        with open_source(path, facts) as f:
            while piece := f.read(CHUNK):
                copy.write(piece)
        copy.flush()
        yield Path(copy.name)
