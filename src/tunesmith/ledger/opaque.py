"""The texts of files that cannot be edited in place: enough to tell whether they hold what is sought."""

from __future__ import annotations

import gzip
import html
import importlib
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith.ledger.sought import Sought, strings_in

CHUNK = 1 << 20  # bytes
MOST = 8 << 30  # bytes unpacked from one file
_TAG = re.compile(r"<[^>]*>")


class Unread(Exception):
    """The file could not be looked into; the message says why."""


def holds(path: Path, name: str, sought: Sought) -> bool:
    """Raises Unread where the format needs a library that is not installed, or the file is broken."""
    if not (sought.phrases or sought.wholes):
        return False
    try:
        carried = ""
        for text in _texts(path, name):
            if sought.in_text(carried + text):
                return True
            carried = text[-4096:] if len(text) >= 4096 else (carried + text)[-4096:]
    except ImportError as e:
        raise Unread(f"{e.name} is not installed") from e
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, sqlite3.Error, ValueError) as e:
        raise Unread(f"it cannot be read: {type(e).__name__}") from e
    return False


def _texts(path: Path, name: str) -> Iterator[str]:
    with open(path, "rb") as f:
        head = f.read(16)
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(path, "rb") as packed:
            yield from _decoded(packed)
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        zstandard = importlib.import_module("zstandard")
        with open(path, "rb") as f, zstandard.ZstdDecompressor().stream_reader(f, read_across_frames=True) as packed:
            yield from _decoded(packed)
    elif head.startswith(b"PK\x03\x04"):
        yield from _zipped(path)
    elif head.startswith(b"SQLite format 3"):
        yield from _rows(path)
    elif head.startswith(b"PAR1") or head.startswith(b"ARROW1"):
        yield from _columns(path, is_parquet=head.startswith(b"PAR1"))
    elif head.startswith(b"%PDF"):
        yield from _pages(path)
    else:
        with open(path, "rb") as f:
            yield from _decoded(f)
        if PurePosixPath(name).suffix.lower() in (".xls", ".doc", ".txt", ".csv", "") or b"\0" in head:
            yield path.read_bytes().decode("utf-16-le", "ignore")


def _decoded(file: Any) -> Iterator[str]:
    total, rest = 0, b""
    while chunk := file.read(CHUNK):
        total += len(chunk)
        if total > MOST:
            raise ValueError("too large when unpacked")
        whole = rest + chunk
        cut = whole.rfind(b"\n") + 1 or len(whole)
        rest = whole[cut:]
        text = whole[:cut].decode("utf-8", "replace")
        yield text
        if "\\u" in text:  # JSON
            yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m.group(1), 16)), text)
    yield rest.decode("utf-8", "replace")


def _zipped(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as member:
                for text in _decoded(member):
                    yield text
                    if "<" in text:
                        yield html.unescape(_TAG.sub("", text))
                        yield html.unescape(_TAG.sub(" ", text))


def _rows(path: Path) -> Iterator[str]:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        names = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            quoted = name.replace('"', '""')
            for row in db.execute(f'SELECT * FROM "{quoted}"'):  # noqa: S608 (a table of the file itself, quoted)
                yield " ".join(str(v) for v in row if isinstance(v, str | int | float))
    finally:
        db.close()
    with open(path, "rb") as f:  # pages that are free, but not empty
        yield from _decoded(f)


def _columns(path: Path, *, is_parquet: bool) -> Iterator[str]:
    if is_parquet:
        parquet = importlib.import_module("pyarrow.parquet")
        batches = parquet.ParquetFile(path).iter_batches(batch_size=1024)
    else:
        reader = importlib.import_module("pyarrow.ipc").open_file(path)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
    for batch in batches:
        for row in batch.to_pylist():
            yield " ".join(strings_in(row))


def _pages(path: Path) -> Iterator[str]:
    document = importlib.import_module("pypdfium2").PdfDocument(path)
    try:
        for page in document:
            yield page.get_textpage().get_text_bounded()
    finally:
        document.close()
