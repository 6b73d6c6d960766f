"""The files of a source folder, their format, and their bytes: unpacked, within a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.documents.blocks import Unreadable

FORMATS = {
    ".pdf": "pdf",
    ".docx": "docx",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".dict": "foldoc",
    ".tsv": "tsv",
}
TEXTS = ("text", "markdown", "foldoc", "tsv")  # formats whose layout can be named
PACKED = (".gz", ".dz")  # dictzip is gzip with an index in its header
KNOWN = "PDF, DOCX, HTML, Markdown (.md), text (.txt), dictd (.dict, .dict.dz), TSV glossaries; each also as .gz"
LIMIT = 1 << 28  # bytes of one document, unpacked: what does not end is an attack or a mistake
INDEX = ".index"  # beside a .dict: where dictd's entries lie; the entries are read without it


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    name: str  # relative, POSIX
    path: Path
    format: str  # a value of FORMATS, or "" if the name says none that is known


def source_files(folder: Path) -> list[SourceFile]:
    """Every file below `folder`, by name. Raises DataError if there is none."""
    paths = [p for p in folder.rglob("*") if p.is_file()]
    found = [(p.relative_to(folder).as_posix(), p) for p in paths]
    files = [SourceFile(name=name, path=path, format=format_of(name)) for name, path in sorted(found)]
    if not files:
        raise DataError("no document is named", where="documents.files", fix=f"name one: {KNOWN}")
    return files


def format_of(name: str) -> str:
    suffixes = [s.lower() for s in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1], "") if suffixes else ""


def read_bytes(file: SourceFile) -> bytes:
    """The document's bytes, unpacked. Raises Unreadable."""
    try:
        if file.name.lower().endswith(PACKED):
            return _unpack(file.path)
        if file.path.stat().st_size > LIMIT:
            raise _too_large()
        return file.path.read_bytes()
    except OSError as e:
        raise Unreadable("unreadable", f"cannot be read: {e.strerror}", "check that you may read it") from e


def _unpack(path: Path) -> bytes:
    """gzip, member by member."""
    packed = path.read_bytes()
    whole = bytearray()
    while packed:
        one = zlib.decompressobj(wbits=31)
        try:
            whole += one.decompress(packed, LIMIT - len(whole) + 1)
        except zlib.error as e:
            raise Unreadable("broken", f"the gzip data is broken ({e})", "copy the file again") from e
        if len(whole) > LIMIT or one.unconsumed_tail:
            raise _too_large()
        if not one.eof:
            raise Unreadable("broken", "the gzip data ends too soon", "copy the file again")
        packed = one.unused_data.lstrip(b"\0")
    return bytes(whole)


def _too_large() -> Unreadable:
    return Unreadable("too_large", f"is more than {LIMIT >> 20} MiB unpacked", "part it into several files")


def decode(data: bytes) -> str:
    """UTF-8, or UTF-16 with its mark. Raises Unreadable: an encoding is never guessed."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
    if encoding == "utf-8-sig" and b"\0" in data:
        raise Unreadable("not_text", f"has a NUL byte at byte {data.index(0) + 1}: it is no text", f"known: {KNOWN}")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as e:
        raise Unreadable(
            "encoding",
            f"byte {data[e.start]:#04x} at byte {e.start + 1} is not {encoding[:5].upper()}",
            "if it is Windows-1252: iconv -f WINDOWS-1252 -t UTF-8",
        ) from e


def raise_any(problems: Iterable[Problem]) -> None:
    """One DataError with all of them, if there are any."""
    found = tuple(problems)
    if found:
        raise DataError(found)
