"""Payment cards: the issuer's range, its lengths, and the Luhn digit (ISO/IEC 7812-1).

Beside a word like "card" any number of 12 to 19 digits with the right Luhn digit counts: ranges are given out anew
every month, and a wrong one would cost recall.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tunesmith.data.audit.pii.digits import Run, before
from tunesmith.data.audit.spans import Span

# issuer, first digits from .. to (inclusive), lengths; ranges of the issuers' public bulletins
ISSUERS = (
    ("visa", "4", "4", (13, 16, 19)),
    ("mastercard", "51", "55", (16,)),
    ("mastercard", "2221", "2720", (16,)),
    ("amex", "34", "34", (15,)),
    ("amex", "37", "37", (15,)),
    ("discover", "6011", "6011", (16, 17, 18, 19)),
    ("discover", "644", "659", (16, 17, 18, 19)),
    ("diners", "300", "305", (14, 16)),
    ("diners", "3095", "3095", (14, 16)),
    ("diners", "36", "36", (14, 16)),
    ("diners", "38", "39", (14, 16)),
    ("jcb", "3528", "3589", (16, 17, 18, 19)),
    ("jcb", "1800", "1800", (15,)),
    ("jcb", "2131", "2131", (15,)),
    ("unionpay", "62", "62", (16, 17, 18, 19)),
    ("maestro", "50", "50", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("maestro", "56", "58", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("maestro", "63", "63", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("maestro", "67", "69", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("rupay", "60", "60", (16,)),
    ("mir", "2200", "2204", (16,)),
)
_CONTEXT = re.compile(r"\b(?:cards?|visa|master ?card|amex|credit|debit|cc|carte|karte|kreditkarte|tarjeta)\b")
_WEAK = frozenset({"maestro", "rupay"})  # broad ranges: one long number in ten thousand is one by chance


def find(text: str, runs: Iterable[Run]) -> Iterator[Span]:
    for run in runs:
        if not 12 <= len(run.digits) <= 19 or run.text.startswith("+"):
            continue
        if not luhn(run.digits) or len(set(run.digits)) == 1:
            continue
        name = issuer(run.digits)
        context = _CONTEXT.search(before(text, run.start, 48)) is not None
        if (name is None or name in _WEAK) and not context:
            continue
        score = 0.9 if not context else 1.0 if name else 0.8
        yield Span(run.start, run.end, "credit_card", name or "unlisted_issuer", score)


def issuer(digits: str) -> str | None:
    for name, low, high, lengths in ISSUERS:
        if len(digits) in lengths and low <= digits[: len(low)] <= high:
            return name
    return None


def luhn(digits: str) -> bool:
    return luhn_digit(digits[:-1]) == digits[-1]


def luhn_digit(digits: str) -> str:
    """The check digit that makes `digits` followed by it valid."""
    total = 0
    for i, c in enumerate(reversed(digits)):
        n = int(c) * (2 if i % 2 == 0 else 1)
        total += n - 9 if n > 9 else n
    return str(-total % 10)
