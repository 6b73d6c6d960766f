"""Mail: one message a file (.eml, maildir), or mailboxes of many (mbox); bytes in, decoded text out.

    subject, from, to, cc, date, message_id   headers, decoded; "" where there is none; date in ISO form if it is one
    body          the text/plain parts; the text/html parts where there are no others, and then `html` is true
    attachments   "name (type, bytes)" of every other part
    charset       what the body was read as, and what it claims to be where that cannot be
    folder, file  where it was found

A charset that is unknown or wrong is replaced in a stated order: a wider one of its family, UTF-8, then Windows-1252, then Latin-1, in which
every byte means something. So every message is read, and `charset` says how.
"""

from __future__ import annotations

import email.message
import email.utils
import re
from collections.abc import Iterator
from email.header import decode_header
from email.parser import BytesParser
from email.policy import compat32
from pathlib import Path
from typing import Any

from tunesmith.data import lines
from tunesmith.data.formats.known import FROM_LINE
from tunesmith.data.formats.packed import open_source
from tunesmith.data.lines import BadRecord, Fault, FileFacts, Record, excerpt, physical_lines

MAIL_FIELDS = (
    "subject", "from", "to", "cc", "date", "message_id", "body", "html", "attachments", "charset", "folder", "file",
)  # fmt: skip
MOST_PARTS = 1_000
FALLBACKS = ("utf-8", "windows-1252", "latin-1")
WIDER = {"gb2312": "gb18030", "ks_c_5601-1987": "cp949", "euc-kr": "cp949", "big5": "cp950", "shift_jis": "cp932"}
# what programs that claim these really write, as the WHATWG's Encoding Standard has it
QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)


def read_mail(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """The one message of a file."""
    facts.columns = list(MAIL_FIELDS)
    with open_source(path, facts) as f:
        raw = f.read(lines.LINE_LIMIT + 1)
    facts.read_bytes, facts.lines = len(raw), raw.count(b"\n")
    yield _message(raw, 1, facts)


def read_mbox(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """Messages divided by lines "From somebody Thu Aug 22 12:36:23 2002" at the start or after an empty line;
    one level of > before "From " inside a message is taken off again (mboxrd)."""
    facts.columns = list(MAIL_FIELDS)
    held = bytearray()
    first, blank, inside = 1, True, False
    with open_source(path, facts) as f:
        # broken bytes are no fault here: the message says in its headers how its bytes are meant
        for line in physical_lines(f, facts, keep_ends=True):
            if blank and line.raw.startswith(b"From ") and FROM_LINE.match(line.raw.rstrip(b"\n")):
                if inside or held.strip():
                    yield _boxed(held, first, facts)
                held, first, blank, inside = bytearray(), line.number, False, True
                continue
            if len(held) <= lines.LINE_LIMIT:  # beyond it, _message refuses what is held
                held += line.raw
            blank = not line.raw.strip()
    if inside or held.strip():
        yield _boxed(held, first, facts)


def _boxed(held: bytearray, line: int, facts: FileFacts) -> Record | BadRecord:
    """A message as it was before it was put into a mailbox: without the empty line that divides it from the next."""
    raw = held[:-1] if held.endswith(b"\n\n") else held
    return _message(QUOTED_FROM.sub(rb"\1", raw), line, facts)


def _message(raw: bytes | bytearray, line: int, facts: FileFacts) -> Record | BadRecord:
    spans = raw.count(b"\n") + 1
    if len(raw) > lines.LINE_LIMIT:
        what = f"the message is longer than {lines.LINE_LIMIT >> 20} MiB"
        return BadRecord(line=line, fault=Fault(reason="too_long", what=what, fix="leave it out"), lines=spans)
    try:
        fields = parse_mail(raw)
    except Exception as e:  # the parser meets whatever people's mail programs wrote
        what = f"cannot be taken apart as mail: {type(e).__name__}"
        text = excerpt(raw[:400].decode("utf-8", "replace"))
        return BadRecord(
            line=line, fault=Fault(reason="broken_mail", what=what, fix="leave it out"), text=text, lines=spans
        )
    fields["folder"], fields["file"] = facts.folder, facts.file
    return Record(line=line, fields=fields, lines=spans)


def parse_mail(raw: bytes | bytearray) -> dict[str, Any]:
    """The fields of one message but for where it was found. Raises whatever the parser raises."""
    message = BytesParser(policy=compat32).parsebytes(bytes(raw))
    plain: list[tuple[str, str]] = []
    rich: list[tuple[str, str]] = []
    attachments: list[str] = []
    for i, part in enumerate(_parts(message)):
        if i >= MOST_PARTS:
            attachments.append("further parts, not looked at")
            break
        _take(part, plain, rich, attachments)
    chosen = plain or rich
    return {
        "subject": _header(message, "subject"),
        "from": _header(message, "from"),
        "to": _header(message, "to"),
        "cc": _header(message, "cc"),
        "date": _date(message),
        "message_id": _header(message, "message-id"),
        "body": "\n".join(text for text, _ in chosen),
        "html": not plain and bool(rich),
        "attachments": attachments,
        "charset": ", ".join(dict.fromkeys(charset for _, charset in chosen)),
    }


def _parts(message: email.message.Message) -> Iterator[email.message.Message]:
    """The leaves, in order. A mail inside a mail is an attachment: its text is somebody else's."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        payload = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(payload, list):
            waiting.extend(reversed([p for p in payload if isinstance(p, email.message.Message)]))
        else:
            yield part


def _take(
    part: email.message.Message, plain: list[tuple[str, str]], rich: list[tuple[str, str]], attachments: list[str]
) -> None:
    kind, name = part.get_content_type(), part.get_filename()
    if kind in ("text/plain", "text/html") and not name and part.get_content_disposition() != "attachment":
        data = part.get_payload(decode=True)
        (plain if kind == "text/plain" else rich).append(_text(data if isinstance(data, bytes) else b"", part))
        return
    if part.get_content_maintype() == "multipart":  # says it has parts and has none: its text is all there is
        plain.append(_text(_bytes(part), part))
        return
    attachments.append(f"{_words(str(name or 'without name'))} ({kind}, {len(_bytes(part)):,} bytes)")


def _bytes(part: email.message.Message) -> bytes:
    data = part.get_payload(decode=True)
    if isinstance(data, bytes):
        return data
    payload = part.get_payload()
    if isinstance(payload, list):
        return b"".join(p.as_bytes() for p in payload if isinstance(p, email.message.Message))
    return str(payload).encode("utf-8", "surrogateescape")


def _text(data: bytes, part: email.message.Message) -> tuple[str, str]:
    """The text with \\n for line breaks, and what it was read as."""
    claimed = str(part.get_param("charset", "") or "").strip().strip("'\"").lower()
    text, charset = decode(data, claimed or "us-ascii")
    return text.replace("\r\n", "\n"), charset


def decode(data: bytes, claimed: str) -> tuple[str, str]:
    for charset in (claimed, *([WIDER[claimed]] if claimed in WIDER else []), *FALLBACKS):
        try:
            text = data.decode(charset)
        except (UnicodeError, LookupError, ValueError):
            continue
        if not isinstance(text, str):
            continue
        return text, charset if charset == claimed else f"{charset}, not {claimed} as it says"
    raise AssertionError("every byte has a meaning in Latin-1")


def _header(message: email.message.Message, name: str) -> str:
    # raw: `message[name]` would put U+FFFD for bytes that are not ASCII
    value = next((v for n, v in message.raw_items() if n.lower() == name), None)
    return "" if value is None else _words(str(value))


def _words(value: str) -> str:
    """RFC 2047 words decoded; where they are broken, as they stand. One line, broken bytes in the same order of
    charsets as a body's."""
    try:
        pieces = decode_header(value)
    except Exception:  # the parser raises what it meets: base64, charsets, indices
        pieces = [(value, None)]
    said = []
    for piece, charset in pieces:
        data = piece.encode("utf-8", "surrogateescape") if isinstance(piece, str) else piece
        said.append(decode(data, (charset or "us-ascii").lower())[0])
    return " ".join("".join(said).split())


def _date(message: email.message.Message) -> str:
    value = _header(message, "date")
    try:
        return email.utils.parsedate_to_datetime(value).isoformat() if value else ""
    except (ValueError, TypeError, IndexError, OverflowError):
        return value
