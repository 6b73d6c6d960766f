"""IP addresses of both versions and hardware addresses, confirmed by the standard library's parser."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from tunesmith.data.audit.pii.digits import before
from tunesmith.data.audit.spans import Span

_V4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w]|\.\d)")  # what stands before it is checked by hand
_V6_HINT = re.compile(r":[0-9A-Fa-f]{0,4}:")
_MAC_HINT = re.compile(r"([:\-])[0-9A-Fa-f]{2}\1|\.[0-9A-Fa-f]{4}\.")
_V6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{2,39}(?:%\w{1,16})?(?![\w:])")
_MAC = re.compile(
    r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])"
    r"|(?<![\w.])(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}(?![\w.])"
)
# what stands right before or after a number with three dots that counts versions or sections
_VERSION_BEFORE = re.compile(r"(?:version:?|ver\.?|release|section|chapter|§|[<>=~]=?|\bv\.?) ?$|\d:$")
_VERSION_AFTER = re.compile(r"[-~+][\w~]")


def find_ip(text: str) -> Iterator[Span]:
    """Public and private addresses, not loopback, not 0.0.0.0, not netmasks; "version 1.2.3.4" is a version."""
    if text.count(".") >= 3:
        for m in _V4.finditer(text):
            lead = text[m.start() - 1 : m.start()]
            if not lead.isalnum() and lead not in ("_", ".") and _is_host(m.group()) and not _is_version(text, m):
                yield Span(m.start(), m.end(), "ip", "ipv4", 0.9)
    if _V6_HINT.search(text) is not None:
        for m in _V6.finditer(text):
            written = m.group().split("%")[0]
            long_enough = written.count(":") == 7 or ("::" in written and len(written) >= 6)
            if long_enough and _is_host(written):
                yield Span(m.start(), m.end(), "ip", "ipv6", 0.9)


def find_mac(text: str) -> Iterator[Span]:
    if _MAC_HINT.search(text) is not None:
        for m in _MAC.finditer(text):
            if any(c in "123456789abcdefABCDEF" for c in m.group()):
                yield Span(m.start(), m.end(), "mac", "mac", 0.95)


def _is_version(text: str, m: re.Match[str]) -> bool:
    if _VERSION_BEFORE.search(before(text, m.start(), 12)):
        return True
    return _VERSION_AFTER.match(text, m.end()) is not None


def _is_host(written: str) -> bool:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or written.startswith("255."))
