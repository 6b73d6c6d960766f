"""IP addresses of both versions and hardware addresses, confirmed by the standard library's parser."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from tunesmith.data.audit.pii.digits import before
from tunesmith.data.audit.spans import Span

_V4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_V6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{2,39}(?:%\w{1,16})?(?![\w:])")
_MAC = re.compile(
    r"(?<![\w:-])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:-])"
    r"|(?<![\w:-])(?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2}(?![\w:-])"
    r"|(?<![\w.])(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}(?![\w.])"
)
_VERSION = ("version", "ver.", "release", "section", "chapter", "§")


def find_ip(text: str) -> Iterator[Span]:
    """Public and private addresses, not loopback, not 0.0.0.0; "version 1.2.3.4" is a version."""
    if text.count(".") >= 3:
        for m in _V4.finditer(text):
            if _is_host(m.group()) and not any(w in before(text, m.start(), 12) for w in _VERSION):
                yield Span(m.start(), m.end(), "ip", "ipv4", 0.9)
    if text.count(":") >= 2:
        for m in _V6.finditer(text):
            written = m.group().split("%")[0]
            long_enough = written.count(":") == 7 or ("::" in written and len(written) >= 6)
            if long_enough and _is_host(written):
                yield Span(m.start(), m.end(), "ip", "ipv6", 0.9)


def find_mac(text: str) -> Iterator[Span]:
    if text.count(":") >= 5 or text.count("-") >= 5 or text.count(".") >= 2:
        for m in _MAC.finditer(text):
            if any(c in "123456789abcdefABCDEF" for c in m.group()):
                yield Span(m.start(), m.end(), "mac", "mac", 0.95)


def _is_host(written: str) -> bool:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)
