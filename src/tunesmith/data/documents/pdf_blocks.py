"""Lines of a PDF to headings, paragraphs, list items and listings, across pages and columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from tunesmith.data.documents.blocks import Block, join_lines, tidy, vocabulary
from tunesmith.data.documents.faq import unnumbered
from tunesmith.data.documents.pdf_lines import Line, Page

BULLET = re.compile(r"^(?:[•◦▪‣●○■□–—*-]|\(?\d{1,2}[.)]|\(?[a-z]\))\s+\S")
MARK = re.compile(r"^(?:[•◦▪‣●○■□–—*-]|\(?\w{1,3}[.)])$")
NUMBERED = re.compile(r"^(\d{1,2}(?:\.\d{1,2})*)\.?\s+[^\W\d_]")
CHAPTER = re.compile(r"^(?:chapter|part|appendix)(?:\s+\S+)?$", re.I)
FOOTNOTE = re.compile(r"^(?:\d{1,3}|[*†‡§])\s*\S")
LARGER = 1.12  # of the body's font size: a heading's, at least
SMALLER = 0.93  # of the body's font size: a footnote's, at most
HEADING_WORDS = 25
WIDE_GAP = 1.35  # of the usual distance between lines: a paragraph ends
FEW_STEPS = 5
LINE_SPACING = 1.2  # of the font size, where nothing better is known
SHORT_LINE = 0.85  # of the column's width: a line that ends before it ends a paragraph, if a sentence ends too
SENTENCE_END = re.compile(r"[.!?:…][\"'”’)\]]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookmark:
    level: int
    title: str
    page: int


def blocks_of(pages: Sequence[Page], bookmarks: Sequence[Bookmark]) -> list[Block]:
    lines = [line for page in pages for line in page.lines]
    if not lines:
        return []
    body = _body_size(lines)
    notes = {id(line) for page in pages for line in _footnotes(page, body)}
    known = vocabulary("\n".join(re.sub(r"\S+-$", "", line.text) for line in lines))
    marks = _Marks(bookmarks)
    levels = {} if bookmarks else _levels(lines, body)
    blocks: list[Block] = []
    paragraph: list[Line] = []
    below: list[Line] = []  # footnotes, which follow the text of their section
    pitch = _Pitch(lines)

    def close() -> None:
        blocks.extend(_paragraph(paragraph, known))
        paragraph.clear()

    def end_section() -> None:
        close()
        for line in below:
            if paragraph and FOOTNOTE.match(line.text):
                close()
            paragraph.append(line)
        close()
        below.clear()

    at = 0
    while at < len(lines):
        taken = marks.heading(lines, at)
        level = marks.level
        if not taken and levels:
            taken, level = _by_font(lines, at, body, levels)
        if taken:
            end_section()
            text = marks.title or join_lines([line.text for line in lines[at : at + taken]], known)
            blocks.append(Block(kind="heading", text=text, level=level, page=lines[at].page))
            at += taken
            continue
        line = lines[at]
        if id(line) in notes:
            below.append(line)
            at += 1
            continue
        if paragraph and _begins(paragraph, line, pitch.of(paragraph[-1])):
            close()
        paragraph.append(line)
        at += 1
    end_section()
    return blocks


class _Marks:
    """Bookmarks, found again among the lines of their pages. Each is used once."""

    def __init__(self, bookmarks: Sequence[Bookmark]) -> None:
        self.level = 0
        self.title = ""  # the bookmark's own, where the page has it in capitals
        self._by_page: dict[int, list[Bookmark]] = {}
        for mark in bookmarks:
            self._by_page.setdefault(mark.page, []).append(mark)

    def heading(self, lines: Sequence[Line], at: int) -> int:
        """How many lines from here are the heading of a bookmark; `level` is then its level."""
        self.title = ""
        waiting = self._by_page.get(lines[at].page, [])
        if not waiting:
            return 0
        skip = 0  # "CHAPTER", "TWO" above the name of a chapter
        while skip < 2 and at + skip + 1 < len(lines) and (skip or CHAPTER.match(lines[at].text)):
            skip += 1
        for first in sorted({0, skip, 1 if skip else 0}):
            said = ""
            for n in range(first, min(first + 4, len(lines) - at)):
                said = f"{said} {lines[at + n].text}".strip()
                for i, mark in enumerate(waiting):
                    if _same(said, mark.title):
                        waiting.pop(i)
                        self.level = mark.level
                        self.title = mark.title if said.isupper() else ""
                        return n + 1
        return 0


def _same(said: str, title: str) -> bool:
    def bare(text: str) -> str:
        return re.sub(r"[\W_]+", "", unnumbered(text).casefold())

    return bare(said) == bare(title) != ""


def _body_size(lines: Sequence[Line]) -> float:
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[line.size] += len(line.text)
    return max(sizes, key=lambda s: (sizes[s], s))


def _footnotes(page: Page, body: float) -> list[Line]:
    """Small lines at the foot of a page, from one that begins with a number or a mark on."""
    small = 0
    while small < len(page.lines) and page.lines[-1 - small].size < SMALLER * body:
        small += 1
    foot = page.lines[len(page.lines) - small :]
    first = next((i for i, line in enumerate(foot) if FOOTNOTE.match(line.text)), len(foot))
    return foot[first:] if small < len(page.lines) else []


def _levels(lines: Sequence[Line], body: float) -> dict[float, int]:
    """Font sizes of headings, the largest first: 1, 2, ..."""
    sizes = sorted({line.size for line in lines if line.size >= LARGER * body}, reverse=True)
    return {size: i for i, size in enumerate(sizes, 1)} | {body: len(sizes) + 1}


def _by_font(lines: Sequence[Line], at: int, body: float, levels: dict[float, int]) -> tuple[int, int]:
    """How many lines from here are a heading, by size or by boldness with a number; and its level."""
    first = lines[at]
    number = NUMBERED.match(first.text)
    bold = first.bold and first.size >= 0.95 * body and (number is not None or len(first.text.split()) <= 12)
    if first.size < LARGER * body and not bold:
        return 0, 0
    n = 1
    while (
        at + n < len(lines)
        and lines[at + n].size == first.size
        and lines[at + n].bold == first.bold
        and lines[at + n].page == first.page
        and not NUMBERED.match(lines[at + n].text)
        and first.size >= LARGER * body
        and lines[at + n - 1].bottom - lines[at + n].top < first.size
    ):
        n += 1
    words = sum(len(line.text.split()) for line in lines[at : at + n])
    last = lines[at + n - 1].text
    if (
        words > HEADING_WORDS
        or (last.endswith((".", ",", ";")) and not number)
        or not any(map(str.isalpha, first.text))
    ):
        return 0, 0
    level = levels.get(first.size) or min(levels.values())
    return n, 1 + number.group(1).count(".") if number else level


class _Pitch:
    """The usual distance from one line's bottom to the next one's, in points: of lines of this size on this page, or
    where there are few, of this size in the document."""

    def __init__(self, lines: Sequence[Line]) -> None:
        steps: dict[tuple[int, float], list[float]] = {}
        for a, b in pairwise(lines):
            step = a.bottom - b.bottom
            if a.page == b.page and a.column == b.column and a.size == b.size and 0 < step < 4 * a.size:
                steps.setdefault((a.page, a.size), []).append(step)
                steps.setdefault((0, a.size), []).append(step)
        self._usual = {at: median(found) for at, found in steps.items() if len(found) >= FEW_STEPS}

    def of(self, line: Line) -> float:
        return self._usual.get((line.page, line.size)) or self._usual.get((0, line.size)) or LINE_SPACING * line.size


def _is_row(line: Line) -> bool:
    """Cells side by side; a bullet and its text are none."""
    return len(line.cells) > 1 and not MARK.match(line.cells[0]) and not line.mono


def _begins(paragraph: Sequence[Line], line: Line, pitch: float) -> bool:
    """Does this line begin a paragraph of its own?"""
    before = paragraph[-1]
    if (
        BULLET.match(line.text)
        or before.mono != line.mono
        or _is_row(before) != _is_row(line)
        or abs(before.size - line.size) > 0.8
    ):
        return True
    if before.page != line.page or before.column != line.column:
        ended = SENTENCE_END.search(before.text) is not None
        return ended or not (line.text[0].islower() or before.text.endswith("-") or before.text[-1].isalnum())
    step = before.bottom - line.bottom
    if step > WIDE_GAP * pitch or step < 0:
        return True
    right = max(piece.right for piece in paragraph)
    width = right - min(piece.left for piece in paragraph)
    short = before.right < before.left + SHORT_LINE * width
    return short and not line.mono and SENTENCE_END.search(before.text) is not None


def _paragraph(lines: Sequence[Line], known: set[str]) -> Iterator[Block]:
    if not lines:
        return
    page = lines[0].page
    if all(line.mono for line in lines):
        left = min(line.left for line in lines)
        width = max(lines[0].size * 0.6, 1.0)
        shown = [" " * round((line.left - left) / width) + line.text for line in lines]
        yield Block(kind="code", text="\n".join(shown), page=page)
        return
    if len(lines) > 1 and all(map(_is_row, lines)):
        for i, line in enumerate(lines):
            yield Block(kind="table", text=" | ".join(map(tidy, line.cells)), page=page, joins=i > 0)
        return
    text = join_lines([line.text for line in lines], known)
    if tidy(text):
        bullet = BULLET.match(text) is not None
        yield Block(kind="list" if bullet else "prose", text=text, page=page)
