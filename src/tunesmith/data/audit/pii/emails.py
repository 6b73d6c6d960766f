"""E-mail addresses, also with non-ASCII local parts (RFC 6531), as people and mail programs write them.

Searched from each `@` outwards: a pattern that starts with the local part reads long words over and over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.data.audit.spans import Span

_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}\Z")
_DOMAIN = re.compile(
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w@])", re.IGNORECASE
)


def find(text: str) -> Iterator[Span]:
    at = text.find("@")
    floor = 0
    while at >= 0:
        local = _LOCAL.search(text, max(floor, at - 64), at)
        domain = _DOMAIN.match(text, at + 1)
        if local and domain:
            start = local.start() + _lead(local.group())
            if start < at and text[at - 1] != ".":
                floor = domain.end()
                yield Span(start, domain.end(), "email", "email", 1.0)
        at = text.find("@", at + 1)


def _lead(local: str) -> int:
    """Characters of the local part that are the sentence's, not the address's: quotes, slashes, dots."""
    return len(local) - len(local.lstrip(".'`{|}/=*#!$%&?^~+-"))
