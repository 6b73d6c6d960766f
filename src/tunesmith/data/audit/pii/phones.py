"""Phone numbers: by the numbering plans of `phonenumbers` where a country is known, by shape and context elsewhere.

A local number ("321 7586") has no checksum and belongs to no known plan; it is one only beside a word like
"call" or "fax". A word like "order" or "invoice" before a number without `+` says that it is something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from tunesmith.core.extras import need
from tunesmith.data.audit.pii.digits import Run, after, before
from tunesmith.data.audit.spans import Span

_CONTEXT = re.compile(
    r"\b(?:phones?|telephone|tel|telefon|téléphone|teléfono|handy|mobiles?|mob|cell(?:ular|phone)?|fax|desk|office|"
    r"whatsapp|sms|text (?:me|us)|call(?:s|ed|ing|back)?|dial|ring|reach(?:ed)?|contact|hotline|answering|extension|"
    r"messages?|registered|numéro|numero|rufnummer|llámame|appelez)\b"
)
REACH = 40  # characters in which a context word counts
_AFTER = re.compile(r"^[\s\-–(,]{0,3}(?:office|fax|mobile|cell|home|work|desk|phone|tel)\b")
_OTHER = re.compile(
    r"\b(?:orders?|invoice|account|acct|ticket|case|ref(?:erence)?|tracking|serial|isbn|issn|version|"
    r"patent|policy|order no|bug|issue|size|bytes|checksum|nos?\.?|nr\.?|wl|§|usc|section|page|card|ssn|iban|zip|postcode|id)\b[^a-z]{0,12}$"
)
_NANP = re.compile(r"(?:(?:\+|00)?1[ .\-]?)?(?:\(\d{3}\) ?|\d{3}[ .\-]|\d{3}-)\d{3}[ .\-]?\d{4}")
_DATE = re.compile(
    r"\d{1,4}([./\-])\d{1,2}\1\d{1,4}(?:[ T]\d.*)?|\d{8}|\d{4}\s?[-–/]\s?\d{4}|\d{1,2}([./\-])\d{1,2}\2\d{4}.*"
)
_QUAD = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_NUMBER = re.compile(r"\d+\.\d+|\d{1,3}(?:[., ]\d{3})+(?:\.\d+)?")  # 3.14159, 1.234.567, 1 234 567
_GLUED = re.compile(r"\w[.~+_\-]\Z|\w(?=\Z)")  # the tail of a version or a code: "1.9.10~20140610", "6.0+2008"
_EXTENSION = re.compile(r" ?(?:x|ext\.? ?|#)\d{1,6}(?!\w)", re.IGNORECASE)


def find(text: str, runs: Iterable[Run], regions: tuple[str, ...]) -> Iterator[Span]:
    """`regions`: ISO countries whose national numbers count without a country code. Needs the audit extra."""
    for run in runs:
        extension = _EXTENSION.match(text, run.end)
        end = extension.end() if extension else run.end
        if not 6 <= len(run.digits) <= 16 or _GLUED.search(text, max(0, run.start - 2), run.start):
            continue
        score, what = _judge(text, run, end, regions)
        if score:
            yield Span(run.start, end, "phone", what, score)


def _judge(text: str, run: Run, end: int, regions: tuple[str, ...]) -> tuple[float, str]:
    """How sure, and by what; 0 where it is none."""
    written = run.text
    international = written.startswith(("+", "(+", "00"))
    ahead = before(text, run.start, REACH)
    context = _CONTEXT.search(ahead) is not None or _AFTER.match(after(text, end, 12)) is not None
    if international:
        validity = _validity(written.replace("(0)", " "), None)
        if validity == 2:
            return 0.95, "international"
        if validity == 1 or (context and len(run.digits) >= 8):
            return (0.85 if context else 0.7), "international"
    if _DATE.fullmatch(written) and not (context and written.isdigit()):
        return 0.0, ""
    if _QUAD.fullmatch(written) or _OTHER.search(ahead):
        return 0.0, ""
    if _NANP.fullmatch(written) and not written.isdigit():
        mixed = "." in written and "-" in written  # "DFARS 252.227-7013"
        return (0.9, "nanp") if context else (0.0 if mixed else 0.75, "nanp")
    if len(run.digits) > 15:
        return 0.0, ""
    separated = not written.isdigit()
    plausible = written.startswith(("0", "(0", "(")) and separated
    version = not context and "." in written and "-" in written  # "(= 0.20030111-10)"
    if (
        plausible
        and not version
        and not _NUMBER.fullmatch(written)
        and any(_validity(written, region) == 2 for region in regions)
    ):
        return (0.9 if context else 0.6), "national"
    if (
        context
        and ". " not in written
        and not (_NUMBER.fullmatch(written) and "." in written)
        and len(run.digits) <= 13
    ):
        return 0.6 + 0.1 * separated, "local"
    return 0.0, ""


@lru_cache(maxsize=4096)
def _validity(written: str, region: str | None) -> int:
    """2: valid by the country's plan; 1: of a possible length with a known country code; 0: neither."""
    phonenumbers = need("phonenumbers", extra="audit", why="finding phone numbers")
    if region is None and written.startswith("00"):
        written = "+" + written[2:]
    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return 0
    if phonenumbers.is_valid_number(number):
        return 2
    return 1 if phonenumbers.is_possible_number(number) else 0
