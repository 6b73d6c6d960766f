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
MOST_ROUNDS = 12
LONGEST = 300  # characters of a line that is looked at for marks; a longer line is none

_VERB = r"(?:wrote|writes|said|says|typed|mentioned|quoth|scribbled|spake|schrieb|schreibt|meinte|sagte|écrit|escribió|scrisse|skrev)"  # fmt: skip
_QUOTE = re.compile(r"[ \t]{0,3}>")
_OPEN_TAG = re.compile(r"<[a-zA-Z/][^<>]*$")  # of HTML: the > that ends it may begin the next line
_INITIALS = re.compile(r"[ \t]?([A-Z]{2,4})> ")
_INTRODUCES = re.compile(
    rf"(?:\b{_VERB}\b.{{0,80}}|[\w.+-]+@[\w-]+\.[\w.]+.*|\d\d?:\d\d.*)(?::|\.\.\.)\s*$|\b{_VERB}\b.{{0,40}}\s*$",
    re.IGNORECASE,
)
_INTRODUCTION_STARTS = re.compile(
    r"\s*(?:On|At|In|Am|Le|El|Il|Den|Op|Once|Quoting)\b.*\d|\s*(?:Quoting|In article|In message)\b"
)
_STRICT = re.compile(
    rf"\s*(?:On|At|Am|In|Le)\b.*\d.*\b{_VERB}\b.{{0,20}}:\s*$|.{{0,60}}\b(?:wrote|writes|schrieb):\s*$", re.IGNORECASE
)
_SIGN = re.compile(r"(?:\||#|\)|\}|:|=|--\]|\])[ \t]?(?=\S|$)")
_SNIP = re.compile(
    r"\s*(?:\[?\s*\.\.\.\s*\]?|[<\[(]+\s*/?(?:snip|snipped|gekürzt|cut|lost)\b.{0,40})\s*$", re.IGNORECASE
)
_FORWARD = re.compile(
    r"\s*(?:-{2,}\s*(?:Forwarded (?:message|by)|(?:Start of|begin) forwarded|Original[ -]Message|Original-?Nachricht|"
    r"Ursprüngliche (?:Nachricht|Mail|E-Mail)|Weitergeleitete (?:Nachricht|Mail|E-Mail)|Weitergeleitet von)\b.*|"
    r"Begin forwarded message:|Anfang der weitergeleiteten (?:Nachricht|E-?Mail):|"
    r"\*{3,}\s*Forwarded message\b.*)\s*$",
    re.IGNORECASE,
)
_FORWARD_ENDS = re.compile(
    r"\s*-{2,}\s*(?:End (?:of )?(?:the )?(?:forwarded|original)|Ende der weitergeleiteten|Ende (?:der )?Nachricht)\b.*",
    re.IGNORECASE,
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
    r"sf\.net e-?mail is sponsored|sponsored by|list archives?:|Mailingliste|abbestellen|abmelden|austragen|listserv|"
    r"are confidential|is confidential|confidential and|vertrauliche",
    re.IGNORECASE,
)
_SURE_LIST = re.compile(
    r"listinfo|/mailman/|majordomo@|yahoogroups|list maintainer|\(un\)subscri|-unsubscribe@|listserv@|"
    r"\b\S{1,80} mailing list\s*\n\S{1,80}@|Mailingliste\s*\n\S{1,80}@",
    re.IGNORECASE,
)
_MARKS = re.compile(r"(?:[ \t]{0,3}>)*")
_ARMOUR = re.compile(r"(?m)^-----BEGIN PGP SIGNATURE-----\n(?:(?!-----)[^\n]*\n)*+-----END PGP SIGNATURE-----[ \t]*\n?")
_SIGNED = re.compile(r"(?m)^-----BEGIN PGP SIGNED MESSAGE-----\n(?:[A-Za-z]+:[^\n]*\n)*\n?")


def mail(texts: list[str]) -> list[str]:
    return [to_words(text) for text in texts]


def to_words(text: str) -> str:
    """What the writer wrote; the text as it is if there is no end to what would go, as in no mail of a person's."""
    now = text
    for _ in range(MOST_ROUNDS):
        found = subject_and_body(now)
        subject, body = found or ("", now)
        own = _own_words(body)
        if own is None:
            return text
        if found is None and own == now:
            return now
        after = "\n\n".join(piece for piece in (subject, own.strip("\n")) if piece)
        if len(after) >= len(now):
            return now
        now = after
    return text


def _own_words(body: str) -> str | None:
    """None if the rounds do not suffice."""
    body = body.replace("\r\n", "\n") if "\r\n" in body else body
    for _ in range(MOST_ROUNDS):
        forwarded = subject_and_body(body)
        start = forwarded[1] if forwarded else body
        after = _stripped(start)
        if start.strip() and not after.strip():
            after = _unwrapped(start)
        if len(after) >= len(body):
            return body
        body = after
    return None


def _stripped(body: str) -> str:
    """Without what others wrote. A page of HTML that is not read yet is left alone: it has no lines to go by."""
    if body.lstrip().startswith("<") and to_text(body) != body:
        return body
    if "-----BEGIN PGP" in body:
        body = _ARMOUR.sub("", _SIGNED.sub("", body))
    lines = body.split("\n")
    for take_out in _STEPS:
        lines = take_out(lines)
    return "\n".join(lines)


def _without_forwarded(lines: list[str]) -> list[str]:
    """To the end, or to the mark that ends it. Where nothing stands before it, the forwarded mail is what the
    message says: then only the mark and the fields under it go. Three or more blocks of fields are a digest."""
    blocks = {i for i in range(len(lines)) if _is_header_block(lines, i)}
    for i, line in enumerate(lines):
        if not _FORWARD.match(line) and (i not in blocks or len(blocks) > 2):
            continue
        start = i - 1 if i and _is_rule(lines[i - 1]) else i
        if not any(before.strip() for before in lines[:start]):
            return _after_fields(lines, i)
        ends = (k + 1 for k in range(i + 1, len(lines)) if _FORWARD_ENDS.match(lines[k]))
        end = next(ends, len(lines))
        return _closed_up(lines, [start <= k < end for k in range(len(lines))])
    return lines


def _after_fields(lines: list[str], i: int) -> list[str]:
    k = i + 1 if _FORWARD.match(lines[i]) else i
    while k < len(lines) and not lines[k].strip():
        k += 1
    if k < len(lines) and (field := _FIELD.match(lines[k])) and field[1].lower() in WRITTEN:
        k = next((n for n in range(k, len(lines)) if not lines[n].strip()), len(lines))
    return [line for line in lines[k:] if not _FORWARD_ENDS.match(line)]


def _is_header_block(lines: list[str], i: int) -> bool:
    """From: (or Von:) and at least two more fields of a mail in the lines after it, as Outlook quotes."""
    first = _FIELD.match(lines[i])
    if not first or first[1].lower() not in ("from", "von"):
        return False
    if i and lines[i - 1].strip() and not _is_rule(lines[i - 1]):
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
    quoted = [
        _QUOTE.match(line) is not None and not (i and _OPEN_TAG.search(lines[i - 1][-LONGEST:]))
        for i, line in enumerate(lines)
    ]
    for i, line in enumerate(lines):  # ">From " is how mailboxes write "From "; beside another > it is a quote
        if quoted[i] and line.startswith(">From ") and True not in (*quoted[max(0, i - 1) : i], *quoted[i + 1 : i + 2]):
            quoted[i] = False
    initials = [m[1] if (m := _INITIALS.match(line)) else "" for line in lines]
    for i, who in enumerate(initials):
        if who and (who in initials[max(0, i - 1) : i] or who in initials[i + 1 : i + 2]):
            quoted[i] = True
    for i, line in enumerate(lines):
        if _STRICT.match(line[:LONGEST]) and not quoted[i]:
            for k in _otherwise_quoted(lines, i + 1):
                quoted[k] = True
    return quoted


def _otherwise_quoted(lines: list[str], i: int) -> list[int]:
    """After "On 1 May, A wrote:", lines that all begin with the same sign (| or # or --]), or a mark of a cut."""
    while i < len(lines) and not lines[i].strip():
        i += 1
    if i == len(lines):
        return []
    if _SNIP.match(lines[i]):
        return [i]
    sign = _SIGN.match(lines[i])
    end = i
    while sign and end < len(lines) and lines[end].startswith(sign[0].rstrip()):
        end += 1
    return list(range(i, end))


def _introduction(lines: list[str], i: int) -> list[int]:
    """The lines before the quote at `i` that say whose it is: at most three, after at most three blank ones."""
    last = i - 1
    while last >= max(0, i - 3) and not lines[last].strip():
        last -= 1
    if last < 0 or not _INTRODUCES.search(lines[last][-LONGEST:]):
        return []
    if _INTRODUCTION_STARTS.match(lines[last][:LONGEST]):
        return [last]
    for start in (last - 1, last - 2):
        if (
            start >= 0
            and _INTRODUCTION_STARTS.match(lines[start][:LONGEST])
            and all(lines[k].strip() for k in range(start, last))
        ):
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
    left, start = SIGNATURE_LINES + 1, len(lines)  # where what is short enough for a signature begins
    while start and left:
        start -= 1
        left -= bool(lines[start].strip())
    found = next((i for i in range(start, len(lines)) if _SIGNATURE.match(lines[i])), None)
    if found is not None:
        return lines[:found]
    last = _last(lines)
    return lines[:last] if last >= 0 and _SENT_FROM.match(lines[last][:LONGEST]) else lines


def _without_footer(lines: list[str]) -> list[str]:
    """Without blocks at the end, each after a ruled line or a blank one, that speak of a mailing list."""
    while (start := _footer(lines)) is not None:
        lines = lines[:start]
    return lines


def _footer(lines: list[str]) -> int | None:
    last = _last(lines)
    first = max(0, last - FOOTER_LINES)
    for i in range(last - 1, first - 1, -1):
        if _is_rule(lines[i]):
            if _LIST.search("\n".join(lines[i : last + 1])):
                return i
            break
    blank = next((i for i in range(last, first - 1, -1) if not lines[i].strip()), None)
    if blank is not None and _SURE_LIST.search("\n".join(lines[blank + 1 : last + 1])):
        return blank
    return None


def _is_rule(line: str) -> bool:
    return len(line) <= LONGEST and _RULE.match(line) is not None


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
    """Of a message that is nothing but others' words: these, with the marks gone that all quoted lines share."""
    lines = [
        line
        for line in body.split("\n")
        if not (_FORWARD.match(line) or _FORWARD_ENDS.match(line) or _SIGNATURE.match(line))
    ]
    depths = [m[0].count(">") for line in lines if (m := _MARKS.match(line)) and m[0]]
    marks = re.compile(rf"(?:[ \t]{{0,3}}>){{{min(depths, default=0)}}}[ \t]?")
    kept = [marks.sub("", line, count=1) if _QUOTE.match(line) else line for line in lines]
    first = next((i for i, line in enumerate(kept) if line.strip()), 0)
    if any(line.strip() for line in kept[first + 1 :]) and _INTRODUCES.search(kept[first][-LONGEST:]):
        kept = kept[first + 1 :]
    return "\n".join(kept)
