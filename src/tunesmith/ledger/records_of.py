"""Where the records of a text file begin and end, in physical lines: what stands there can be blanked alone.

Only as much of each format as erasing needs; reading rows is the data room's work. All lines are bytes with
their line break.
"""

from __future__ import annotations

import csv
import email
import email.policy
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from tunesmith.ledger.sought import values_in

Form = Literal["jsonl", "json", "table", "mbox", "mail", "html", "text", "opaque"]
FORMS: dict[str, Form] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "table", ".tsv": "table", ".tab": "table",
    ".mbox": "mbox", ".eml": "mail", ".html": "html", ".htm": "html", ".xhtml": "html",
}  # fmt: skip
PACKED = {".gz", ".zst", ".parquet", ".arrow", ".feather", ".xlsx", ".xlsm", ".xls", ".xlsb", ".ods", ".sqlite"}
OPAQUE = PACKED | {".sqlite3", ".db", ".pdf", ".docx"}
LONGEST = 10_000  # lines of one quoted field; more is a quote that was never closed
HEAD = 1 << 16
_TAG = re.compile(r"<[^>]*>")
_FROM = re.compile(rb"From [^\r\n]*\d\d?:\d\d(:\d\d)?[^\r\n]* \d{4}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A record: its first physical line, how many it spans, and its bytes."""

    line: int
    lines: int
    raw: bytes


def form_of(name: str, file: BinaryIO) -> Form:
    """By the name, and where that says nothing by the first bytes."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in FORMS:
        return FORMS[suffix]
    if suffix in OPAQUE:
        return "opaque"
    head = file.read(HEAD)
    file.seek(0)
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as e:
        if e.start < len(head) - 4 and head.count(b"\0"):
            return "opaque"
    if b"\0" in head:
        return "opaque"
    return "mbox" if _FROM.match(head) else "text"


def pieces(form: Form, file: BinaryIO) -> Iterator[Piece]:
    if form == "table":
        yield from _table(file)
    elif form == "mbox":
        yield from _messages(file)
    elif form == "mail":
        raw = file.read()
        yield Piece(1, max(raw.count(b"\n"), 1), raw)
    else:
        yield from (Piece(n, 1, raw) for n, raw in enumerate(file, 1))


def strings_of(form: Form, raw: bytes, delimiter: str = ",") -> list[str]:
    """What a person would read in one record. Of a broken record: the whole of it as text."""
    text = raw.decode("utf-8", "replace")
    if form == "jsonl":
        try:
            return values_in(json.loads(text))
        except (ValueError, RecursionError):
            return [text]
    if form == "table":
        try:
            return [cell for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter) for cell in row]
        except csv.Error:
            return [text]
    if form in ("mbox", "mail"):
        return [text, *_mail_texts(raw)]
    if form == "html":
        plain = html.unescape(text)
        return [plain, html.unescape(_TAG.sub("", text)), html.unescape(_TAG.sub(" ", text))]
    return [text]


def delimiter_of(file: BinaryIO) -> str:
    first = file.readline(HEAD).decode("utf-8", "replace")
    file.seek(0)
    return max(",\t;|", key=first.count)


def _table(file: BinaryIO) -> Iterator[Piece]:
    delimiter = delimiter_of(file).encode()
    held: list[bytes] = []
    start, is_open = 1, False
    for number, raw in enumerate(file, 1):
        if not held:
            start = number
        held.append(raw)
        is_open = _ends_open(raw, delimiter, is_open)
        if is_open and len(held) <= LONGEST:
            continue
        if is_open:  # a quote that opened nothing: its lines stand for themselves
            yield from (Piece(start + i, 1, line) for i, line in enumerate(held))
        else:
            yield Piece(start, len(held), b"".join(held))
        held, is_open = [], False
    if is_open:
        yield from (Piece(start + i, 1, line) for i, line in enumerate(held))


def _ends_open(raw: bytes, delimiter: bytes, is_open: bool) -> bool:
    """Whether a quoted field goes on after this line. A quote counts only where a field begins."""
    if b'"' not in raw:
        return is_open
    at, line = 0, raw.rstrip(b"\r\n")
    while True:
        if is_open:
            at = line.find(b'"', at)
            while at >= 0 and line[at + 1 : at + 2] == b'"':
                at = line.find(b'"', at + 2)
            if at < 0:
                return True
            is_open = False
        else:
            is_open = line[at : at + 1] == b'"'
            if is_open:
                at += 1
                continue
        at = line.find(delimiter, at)
        if at < 0:
            return False
        at += 1


def _messages(file: BinaryIO) -> Iterator[Piece]:
    held: list[bytes] = []
    start, after_blank = 1, True
    for number, raw in enumerate(file, 1):
        if after_blank and held and _FROM.match(raw):
            yield Piece(start, len(held), b"".join(held))
            held, start = [], number
        held.append(raw)
        after_blank = not raw.strip()
    if held:
        yield Piece(start, len(held), b"".join(held))


def _mail_texts(raw: bytes) -> list[str]:
    """Headers and bodies as their readers see them: encoded words, quoted-printable and base64 undone."""
    body = raw.split(b"\n", 1)[1] if _FROM.match(raw) and b"\n" in raw else raw
    found: list[str] = []
    try:
        message = email.message_from_bytes(body, policy=email.policy.default)
        found += [str(value) for value in message.values()]
        for part in message.walk() if isinstance(message, EmailMessage) else ():
            if part.get_content_maintype() == "text":
                decoded = part.get_payload(decode=True)
                text = decoded.decode("utf-8", "replace") if isinstance(decoded, bytes) else ""
                found += [text, html.unescape(_TAG.sub(" ", text))]
    except (ValueError, LookupError, AttributeError, IndexError, TypeError):  # the parser's own faults on broken mail
        return found
    return found


def blanked(raw: bytes) -> bytes:
    """Nothing but the line breaks, so that every later line keeps its number."""
    return b"".join(line[len(line.rstrip(b"\r\n")) :] for line in raw.splitlines(keepends=True))


def windows(lines: Iterable[bytes], *, bytes_held: int) -> Iterator[tuple[int, list[bytes], int]]:
    """A long text in overlapping parts: (number of its first line, the lines, how many of them are new)."""
    held: list[bytes] = []
    first, new, size = 1, 0, 0
    for line in lines:
        held.append(line)
        new += 1
        size += len(line)
        if size >= bytes_held * 2:
            yield first, held, new
            keep = kept = 0
            while keep < len(held) and kept + len(held[-keep - 1]) <= bytes_held:
                kept += len(held[-keep - 1])
                keep += 1
            first += len(held) - keep
            held = held[len(held) - keep :] if keep else []
            new, size = 0, kept
    if new:
        yield first, held, new
