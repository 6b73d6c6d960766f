"""Mail to what its writer wrote: without headers, quoted replies, forwarded mail, signatures and list footers.

A raw message is decoded first (mail_parts.py); its subject stays as the first line. Then, from English and German
mail as people send it: lines that begin with > and the line that introduces them ("On ... wrote:", "Am ... schrieb"),
forwarded and "original" messages to their end, what follows "-- ", PGP armour, and the footers of mailing lists.
A message that is nothing but a quote or a forwarded mail keeps it, without the marks.

Repeated until nothing more goes, so that cleaning twice is cleaning once. Each round makes the text shorter.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tunesmith.data.clean.mail_parts import WRITTEN, subject_and_body
from tunesmith.data.clean.markup import to_text

SIGNATURE_LINES = 20  # with something in them; what is longer after "-- " is no signature
FOOTER_LINES = 14

_VERB = r"(?:wrote|writes|said|says|typed|mentioned|quoth|scribbled|spake|schrieb|schreibt|meinte|sagte|écrit|escribió|scrisse|skrev)"  # fmt: skip
_QUOTE = re.compile(r"[ \t]{0,3}>")
_INITIALS = re.compile(r"[ \t]?([A-Z]{2,4})> ")
_INTRODUCES = re.compile(
    rf"(?:\b{_VERB}\b.{{0,80}}|[\w.+-]+@[\w-]+\.[\w.]+.*|\d\d?:\d\d.*)(?::|\.\.\.)\s*$|\b{_VERB}\b.{{0,40}}\s*$",
    re.IGNORECASE,
)
_INTRODUCTION_STARTS = re.compile(r"\s*(?:On|At|In|Am|Le|El|Il|Den|Op|Once|Quoting)\b.*\d|\s*(?:Quoting|In article|In message)\b")
_FORWARD = re.compile(
    r"\s*(?:-{2,}\s*(?:Forwarded (?:message|by)|Start of forwarded|Original[ -]Message|Original-?Nachricht|"
    r"Ursprüngliche (?:Nachricht|Mail|E-Mail)|Weitergeleitete (?:Nachricht|Mail|E-Mail)|Weitergeleitet von)\b.*|"
    r"Begin forwarded message:|Anfang der weitergeleiteten (?:Nachricht|E-?Mail):|"
    r"\*{3,}\s*Forwarded message\b.*)\s*$",
    re.IGNORECASE,
)
_FORWARD_ENDS = re.compile(
    r"\s*-{2,}\s*(?:End (?:of )?(?:the )?forwarded|Ende der weitergeleiteten|Ende (?:der )?Nachricht)\b.*", re.IGNORECASE
)
_FIELD = re.compile(r"\s*\*?([A-Za-z][A-Za-z-]{1,20})\*?:")
_SIGNATURE = re.compile(r"(?:- )?--[ \t]*$")
_SENT_FROM = re.compile(
    r"\s*(?:Sent from my \w+.{0,40}|Sent (?:from|with|via) (?:Mail|Outlook|Yahoo|Samsung|ProtonMail).{0,40}|Get Outlook for \w+.{0,60}|"
    r"Von meinem \w+.{0,20} gesendet\.?|Gesendet (?:von|mit|über) (?:meinem|der|Mail|Outlook).{0,60}|"
    r"Diese Nachricht wurde von meinem .{0,60} gesendet\.?)\s*$"
)
_RULE = re.compile(r"\s*[_=*~#+-]{6,}[-~>_ ]*$|\s*-{4,}.{0,60}-{4,}[-~>\s]*$")
_LIST = re.compile(
    r"\bmailing[ -]list\b|listinfo|/mailman/|majordomo|yahoo! ?groups|yahoogroups|list maintainer|\bun\)?subscri|"
    r"sf\.net e-?mail is sponsored|sponsored by|list archives?:|Mailingliste|abbestellen|abmelden|austragen|listserv",
    re.IGNORECASE,
)
_SURE_LIST = re.compile(
    r"listinfo|/mailman/|majordomo@|yahoogroups|list maintainer|\(un\)subscri|-unsubscribe@|listserv@|"
    r"\b\S+ mailing list\s*\n\S+@|Mailingliste\s*\n\S+@",
    re.IGNORECASE,
)
_ARMOUR = re.compile(r"(?m)^-----BEGIN PGP SIGNATURE-----\n(?:(?!-----)[^\n]*\n)*+-----END PGP SIGNATURE-----[ \t]*\n?")
_SIGNED = re.compile(r"(?m)^-----BEGIN PGP SIGNED MESSAGE-----\n(?:[A-Za-z]+:[^\n]*\n)*\n?")


def mail(texts: list[str]) -> list[str]:
    return [to_words(text) for text in texts]


def to_words(text: str) -> str:
    while True:
        after = _once(text)
        if len(after) >= len(text):
            return text
        text = after


def _once(text: str) -> str:
    found = subject_and_body(text)
    subject, body = found or ("", text)
    body = body.replace("\r\n", "\n") if "\r\n" in body else body
    stripped = _stripped(body)
    if body.strip() and not stripped.strip():
        stripped = _unwrapped(body)
    if found is None and stripped == body:
        return text
    return "\n\n".join(piece for piece in (subject, stripped.strip("\n")) if piece)


def _stripped(body: str) -> str:
    """Without what others wrote. HTML that is not decoded yet is left alone: its lines may begin with > by chance."""
    if "</" in body and to_text(body) != body:
        return body
    if "-----BEGIN PGP" in body:
        body = _ARMOUR.sub("", _SIGNED.sub("", body))
    lines = body.split("\n")
    for take_out in _STEPS:
        lines = take_out(lines)
    return "\n".join(lines)


def _without_forwarded(lines: list[str]) -> list[str]:
    for i, line in enumerate(lines):
        if _FORWARD.match(line) or _is_header_block(lines, i):
            start = i - 1 if i and _RULE.match(lines[i - 1]) else i
            ends = (k + 1 for k in range(i + 1, len(lines)) if _FORWARD_ENDS.match(lines[k]))
            return lines[:start] + lines[next(ends, len(lines)) :]
    return lines


def _is_header_block(lines: list[str], i: int) -> bool:
    """From: (or Von:) and at least two more fields of a mail in the lines after it, as Outlook quotes."""
    first = _FIELD.match(lines[i])
    if not first or first[1].lower() not in ("from", "von") or (i and lines[i - 1].strip() and not _RULE.match(lines[i - 1])):
        return False
    fields = {m[1].lower() for line in lines[i + 1 : i + 7] if (m := _FIELD.match(line))}
    return len(fields & WRITTEN) >= 2


def _without_quotes(lines: list[str]) -> list[str]:
    quoted = _quoted(lines)
    if True not in quoted:
        return lines
    gone = list(quoted)
    for i, is_quote in enumerate(quoted):
        if is_quote and not (i and quoted[i - 1]):
            for k in _introduction(lines, i):
                gone[k] = True
    return _closed_up(lines, gone)


def _quoted(lines: list[str]) -> list[bool]:
    quoted = [bool(_QUOTE.match(line)) for line in lines]
    for i, line in enumerate(lines):  # ">From " is how mailboxes write "From "; ">" alone before it makes it a quote
        if quoted[i] and line.startswith(">From ") and not (quoted[i - 1 : i] == [True] or quoted[i + 1 : i + 2] == [True]):
            quoted[i] = False
    initials = [m[1] if (m := _INITIALS.match(line)) else "" for line in lines]
    return [
        q or bool(who and (who in initials[max(0, i - 1) : i] or who in initials[i + 1 : i + 2]))
        for i, (q, who) in enumerate(zip(quoted, initials, strict=True))
    ]


def _introduction(lines: list[str], i: int) -> list[int]:
    """The lines before the quote at `i` that say whose it is: at most three, after at most one blank line."""
    last = i - 1
    if last >= 0 and not lines[last].strip():
        last -= 1
    if last < 0 or not _INTRODUCES.search(lines[last][-300:]):
        return []
    if _INTRODUCTION_STARTS.match(lines[last][:300]):
        return [last]
    for start in (last - 1, last - 2):
        if start >= 0 and _INTRODUCTION_STARTS.match(lines[start][:300]) and all(lines[k].strip() for k in range(start, last)):
            return list(range(start, last + 1))
    return [last]


def _closed_up(lines: list[str], gone: list[bool]) -> list[str]:
    """The other lines, with one blank line where something went from between blank lines."""
    out: list[str] = []
    hole = False
    for line, is_gone in zip(lines, gone, strict=True):
        if is_gone:
            hole = True
        elif hole and not line.strip() and (not out or not out[-1].strip()):
            continue
        else:
            out.append(line)
            hole = False
    return out


def _without_signature(lines: list[str]) -> list[str]:
    for i, line in enumerate(lines):
        if _SIGNATURE.match(line) and sum(bool(rest.strip()) for rest in lines[i:]) - 1 <= SIGNATURE_LINES:
            return lines[:i]
    last = _last(lines)
    return lines[:last] if last >= 0 and _SENT_FROM.match(lines[last]) else lines


def _without_footer(lines: list[str]) -> list[str]:
    """A block at the end, after a ruled line or a blank one, that speaks of a mailing list."""
    last = _last(lines)
    first = max(0, last - FOOTER_LINES)
    for i in range(last, first - 1, -1):
        if _RULE.match(lines[i]) and i < last:
            if _LIST.search("\n".join(lines[i : last + 1])):
                return lines[:i]
            break
    for i in range(last, first - 1, -1):
        if not lines[i].strip():
            return lines[:i] if _SURE_LIST.search("\n".join(lines[i + 1 : last + 1])) else lines
    return lines


def _last(lines: list[str]) -> int:
    """The last line with something in it; -1 if there is none."""
    return next((i for i in range(len(lines) - 1, -1, -1) if lines[i].strip()), -1)


_STEPS: tuple[Callable[[list[str]], list[str]], ...] = (
    _without_forwarded,
    _without_quotes,
    _without_signature,
    _without_footer,
)


def _unwrapped(body: str) -> str:
    """Of a message that is nothing but others' words: these, without the marks that say so."""
    lines = body.split("\n")
    kept = []
    for i, line in enumerate(lines):
        if _FORWARD.match(line) or _FORWARD_ENDS.match(line) or _SIGNATURE.match(line) or _INTRODUCES.search(line[-300:]):
            continue
        field = _FIELD.match(line)
        if field and field[1].lower() in WRITTEN and i < 12:
            continue
        kept.append(re.sub(r"^(?:[ \t]{0,3}>)+ ?", "", line))
    return "\n".join(kept)
