"""Boilerplate: lines or paragraphs that many rows repeat, found by counting and taken out.

Two passes. The first counts in how many rows each unit occurs: eight bytes a unit and row, no text is held. The
second takes out the units that reach the threshold. A unit is compared without regard to white space, and one of
fewer than LEAST characters is never boilerplate: everybody writes "Hello," and "}".

Cleaning what was cleaned changes nothing: to take a unit out makes no new one, and no count grows.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Literal

import numpy as np

Unit = Literal["line", "paragraph"]
LEAST = 20  # characters, white space as one
SHOWN = 50  # units named in the facts, the most frequent first
EXCERPT = 300  # characters of each


def hash_of(piece: str) -> int | None:
    """64 bits, equal for units that differ in white space alone; None for one too short to be boilerplate."""
    if len(piece) < LEAST:
        return None
    flat = " ".join(piece.split())
    return int.from_bytes(blake2b(flat.encode(), digest_size=8).digest(), "big") if len(flat) >= LEAST else None


def paragraphs_of(text: str) -> list[str]:
    """Runs of lines, alternating: with something in them, blank, with something in them, ..."""
    runs: list[list[str]] = []
    was_blank: bool | None = None
    for line in text.split("\n"):
        is_blank = not line.strip()
        if is_blank != was_blank:
            runs.append([])
            was_blank = is_blank
        runs[-1].append(line)
    return ["\n".join(run) for run in runs]


def pieces_of(text: str, unit: Unit) -> list[str]:
    """What joined by line breaks is the text again."""
    return text.split("\n") if unit == "line" else paragraphs_of(text)


class Counting:
    """The first pass: in how many rows each unit occurs."""

    def __init__(self, unit: Unit) -> None:
        self.unit: Unit = unit
        self.rows = 0
        self._hashes = array("Q")

    def add(self, texts: Iterable[str]) -> None:
        """One row, with all its texts."""
        self.rows += 1
        found = (hash_of(piece) for text in texts for piece in pieces_of(text, self.unit))
        self._hashes.extend({h for h in found if h is not None})

    def repeated(self, least: int) -> dict[int, int]:
        """The units that at least `least` rows have, and how many have them."""
        if not self._hashes:
            return {}
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        hashes.sort()  # in place: the order of the rows says nothing
        starts = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
        counts = np.diff(np.append(starts, len(hashes)))
        often = counts >= least
        return dict(zip(hashes[starts[often]].tolist(), counts[often].tolist(), strict=True))


class Removal:
    """The second pass: a step that knows what is boilerplate."""

    def __init__(self, repeated: dict[int, int], unit: Unit) -> None:
        self.repeated = repeated
        self.unit: Unit = unit
        self.named: dict[int, str] = {}

    def __call__(self, texts: list[str]) -> list[str]:
        return [self._without(text) for text in texts] if self.repeated else texts

    def _without(self, text: str) -> str:
        kept: list[str] = []
        just_removed = removed = False
        for piece in pieces_of(text, self.unit):
            h = hash_of(piece)
            if h is not None and h in self.repeated:
                self.named.setdefault(h, " ".join(piece.split())[:EXCERPT])
                just_removed = removed = True
            elif just_removed and not piece.strip() and (not kept or not kept[-1].strip()):
                continue  # the blank line that followed what went, after one that preceded it
            else:
                kept.append(piece)
                just_removed = False
        return "\n".join(kept).strip("\n") if removed else text

    def facts(self, *, least: int, of_rows: int) -> dict[str, Any]:
        """What was found, the text named. `of_rows`: the rows that the threshold's share is of."""
        most = sorted((h for h in self.repeated if h in self.named), key=lambda h: (-self.repeated[h], self.named[h]))
        return {
            "unit": self.unit,
            "least_rows": least,
            "of_rows": of_rows,
            "units": len(self.repeated),
            "most": [{"text": self.named[h], "rows": self.repeated[h]} for h in most[:SHOWN]],
        }
