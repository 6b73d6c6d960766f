"""White space: one kind of line break, one kind of space, nothing at line ends, no wide holes."""

from __future__ import annotations

import re

MOST_BLANK_LINES = 2  # in a row: what Python's own style uses between functions, so that code keeps its look

_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_WIDE = re.compile(f"[{_SPACES}\u2028\u2029\x85]")
_TABLE = str.maketrans(dict.fromkeys(_SPACES, " ") | {"\u2028": "\n", "\u2029": "\n\n", "\x85": "\n"})
_HOLE = re.compile(rf"\n{{{MOST_BLANK_LINES + 2},}}")
_LEADING = re.compile(r"\A(?:[^\S\n]*\n)+")  # blank lines; the first line keeps its indentation


def whitespace(texts: list[str]) -> list[str]:
    return [_tidy(text) for text in texts]


def _tidy(text: str) -> str:
    """Tabs and indentation stay: they mean something in code and in tables."""
    if not text.isascii() and _WIDE.search(text):
        text = text.translate(_TABLE)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if " \n" in text or "\t\n" in text or "\x0b\n" in text or "\x0c\n" in text:
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    if "\n" * (MOST_BLANK_LINES + 2) in text:
        text = _HOLE.sub("\n" * (MOST_BLANK_LINES + 1), text)
    if text[:1].isspace():
        text = _LEADING.sub("", text)
    return text.rstrip() if text[-1:].isspace() else text
