"""A raw mail message, as it stands in a mailbox, to its subject and its text: headers read, parts decoded.

The standard library parses; what it leaves to chance is decided here. Of alternatives the plain text is taken,
else the HTML as text; attachments and pictures are no text; an unknown charset is read as UTF-8 or Windows-1252.
"""

from __future__ import annotations

import binascii
import email
import re
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message

from tunesmith.data.clean.markup import to_text

TRANSPORT = frozenset(["received", "return-path", "message-id", "delivered-to", "mime-version", "content-type", "x-mailer", "in-reply-to", "references", "list-id", "x-sender", "x-priority"])  # fmt: skip
WRITTEN = frozenset(["from", "to", "subject", "date", "cc", "bcc", "reply-to", "sender", "sent", "newsgroups", "von", "an", "betreff", "datum", "gesendet", "kopie"])  # fmt: skip
STAND_IN = 400  # characters; a longer plain text was written to be read

_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,60}):(?:[ \t]|$)")
_ENVELOPE = re.compile(r"From \S+ .*\d\d:\d\d")
_QUOTED = re.compile(r"(?:=[0-9A-Fa-f]{2})+")
_SOFT_BREAK = re.compile(r"=[ \t]*\r?\n")


def header_block(text: str) -> tuple[int, set[str]]:
    """Where the headers at the top of a text end, and their names in lower case; 0 if it has none.

    Two known fields make a block. One that only has fields people write (From, To, Date ...) must be followed by a
    text: a list of such lines alone may be the text.
    """
    at = len(text) - len(text.lstrip("\r\n"))
    names: set[str] = set()
    is_raw = False
    while at < len(text):
        end = text.find("\n", at)
        line, next_at = (text[at:], len(text)) if end < 0 else (text[at:end], end + 1)
        if not line.strip():
            at = next_at
            break
        if not names and _ENVELOPE.match(line):
            is_raw = True
        elif names and line[0] in " \t":
            pass  # the field before goes on
        elif match := _HEADER.match(line):
            names.add(match[1].lower())
        else:
            break
        at = next_at
    known = names & (TRANSPORT | WRITTEN)
    is_raw = is_raw or len(names & TRANSPORT) > 0
    if len(known) + is_raw < 2 or not (is_raw or text[at:].strip()):
        return 0, set()
    return at, names


def subject_and_body(text: str) -> tuple[str, str] | None:
    """None where the text does not begin with headers."""
    end, names = header_block(text)
    if not end:
        return None
    top = text.lstrip("\r\n")
    if names & TRANSPORT:
        message = email.message_from_string(top)
        return _words(message.get("Subject")), _body(message)
    fields = email.message_from_string(text[:end].strip("\r\n") + "\n\n")
    return _words(fields.get("Subject") or fields.get("Betreff")), text[end:]


def _words(header: object) -> str:
    """One line, with its encoded words decoded."""
    said = str(header or "")
    try:
        pieces = decode_header(said)
    except (HeaderParseError, ValueError, binascii.Error):
        pieces = [(said, None)]
    text = "".join(p if isinstance(p, str) else _characters(p, charset or "ascii") for p, charset in pieces)
    return " ".join(text.split())


def _body(message: Message) -> str:
    """The texts of a message and its parts."""
    kind = message.get_content_type()
    if "attachment" in str(message.get("Content-Disposition", "")).lower():
        return ""
    payload = message.get_payload()
    if isinstance(payload, str):
        if not kind.startswith(("text/", "multipart/")):
            return ""
        text = _decoded(message, payload)
        return to_text(text) if kind == "text/html" else text
    parts = [p for p in payload if isinstance(p, Message)] if isinstance(payload, list) else []
    if kind == "multipart/alternative":
        return _alternative(parts)
    if kind == "message/rfc822":
        return "\n\n".join(f"{_words(p.get('Subject'))}\n\n{_body(p)}" for p in parts)
    own = [p for p in parts if p.get_content_type() != "message/rfc822"]
    said = [text for p in own if (text := _body(p)).strip()]
    return "\n\n".join(said or [text for p in parts if (text := _body(p)).strip()])


def _alternative(parts: list[Message]) -> str:
    """The plain text, unless it is a stand-in ("Your program cannot show HTML") for a much longer one."""
    plain = next((said for p in parts if p.get_content_type() == "text/plain" and (said := _body(p)).strip()), "")
    if len(plain) > STAND_IN:
        return plain
    others = (said for p in parts if p.get_content_type() != "text/plain" and (said := _body(p)).strip())
    other = next(others, "")
    return other if len(other) > 3 * len(plain) else plain


def _decoded(message: Message, payload: str) -> str:
    charset = str(message.get_param("charset") or "utf-8")
    how = str(message.get("Content-Transfer-Encoding", "")).strip().lower()
    if how == "quoted-printable":
        whole = _SOFT_BREAK.sub("", payload)
        return _QUOTED.sub(lambda m: _characters(bytes.fromhex(m[0].replace("=", "")), charset), whole)
    if how == "base64" and payload.isascii():
        letters = re.sub(r"[^A-Za-z0-9+/]", "", payload)
        try:
            return _characters(binascii.a2b_base64(letters + "=" * (-len(letters) % 4)), charset)
        except binascii.Error:
            return payload  # not what it says it is: left for people to see
    if payload.isascii() and ("\x1b" in payload or charset.lower() == "utf-7"):  # seven-bit, and yet no ASCII
        return _characters(payload.encode(), charset)
    return payload


def _characters(data: bytes, charset: str) -> str:
    for name in (charset.strip("\"' "), "utf-8", "windows-1252"):
        try:
            return data.decode(name)
        except (LookupError, UnicodeDecodeError, ValueError):
            continue
    return data.decode("latin-1")
