"""Replacements that look like what they replace and belong to nobody: the same value always gets the same one.

HMAC-SHA-256 under the Spec's salt chooses it, so nothing needs to be stored and nobody without the salt can tell
which value it stands for. Where a standard reserves values for examples, they are used: example.com (RFC 2606),
192.0.2.0/24 and the like (RFC 5737), 2001:db8::/32 (RFC 3849), 00-00-5E-00-53-xx (RFC 7042), the fiction ranges of
the numbering plans. There are few of some (256 MACs, 768 IPv4 addresses): two values may share a pseudonym there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from tunesmith.data.audit.names import FAMILY_NAMES, GIVEN_NAMES
from tunesmith.data.audit.pii.cards import luhn_digit
from tunesmith.data.audit.pii.ibans import LENGTHS, with_check_digits
from tunesmith.data.audit.spans import Span

NOTHING = r"(?!)"  # a pattern that matches nowhere, but looks for it everywhere
_TEST_CARD = "424242"  # the range in which payment providers publish test numbers
_PHONES = {  # country code -> fiction range (its `x` are chosen)
    "1": "+1 {nxx} 555 01xx",
    "33": "+33 6 39 98 xx xx",  # ARCEP
    "44": "+44 7700 900xxx",  # Ofcom
    "49": "+49 30 23125xxx",  # BNetzA
    "61": "+61 491 570 xxx",  # ACMA
}
# exactly as they are made, so that they are known again whatever stands beside them
_OURS: dict[str, str] = {
    "email": r"u-[a-z2-7]{12}@example\.com",
    "credit_card": rf"(?<!\d){_TEST_CARD}\d{{6,13}}(?!\d)",
    "iban": r"(?<![A-Z0-9])[A-Z]{2}\d\d(?:0000|XXXX)\d{7,25}(?!\w)",
    "phone": "|".join(
        re.escape(shape).replace("x", r"\d").replace(r"\{n\d\d\}", r"[2-9]\d\d") for shape in _PHONES.values()
    ),
    "national_id": r"ID-[A-Z2-7]{12}",
    "secret": r"KEY-[A-Z2-7]{16}",
    "mac": r"00[:-]00[:-]5e[:-]00[:-]53[:-][0-9a-f]{2}",
    "ip": r"(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}|2001:db8::[0-9a-f:]+",
    "birth_date": r"(?:19|20)\d\d-01-01",
    "address": r"Placeholder Street \d{1,3}",
    "name": rf"(?:(?:{'|'.join(GIVEN_NAMES)}) )?(?:{'|'.join(FAMILY_NAMES)})",
}
_NETS = tuple(ipaddress.ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"))
_NET6 = ipaddress.ip_network("2001:db8::/32")


class Pseudonyms:
    """`Pseudonyms(salt).of(span, text)`. The salt decides every one; another salt gives others."""

    def __init__(self, salt: str) -> None:
        self._key = salt.encode("utf-8")
        self._of = lru_cache(maxsize=65_536)(self._make)

    def of(self, span: Span, text: str) -> str:
        """What stands for the value of `span` in `text`."""
        return self._of(span.kind, span.value(text))

    def opaque(self, value: str) -> str:
        """A short name without a form, for values like a group's."""
        return _letters(hmac.new(self._key, b"opaque\0" + value.encode("utf-8"), hashlib.sha256).digest(), 16).lower()

    def _make(self, kind: str, written: str) -> str:
        value = normal(kind, written)
        digest = hmac.new(self._key, f"{kind}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return _MAKERS[kind](digest, value, written)


def normal(kind: str, written: str) -> str:
    """What makes two ways of writing one value: case, spaces, separators."""
    if kind == "email":
        return written.lower()
    if kind == "phone":
        digits = "".join(c for c in written.replace("(0)", "") if c.isdigit())
        return digits[2:] if digits.startswith("00") else digits
    if kind in ("credit_card", "mac", "iban", "national_id"):
        return "".join(c for c in written.lower() if c.isalnum())
    if kind == "ip":
        return str(ipaddress.ip_address(written.split("%")[0]))
    if kind in ("name", "address"):
        return " ".join(written.casefold().replace(",", " ").split())
    return written


def pseudonyms_of(kinds: Iterable[str]) -> re.Pattern[str]:
    """Matches every replacement of these kinds that is made here: a second pass leaves them alone."""
    return re.compile("|".join(f"(?:{_OURS[kind]})" for kind in sorted(kinds)) or NOTHING)


def _number(digest: bytes, below: int) -> int:
    return int.from_bytes(digest[:16], "big") % below


def _letters(digest: bytes, n: int) -> str:
    return base64.b32encode(digest).decode("ascii")[:n]


def _card(digest: bytes, value: str, written: str) -> str:
    body = _TEST_CARD + f"{_number(digest, 10**13):013d}"[: len(value) - 7]
    return body + luhn_digit(body)


def _iban(digest: bytes, value: str, written: str) -> str:
    """The country and the length stay; a bank code of zeros (or X) exists nowhere; the check digits are right
    (those that some countries have inside the account part are not)."""
    country = value[:2].upper()
    account = f"{_number(digest, 10**30):030d}"[: LENGTHS[country] - 8]
    return with_check_digits(country, ("XXXX" if value[4].isalpha() else "0000") + account)


def _phone(digest: bytes, value: str, written: str) -> str:
    n = _number(digest, 10**12)
    code = next((c for c in _PHONES if written.lstrip("(").startswith("+") and value.startswith(c)), "1")
    shape = _PHONES[code].replace("{nxx}", str(200 + n // 10_000 % 800))
    digits = iter(f"{n % 10_000:04d}")
    return "".join(next(digits) if c == "x" else c for c in shape)


def _ip(digest: bytes, value: str, written: str) -> str:
    if ":" in value:
        return str(_NET6[_number(digest, 2**64)])
    n = _number(digest, 3 * 256)
    return str(_NETS[n // 256][n % 256])


def _mac(digest: bytes, value: str, written: str) -> str:
    pairs = ["00", "00", "5e", "00", "53", f"{_number(digest, 256):02x}"]
    return ("-" if "-" in written else ":").join(pairs)


def _birth_date(digest: bytes, value: str, written: str) -> str:
    """The year alone stays, as 1 January of it; without four digits of a year, of 1970."""
    year = re.search(r"(?:19|20)\d\d", written)
    return f"{year.group() if year else '1970'}-01-01"


def _name(digest: bytes, value: str, written: str) -> str:
    n = _number(digest, len(GIVEN_NAMES) * len(FAMILY_NAMES))
    family = FAMILY_NAMES[n % len(FAMILY_NAMES)]
    return f"{GIVEN_NAMES[n // len(FAMILY_NAMES)]} {family}" if " " in written.strip() else family


_MAKERS: dict[str, Callable[[bytes, str, str], str]] = {
    "email": lambda digest, value, written: f"u-{_letters(digest, 12).lower()}@example.com",
    "credit_card": _card,
    "iban": _iban,
    "phone": _phone,
    "national_id": lambda digest, value, written: f"ID-{_letters(digest, 12)}",
    "secret": lambda digest, value, written: f"KEY-{_letters(digest, 16)}",
    "ip": _ip,
    "mac": _mac,
    "birth_date": _birth_date,
    "address": lambda digest, value, written: f"Placeholder Street {1 + _number(digest, 999)}",
    "name": _name,
}
