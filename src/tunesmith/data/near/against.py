"""Texts that must not be trained on, found in rows: copies, near-copies, quotations and excerpts.

A row is contaminated if, of the shorter of the two (row or forbidden text), at least `threshold` of the
shingles stand in the other: the overlap coefficient. It is never less than Jaccard, so that near-copies are
found as well as a question inside a longer prompt or an excerpt of a long document. Where the shorter one
has fewer than MIN_SHARED shingles, containment says little ("what is the"): there Jaccard decides.
Exact, by the prefix filter of join.py for the overlap coefficient: no forbidden text is missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Row
from tunesmith.data.lines import Record
from tunesmith.data.near.join import BLOCK, ROUNDING, Floats, overlaps
from tunesmith.data.near.rows import asked
from tunesmith.data.near.shingles import Ints, Shingles, shingles, spans
from tunesmith.data.read import facts_of, read_file

MIN_SHARED = 8  # shingles from which being contained is evidence
MIN_WORDS = 4  # of a forbidden text: "true" and "yes" forbid nothing
PLAIN = (".txt", ".md", ".text")


@dataclass(slots=True)
class Forbidden:
    """Forbidden texts: where each stands, and its shingles."""

    sets: Shingles
    where: list[str]
    too_short: int = 0
    unreadable: list[str] = field(default_factory=list)  # where


def read_forbidden(folder: Path) -> Forbidden:
    """Every text field of every record of CSV, TSV and JSON lines; every paragraph of plain text.

    Raises DataError for another format: a forbidden text that cannot be read must not seem absent.
    """
    where: list[str] = []
    unreadable: list[str] = []
    short = 0

    def texts() -> Iterator[str]:
        nonlocal short
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            for place, text in _texts(path, path.relative_to(folder).as_posix(), unreadable):
                if len(text.split()) < MIN_WORDS and text.isascii():
                    short += 1
                    continue
                where.append(place)
                yield text

    sets = shingles(texts())
    if not len(sets):
        raise DataError("there is no text to compare with", where="data.dedup.against", fix="name a file with texts")
    return Forbidden(sets, where, short, unreadable)


def sealed_texts(dataset: Path) -> Forbidden:
    """What the rows of the sealed test set of an earlier data set ask."""
    where: list[str] = []

    def texts() -> Iterator[str]:
        for row in read_lines(dataset / "test.jsonl", Row):
            where.append(f"{row.file}:{row.line}")
            yield asked(row)

    return Forbidden(shingles(texts()), where)


def _texts(path: Path, name: str, unreadable: list[str]) -> Iterator[tuple[str, str]]:
    if path.suffix.lower() in PLAIN:
        try:
            body = path.read_text("utf-8-sig")
        except UnicodeDecodeError as e:
            raise DataError(f"is not UTF-8: {e.reason}", where=name, fix="convert it with iconv") from e
        for i, paragraph in enumerate(body.split("\n\n"), start=1):
            if paragraph.strip():
                yield f"{name}, paragraph {i}", paragraph
        return
    for record in read_file(path, facts_of(path)):
        if not isinstance(record, Record):
            unreadable.append(f"{name}:{record.line}")
            continue
        for text in _strings(record.fields):
            yield f"{name}:{record.line}", text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _each(value.values())
    elif isinstance(value, list | tuple):
        yield from _each(value)


def _each(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from _strings(value)


@dataclass(frozen=True, slots=True)
class Match:
    """The forbidden text that a row has most of."""

    text: int  # index
    contained: float  # of the shorter one, in the other
    similarity: float  # Jaccard


def find(rows: Shingles, forbidden: Shingles, threshold: float) -> dict[int, Match]:
    """Every contaminated row, with its best match: most contained, then most similar, then the first."""
    index = _Index(forbidden, threshold)
    found: dict[int, Match] = {}
    step = max(1, BLOCK // 4 * len(rows) // max(len(rows.values), 1))
    for start in range(0, len(rows), step):
        chosen = np.arange(start, min(start + step, len(rows)))
        a, b = index.candidates(rows.take(chosen))
        a = chosen[a]
        shared = overlaps(rows, a, forbidden, b)
        less = np.minimum(rows.sizes[a], forbidden.sizes[b])
        union = rows.sizes[a] + forbidden.sizes[b] - shared
        contained, similar = shared / np.maximum(less, 1), shared / np.maximum(union, 1)
        is_in = np.where(less >= MIN_SHARED, contained, similar) >= threshold
        for row, best in _best(a[is_in], b[is_in], contained[is_in], similar[is_in]):
            found[row] = best
    return found


def _best(a: Ints, b: Ints, contained: Floats, similar: Floats) -> Iterator[tuple[int, Match]]:
    order = np.lexsort((b, -similar, -contained, a))
    first = np.unique(a[order], return_index=True)[1]
    for i in order[first].tolist():
        yield int(a[i]), Match(int(b[i]), float(contained[i]), float(similar[i]))


class _Index:
    """Which forbidden texts have a shingle: all of them, and only those among whose rarest it is."""

    def __init__(self, sets: Shingles, threshold: float) -> None:
        self.threshold = threshold
        text = np.repeat(np.arange(len(sets)), sets.sizes)
        order = np.argsort(sets.values, kind="stable")
        self.sizes = sets.sizes
        self.known, first, times = np.unique(sets.values[order], return_index=True, return_counts=True)
        self.times = times
        self._all = (text[order], first, times)
        often = times[np.searchsorted(self.known, sets.values)]
        by_rarity = np.lexsort((sets.values, often, text))
        rank = np.arange(len(text)) - np.repeat(sets.offsets[:-1], sets.sizes)
        chosen = by_rarity[rank < _prefix(sets.sizes, threshold)[text]]
        chosen = chosen[np.argsort(sets.values[chosen], kind="stable")]
        begins = np.searchsorted(sets.values[chosen], self.known)
        self._rare = (text[chosen], begins, np.diff(np.append(begins, len(chosen))))

    def candidates(self, rows: Shingles) -> tuple[Ints, Ints]:
        """Pairs (row, text), each once, with every pair that passes the threshold among them."""
        row = np.repeat(np.arange(len(rows)), rows.sizes)
        at = np.minimum(np.searchsorted(self.known, rows.values), len(self.known) - 1)
        hit = self.known[at] == rows.values
        pairs = [self._expand(row[hit], at[hit], self._rare, rows.sizes, longer_text=False)]
        # of a row shorter than the text, most shingles must be known, and its rarest are looked up
        often = np.where(hit, self.times[at], 0)
        order = np.lexsort((rows.values, often, row))
        rank = np.arange(len(row)) - np.repeat(rows.offsets[:-1], rows.sizes)
        chosen = order[(rank < _prefix(rows.sizes, self.threshold)[row])]
        chosen = chosen[hit[chosen]]
        pairs.append(self._expand(row[chosen], at[chosen], self._all, rows.sizes, longer_text=True))
        return np.divmod(np.unique(np.concatenate(pairs)), len(self.sizes))

    def _expand(
        self, row: Ints, at: Ints, postings: tuple[Ints, Ints, Ints], sizes: Ints, *, longer_text: bool
    ) -> Ints:
        texts, begins, times = postings
        found = [np.zeros(0, np.int64)]
        ends = np.cumsum(times[at])
        cuts = np.searchsorted(ends, np.arange(BLOCK, int(ends[-1]) + 1 if len(ends) else 0, BLOCK))
        for part in np.split(np.arange(len(row)), np.unique(cuts)):
            text = texts[spans(begins[at[part]], times[at[part]])]
            here = np.repeat(row[part], times[at[part]])
            fits = (self.sizes[text] > sizes[here]) == longer_text
            found.append(np.unique(here[fits] * len(self.sizes) + text[fits]))
        return np.concatenate(found)


def _prefix(sizes: Ints, threshold: float) -> Ints:
    return sizes - np.ceil(threshold * sizes - ROUNDING).astype(np.int64) + 1
