"""Physical lines of a text file, with what is wrong with their bytes. Everything else reads through this."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import msgspec

from tunesmith.core.errors import DataError

LINE_LIMIT = 1 << 24  # bytes; a longer line is a file without line breaks, and would fill the memory
BOM = b"\xef\xbb\xbf"
WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
SHOWN = 80  # characters of a row that messages and left_out.jsonl repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why one row cannot be used."""

    reason: str  # short and countable: "broken_utf8", "no_label"
    what: str
    fix: str = ""
    field: str = ""  # column or path inside the record: "messages[2].role"


class Record(msgspec.Struct, kw_only=True, gc=False):
    """One record as it stands in the file, before anyone knows what it means. Made by the million, so a Struct."""

    line: int  # 1-based physical line where it starts; in a file without lines, its number
    fields: dict[str, Any]
    lines: int = 1  # physical lines it spans


@dataclass(slots=True, kw_only=True)
class BadRecord:
    """A piece of the file that could not be read as a record."""

    line: int
    fault: Fault
    text: str = ""
    lines: int = 1  # physical lines it spans
    loses_place: bool = False  # where the next record starts is no longer known: no policy can help


@dataclass(slots=True, kw_only=True)
class FileFacts:
    """What was seen in one file; part of check.json."""

    file: str  # by relative POSIX path
    bytes: int = 0
    read_bytes: int = 0
    format: str = ""  # a name in formats/known.py
    packed: str = ""  # "gz", "zst"
    folder: str = ""  # of a text or a mail: the name of the folder it lies in
    split: str = ""  # of a file of a `datasets` folder
    sheet: str = ""
    delimiter: str = ""
    columns: list[str] = field(default_factory=list)  # of a table, in the file's order
    keys: dict[str, None] = field(default_factory=dict)  # of JSON objects, as first met
    bom: bool = False
    crlf_lines: int = 0
    blank_lines: int = 0
    lines: int = 0
    longest_record: tuple[int, int] = (0, 0)  # physical lines it spans, and where it starts
    notes: list[str] = field(default_factory=list)  # what was decided about the file, as sentences


@dataclass(slots=True)
class Line:
    number: int
    text: str  # without the line break when `keep_ends` is off; broken bytes as U+FFFD
    raw: bytes
    fault: Fault | None


def physical_lines(f: BinaryIO, facts: FileFacts, *, keep_ends: bool) -> Iterator[Line]:
    """Lines split at `\\n` alone, so that U+2028 or a form feed inside a text breaks nothing.

    Raises DataError for UTF-16 and UTF-32, where a line break is no single byte.
    """
    number, offset = 0, 0
    while raw := f.readline(LINE_LIMIT + 1):
        number += 1
        start = offset
        offset += len(raw)
        fault = None
        if len(raw) > LINE_LIMIT and not raw.endswith(b"\n"):
            offset += skip_line(f)
            fault = too_long()
            raw = b"\n"  # its start may open a quote, which must not swallow the lines after it
        if raw.endswith(b"\r\n"):
            facts.crlf_lines += 1
        facts.lines, facts.read_bytes = number, offset
        line = examine(raw, number, start, facts, fault)
        if not keep_ends:
            line.text = line.text.rstrip("\r\n")
        yield line


def examine(raw: bytes, number: int, start: int, facts: FileFacts, fault: Fault | None = None) -> Line:
    """One physical line with what is wrong with its bytes; `start`: of the line, in bytes of the file.

    Raises DataError for UTF-16 and UTF-32.
    """
    if number == 1:
        raw = _without_bom(raw, facts)
    elif raw.startswith(BOM):
        fault = Fault(
            reason="bom",
            what="a byte-order mark in the middle of the file: files were joined",
            fix="name both files under data.files, or remove the three bytes EF BB BF",
        )
    fault = fault or (_nul(raw) if b"\0" in raw else None)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        text = raw.decode("utf-8", "replace")
        fault = fault or broken_utf8(e, raw, start)
    return Line(number, text, raw, fault)


def too_long() -> Fault:
    return Fault(
        reason="line_too_long",
        what=f"the line is longer than {LINE_LIMIT >> 20} MiB",
        fix="one record a line; write long documents as several records",
    )


def excerpt(text: str) -> str:
    """The start of a row for people: one line, no control characters, at most SHOWN characters."""
    flat = " ".join(text[: 4 * SHOWN].split())
    flat = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in flat)
    return flat if len(flat) <= SHOWN else flat[: SHOWN - 1] + "…"


def skip_line(f: BinaryIO) -> int:
    skipped = 0
    while piece := f.readline(LINE_LIMIT):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _without_bom(raw: bytes, facts: FileFacts) -> bytes:
    if raw.startswith(WIDE_BOMS):
        raise DataError(
            "the file is in UTF-16 or UTF-32, not UTF-8",
            where=f"{facts.file}:1",
            fix=f"iconv -f UTF-16 -t UTF-8 {facts.file} > utf8-{facts.file}",
        )
    if raw.startswith(BOM):
        facts.bom = True
        return raw[len(BOM) :]
    return raw


def _nul(raw: bytes) -> Fault:
    return Fault(
        reason="nul",
        what=f"a NUL byte at byte {raw.index(0) + 1} of the line",
        fix="remove it; many of them mean that the file is binary or in UTF-16",
    )


def broken_utf8(e: UnicodeDecodeError, raw: bytes, start: int) -> Fault:
    return Fault(
        reason="broken_utf8",
        what=f"byte {raw[e.start]:#04x} at byte {start + e.start + 1} of the file is not UTF-8 ({e.reason})",
        fix="if the file is in Windows-1252: iconv -f WINDOWS-1252 -t UTF-8",
    )
