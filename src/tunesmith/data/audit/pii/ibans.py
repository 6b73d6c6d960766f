"""International bank account numbers: the country's length and the mod-97 check (ISO 13616, ISO 7064)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.data.audit.spans import Span

# characters of a whole number by country: the SWIFT registry of IBAN formats
LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip
_CHECK_DIGITS = re.compile(r"[0-9]{2}(?=[ \-\u00a0]?[A-Za-z0-9]{4})")  # rarer in a text than two letters
_SEPARATORS = " -\u00a0"


def find(text: str) -> Iterator[Span]:
    at = 0
    for m in _CHECK_DIGITS.finditer(text):
        start = m.start() - 2
        if start < at or (start > 0 and text[start - 1].isalnum()):
            continue
        country = text[start : m.start()].upper()
        end = _end(text, start, LENGTHS.get(country, 0))
        if end:
            at = end
            yield Span(start, end, "iban", country.lower(), 1.0)


def _end(text: str, start: int, length: int) -> int:
    """Where a valid number of `length` characters that starts here ends; 0 if there is none."""
    if not length:
        return 0
    chars: list[str] = []
    i = start
    while i < len(text) and len(chars) < length:
        c = text[i]
        if c.isascii() and c.isalnum():
            chars.append(c)
        elif c not in _SEPARATORS or text[i - 1] in _SEPARATORS:
            return 0
        i += 1
    stopped_inside = i < len(text) and text[i].isalnum()
    if len(chars) < length or stopped_inside:
        return 0
    return i if mod97("".join(chars)) == 1 else 0


def mod97(iban: str) -> int:
    """Remainder of the rearranged number; 1 where the check digits are right."""
    turned = (iban[4:] + iban[:4]).upper()
    return int("".join(str(int(c, 36)) for c in turned)) % 97


def with_check_digits(country: str, bban: str) -> str:
    """The whole number of a country and its account part (upper case), with the check digits that fit."""
    return f"{country}{98 - mod97(f'{country}00{bban}'):02d}{bban}"
