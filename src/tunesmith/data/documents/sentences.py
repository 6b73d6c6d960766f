"""Where sentences end, by rule: no model, the same on every machine."""

from __future__ import annotations

import re

END = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』”’）]*)")
# fmt: off
ABBREVIATIONS = frozenset([
    "e.g", "i.e", "etc", "vs", "cf", "al", "approx", "dept", "ed", "eds", "est", "fig", "figs", "inc", "jr", "ltd",
    "mr", "mrs", "ms", "dr", "prof", "sr", "st", "nos", "vol", "pp", "p", "ch", "sec", "resp", "incl", "ca", "z.b",
    "d.h", "bzw", "usw", "ggf", "u.a", "vgl", "nr", "bsp", "evtl",
])
# fmt: on
NEXT = re.compile(r"\s+[\"'“‘«(\[]*(\S)")


def sentence_ends(text: str) -> list[int]:
    """Offsets just behind each sentence, the last one included. A full stop inside an abbreviation or before a
    small letter ends nothing."""
    ends = []
    for found in END.finditer(text):
        at = found.end()
        if found.group()[0] == "." and not _ends(text, found):
            continue
        if text[at:].strip():
            ends.append(at)
    return [*ends, len(text)] if text else []


def _ends(text: str, found: re.Match[str]) -> bool:
    after = NEXT.match(text, found.end())
    if after and after.group(1).islower():
        return False
    words = text[max(0, found.start() - 24) : found.start()].split()
    if not words:
        return True
    word = words[-1].lstrip("(\"'“‘[").lower()
    return word not in ABBREVIATIONS and not (len(word) == 1 and word.isalpha() and word not in "i")
