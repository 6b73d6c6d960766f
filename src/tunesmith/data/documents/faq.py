"""Questions: how a heading is known to be one, and text files that are lists of questions and answers."""

from __future__ import annotations

import re

NUMBER = re.compile(
    r"^\s*(?:(?:chapter|section|appendix|part|question)\s+)?(?:\(?(?:\d+|[A-Z])(?:[.\-]\d+)*[.):]?|Q\d*[.:)])\s+(?=\S)",
    re.I,
)
MARKED = re.compile(r"^\s*(?:Q(?:uestion)?)\s*\d*\s*[:.)]\s*(.+)$", re.I)
ANSWER = re.compile(r"^\s*(?:A(?:nswer)?)\s*\d*\s*[:.)]\s*(.*)$", re.I)
END_OF_QUESTION = re.compile(r"[?？][!?？]*[\"'”’)]*$")


def is_question(heading: str) -> bool:
    """`1.2. What is Debian?` is one; `What is new` is not known to be."""
    return END_OF_QUESTION.search(unnumbered(heading)) is not None


def unnumbered(heading: str) -> str:
    """Without the number or letter it begins with: `5.10.2 Guidelines`, `Q3: Why?`, `Appendix A. Notes`."""
    bare = NUMBER.sub("", heading, count=1)
    return bare if NUMBER.match(heading) and _is_numbering(heading) else heading


def _is_numbering(heading: str) -> bool:
    """`A package that ...` begins with an article, `2 ways to` with a count: only what is marked as a number goes."""
    first = heading.split()[0]
    if first.lower() in ("chapter", "section", "appendix", "part", "question"):
        return True
    if first[-1] in ".):":
        return True
    rest = heading.split(maxsplit=1)[1]
    return "." in first or (first.isdigit() and not rest[0].islower())
