"""Blocks to passages: under one heading, whole paragraphs, at most `max_words`, nothing twice and nothing lost.

Invariant (tests/data/documents/test_passages.py): every character of the extracted text that is not white space is in
exactly one passage, one heading of the outline, or one record of left_out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tunesmith.data.documents.blocks import WORD, Span, count_words
from tunesmith.data.documents.faq import is_question
from tunesmith.data.documents.records import Passage, passage_id
from tunesmith.data.documents.sentences import sentence_ends

LINEWISE = ("code", "table")  # too long, they are parted between lines, not sentences
NEVER_SHORT = ("glossary", "faq")


@dataclass(frozen=True, slots=True)
class Unit:
    """What a passage is made of: a block, or a sentence of a long one."""

    start: int
    end: int
    words: int
    kind: str
    page: int | None
    cut: bool = False


@dataclass(slots=True)
class Section:
    """What stands under one heading before the next."""

    heading: tuple[str, ...]
    units: list[Unit] = field(default_factory=list)
    terms: tuple[str, ...] = ()
    see: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A line of a document's outline."""

    level: int
    text: str
    page: int | None
    start: int
    end: int


@dataclass(slots=True)
class Cut:
    """A document in pieces."""

    passages: list[Passage]
    outline: list[Heading]
    short: list[Passage]  # sections with too few words, whole


def cut(file: str, text: str, spans: Sequence[Span], *, max_words: int, min_words: int) -> Cut:
    """`spans` as blocks.lay_out gives them for `text`."""
    outline: list[Heading] = []
    kept: list[Passage] = []
    short: list[Passage] = []
    seen: Counter[tuple[tuple[str, ...], str]] = Counter()
    for section in _sections(text, spans, max_words, outline):
        is_short = sum(u.words for u in section.units) < min_words
        for units in _pack(section.units, text, max_words, min_words):
            passage = _passage(file, text, section, units, seen)
            (short if is_short and passage.kind not in NEVER_SHORT else kept).append(passage)
    return Cut(kept, outline, short)


def _sections(text: str, spans: Sequence[Span], max_words: int, outline: list[Heading]) -> Iterator[Section]:
    path: list[tuple[int, str]] = []
    section = Section(())
    for span in spans:
        block = span.block
        if block.kind == "heading":
            if section.units:
                yield section
            while path and path[-1][0] >= block.level:
                path.pop()
            path.append((block.level, block.text))
            outline.append(Heading(level=block.level, text=block.text, page=block.page, start=span.start, end=span.end))
            section = Section(tuple(name for _, name in path))
        elif block.kind == "glossary":
            if section.units:
                yield section
            above = tuple(name for _, name in path)
            yield Section((*above, block.terms[0]), list(_units(text, span, max_words)), block.terms, block.see)
            section = Section(above)
        else:
            section.units += _units(text, span, max_words)
    if section.units:
        yield section


def _units(text: str, span: Span, max_words: int) -> Iterator[Unit]:
    """The block, or its paragraphs, lines or sentences where it is too long. White space between is in none."""
    kind, page = span.block.kind, span.block.page
    parts = [(span.start, span.end)]
    if kind == "glossary" and count_words(text[span.start : span.end]) > max_words:
        parts = _split_at(text, span.start, span.end, "\n\n")
    for start, end in parts:
        words = count_words(text[start:end])
        if words <= max_words:
            yield Unit(start, end, words, kind, page)
        elif kind in LINEWISE:
            for a, b in _split_at(text, start, end, "\n"):
                yield from _unit(text, a, b, kind, page, max_words)
        else:
            begin = start
            for stop in sentence_ends(text[start:end]):
                yield from _unit(text, begin, start + stop, kind, page, max_words)
                begin = start + stop


def _split_at(text: str, start: int, end: int, mark: str) -> list[tuple[int, int]]:
    parts = []
    while (at := text.find(mark, start, end)) >= 0:
        parts.append((start, at))
        start = at + len(mark)
    return [(a, b) for a, b in [*parts, (start, end)] if text[a:b].strip()]


def _unit(text: str, start: int, end: int, kind: str, page: int | None, max_words: int) -> Iterator[Unit]:
    """One sentence or line, in pieces of `max_words` if it is longer than that."""
    words = list(WORD.finditer(text, start, end))
    for i in range(0, len(words), max_words):
        piece = words[i : i + max_words]
        yield Unit(piece[0].start(), piece[-1].end(), len(piece), kind, page, cut=len(words) > max_words)


def _pack(units: Sequence[Unit], text: str, max_words: int, min_words: int) -> list[list[Unit]]:
    """Units in order, as many to a passage as fit. What introduces a list ("...:") goes with it where it can."""
    packs: list[list[Unit]] = []
    now: list[Unit] = []
    for unit in units:
        if now and sum(u.words for u in now) + unit.words > max_words:
            introduction = now[-1]
            goes_on = len(now) > 1 and text[introduction.start : introduction.end].endswith(":")
            if goes_on and introduction.words + unit.words <= max_words:
                packs.append(now[:-1])
                now = [introduction]
            else:
                packs.append(now)
                now = []
        now.append(unit)
    if now:
        packs.append(now)
    if len(packs) > 1 and sum(u.words for u in packs[-1]) < min_words:
        packs[-2:] = _balance(packs[-2] + packs[-1], max_words)
    return packs


def _balance(units: list[Unit], max_words: int) -> list[list[Unit]]:
    """Two passages as even as they can be, instead of a long one and a stump."""
    total = sum(u.words for u in units)
    best, smallest, left = len(units) - 1, total, 0
    for i in range(1, len(units)):
        left += units[i - 1].words
        uneven = abs(total - 2 * left)
        if uneven < smallest and left <= max_words and total - left <= max_words:
            best, smallest = i, uneven
    return [units[:best], units[best:]]


def _passage(
    file: str, text: str, section: Section, units: Sequence[Unit], seen: Counter[tuple[tuple[str, ...], str]]
) -> Passage:
    start, end = units[0].start, units[-1].end
    words: Counter[str] = Counter()
    for unit in units:
        words[unit.kind] += unit.words
    kind = max(sorted(words), key=lambda k: (words[k], k == "prose"))
    if kind != "glossary" and section.heading and is_question(section.heading[-1]):
        kind = "faq"
    body = text[start:end]
    nth = seen[section.heading, body]
    seen[section.heading, body] += 1
    return Passage(
        id=passage_id(file, section.heading, body, nth),
        file=file,
        page=units[0].page,
        heading=section.heading,
        text=body,
        start=start,
        end=end,
        kind=kind,
        terms=section.terms,
        see=section.see,
        cut=units[0].cut or units[-1].cut,
    )
