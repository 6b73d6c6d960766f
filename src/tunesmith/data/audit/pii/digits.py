"""Runs of digits with the separators people write between them: the start of cards, phones and identity numbers.

One scan of the text serves them all, which is what keeps the audit fast on texts without numbers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# letters right before or after make it a part of a code; up to two separators between digits: "+41 (0)92", "12 - 34"
_RUN = re.compile(r"(?<![\w])(?:\+ ?|\((?=\+?\d))?\(?\d(?:[ \u00a0.\-‐‑–()/]{0,3}\d){5,23}\)?(?![\w])")


class Run(NamedTuple):
    start: int
    end: int
    text: str  # as written
    digits: str


def digit_runs(text: str) -> list[Run]:
    """Runs of 6 to 24 digits with at most three separators between two of them, longest first match."""
    runs = []
    for m in _RUN.finditer(text):
        start, end, written = m.start(), m.end(), m.group()
        if written.endswith(")") and written.count("(") < written.count(")"):
            end, written = end - 1, written[:-1]
        if written.startswith("(") and written.count("(") > written.count(")"):
            start, written = start + 1, written[1:]
        runs.append(Run(start, end, written, "".join(c for c in written if c.isdigit() and c.isascii())))
    return runs


def before(text: str, start: int, width: int) -> str:
    """The lower-case text before a position, with the tags of an earlier redaction blanked: a tag is no context."""
    return _TAG.sub(_blank, text[max(0, start - width) : start].lower())


def after(text: str, end: int, width: int) -> str:
    return _TAG.sub(_blank, text[end : end + width].lower())


_TAG = re.compile(r"\[[a-z_]+\]?|^[a-z_]*\]")  # also one that the window cut


def _blank(m: re.Match[str]) -> str:
    return " " * len(m.group())
