"""Runs of digits with the separators people write between them: the start of cards, phones and identity numbers.

One scan of the text serves them all, which is what keeps the audit fast on texts without numbers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# up to three separators between two digits: "+41 (0)92", "12 - 34". Starts with a plain set of characters, which
# Python's matcher skips to; what stands before and after is checked by hand
_RUN = re.compile(r"[0-9](?:[ \u00a0.\-‐‑–()/]{0,3}[0-9]){5,23}")
_TAG = re.compile(r"\[[a-z_]+\]?|^[a-z_]*\]")  # of an earlier redaction, also one that the window cut
FEWEST = 6


class Run(NamedTuple):
    start: int
    end: int
    text: str  # as written
    digits: str


def digit_runs(text: str) -> list[Run]:
    """Runs of 6 to 24 digits that are no part of a word; a leading `+` or bracket belongs to them."""
    runs = []
    for m in _RUN.finditer(text):
        start, end = m.span()
        if start and (text[start - 1].isalnum() or text[start - 1] == "_"):
            start = _next_start(text, start, end)
        if end < len(text) and (text[end].isalnum() or text[end] == "_") and not _is_extension(text, end):
            end = _last_end(text, start, end)
        digits = "".join(filter(str.isdigit, text[start:end]))
        if len(digits) >= FEWEST:
            start = _with_lead(text, start)
            start, end = _balanced(text, start, end)
            runs.append(Run(start, end, text[start:end], digits))
    return runs


def before(text: str, start: int, width: int) -> str:
    """The lower-case text before a position, with the tags of an earlier redaction blanked: a tag is no context."""
    piece = text[max(0, start - width) : start].lower()
    return _TAG.sub(_blank, piece) if "[" in piece or "]" in piece else piece


def after(text: str, end: int, width: int) -> str:
    piece = text[end : end + width].lower()
    return _TAG.sub(_blank, piece) if "[" in piece else piece


def _next_start(text: str, start: int, end: int) -> int:
    """The first digit after a separator: the run before it hangs on a word."""
    for i in range(start, end - 1):
        if not text[i].isdigit() and text[i + 1].isdigit():
            return i + 1
    return end


def _last_end(text: str, start: int, end: int) -> int:
    for i in range(end - 1, start, -1):
        if not text[i].isdigit() and text[i - 1].isdigit():
            return i
    return start


def _is_extension(text: str, end: int) -> bool:
    return text[end] in "xX" and text[end + 1 : end + 2].isdigit()


def _with_lead(text: str, start: int) -> int:
    for lead in ("(", "+ ", "+", "("):
        if text.endswith(lead, 0, start):
            start -= len(lead)
    return start


def _balanced(text: str, start: int, end: int) -> tuple[int, int]:
    """Takes a closing bracket in, or an opening one out, so that both or neither are there."""
    written = text[start:end]
    if written.count("(") > written.count(")"):
        if text[end : end + 1] == ")":
            return start, end + 1
        if written.startswith("("):
            return start + 1, end
    return start, end


def _blank(m: re.Match[str]) -> str:
    return " " * len(m.group())
