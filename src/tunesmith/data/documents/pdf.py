"""PDF to blocks: lines from characters, running heads out, lines into reading order, paragraphs and headings.

Text comes from PDFium (pypdfium2); what is a line, a column, a heading or a running head is decided here, from places
and font sizes. Pages that are only a picture are left out with that reason: no text is recognised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tunesmith.core.extras import need
from tunesmith.data.documents.blocks import Extracted, Removed, Unreadable, tidy
from tunesmith.data.documents.pdf_blocks import CHAPTER, Bookmark, blocks_of
from tunesmith.data.documents.pdf_lines import Line, Page, in_reading_order, read_page

MARGIN_LINES = 3  # a page's running head has at most so many lines, and its foot
APART = 1.8  # of the font size, from line to line: what stands further off is no line of the same text
REPEATS = 3  # a running head is on at least so many pages
PLACE = 6.0  # points: how far a running head's place may vary
SAME_HEIGHT = 1.5  # points: how near another line of the same band is
CONTENTS = re.compile(r"(?:\.\s?){4,}\s*(?:\d+|[ivxlc]+)\s*$")
ENTRY = re.compile(r"^\d+(?:\.\d+)+\s*\S|\s(?:\d+|[ivxlc]+)\s*$|^(?:table of )?contents$", re.I)
CONTINUES = re.compile(r"^\((?:continues on next page|continued from previous page)\)$", re.I)
IMAGE = 3  # FPDF_PAGEOBJ_IMAGE


def read_pdf(data: bytes) -> Extracted:
    """Raises Unreadable for encrypted and broken files."""
    pdfium = need("pypdfium2", extra="documents", why="reading PDF files")
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as e:
        raise _unreadable(str(e)) from e
    with document:
        found = Extracted(format="pdf", why="by its name", pages=len(document))
        found.title = tidy(document.get_metadata_value("Title"))
        pages: list[Page] = []
        for number in range(len(document)):
            try:
                page = document[number]
            except pdfium.PdfiumError:
                found.removed.append(Removed(reason="broken_page", text="", detail="cannot be opened", page=number + 1))
                continue
            lines = read_page(page, number + 1)
            if lines.unmapped:
                found.removed.append(_unmapped(lines))
            if lines.lines:
                pages.append(lines)
            else:
                found.removed.append(_empty_page(page, number + 1))
        bookmarks = _bookmarks(document, pdfium)
    _take_running_heads_out(pages, found.removed)
    for read in pages:
        read.lines = in_reading_order(read)
        dotted = sum(CONTENTS.search(line.text) is not None for line in read.lines)
        entries = ENTRY if 2 * dotted > len(read.lines) else CONTENTS  # chapters often come without dots
        _take_out(read, entries, "contents", found.removed)  # the heading path says the same
        _take_out(read, CONTINUES, "continuation", found.removed)
    found.blocks = blocks_of(pages, bookmarks)
    return found


def _unmapped(page: Page) -> Removed:
    what = "characters that the file's fonts have no letters for"
    n = page.unmapped
    return Removed(reason="unmapped", text="", detail=what, page=page.number, count=n, characters=n)


def _unreadable(said: str) -> Unreadable:
    if "password" in said.lower():
        return Unreadable("encrypted", "the PDF is encrypted and needs a password", "save a copy without the password")
    return Unreadable("broken", "the PDF is broken: it cannot be opened", "export it again")


def _empty_page(page: Any, number: int) -> Removed:
    pictures = sum(1 for _ in page.get_objects(filter=[IMAGE], max_depth=3))
    if pictures:
        what = f"{pictures} pictures and no text: it needs its text recognised, e.g. with OCRmyPDF"
        return Removed(reason="image_only_page", text="", detail=what, page=number)
    return Removed(reason="blank_page", text="", detail="no text", page=number)


def _bookmarks(document: Any, pdfium: Any) -> list[Bookmark]:
    """The document's own outline; one that is broken is not used."""
    found = []
    try:
        for mark in document.get_toc(max_depth=8):
            target = mark.get_dest()
            title = tidy(mark.get_title())
            if target is not None and title:
                found.append(Bookmark(level=mark.level + 1, title=title, page=(target.get_index() or 0) + 1))
    except pdfium.PdfiumError:
        return []
    return found


def _take_running_heads_out(pages: Sequence[Page], removed: list[Removed]) -> None:
    """Lines that say the same (digits apart) at the same height of several pages, near the top or the bottom; and
    whatever else stands at a height that such lines have on most pages."""
    edges = [(page, line) for page in pages for line in _margins(page)]
    places: dict[str, list[tuple[float, int, Line]]] = {}
    for page, line in edges:
        if not CHAPTER.match(line.text):  # above a chapter's name, not a running head
            places.setdefault(_pattern(line.text), []).append((line.bottom, page.number, line))
    heads = {pattern: _at_one_height(met, needed=REPEATS) for pattern, met in sorted(places.items())}
    known = {id(line) for met in heads.values() for _, _, line in met}
    for pattern, met in heads.items():
        _note(pattern, met, removed)
    for height in _heights([m for met in heads.values() for m in met], needed=len(pages) / 2):
        for line in (line for page in pages for line in _outermost(page)):
            if abs(line.bottom - height) <= SAME_HEIGHT and id(line) not in known:
                known.add(id(line))
                _note("", [(line.bottom, line.page, line)], removed)
    for page in pages:
        page.lines = [line for line in page.lines if id(line) not in known]


def _note(pattern: str, met: Sequence[tuple[float, int, Line]], removed: list[Removed]) -> None:
    if not met:
        return
    on = sorted({number for _, number, _ in met})
    removed.append(
        Removed(
            reason="page_number" if pattern in ("#", "roman") else "running_head",
            text=min(met, key=lambda m: (m[1], -m[0]))[2].text,
            detail=f"on {len(on)} pages, first on page {on[0]}",
            page=on[0],
            count=len(met),
            characters=sum(len("".join(line.text.split())) for _, _, line in met),
        )
    )


def _heights(heads: Sequence[tuple[float, int, Line]], *, needed: float) -> list[float]:
    """Heights at which at least `needed` pages, and REPEATS, have a running head."""
    by_height: dict[float, set[int]] = {}
    for bottom, number, _ in heads:
        by_height.setdefault(round(bottom), set()).add(number)
    return [height for height, on in sorted(by_height.items()) if len(on) >= max(needed, REPEATS)]


def _margins(page: Page) -> list[Line]:
    """The lines at the top and at the bottom that a gap sets apart from the text, where they are few."""
    rows = sorted(page.lines, key=lambda line: -line.bottom)
    found: dict[int, Line] = {}
    for edge in (rows, rows[::-1]):
        apart = next((i for i, (a, b) in enumerate(pairwise(edge), 1) if _is_apart(a, b)), len(edge))
        if apart <= MARGIN_LINES:
            found |= {id(line): line for line in edge[:apart]}
    return list(found.values())


def _outermost(page: Page) -> list[Line]:
    heights = [line.bottom for line in page.lines]
    return [line for line in page.lines if min(line.bottom - min(heights), max(heights) - line.bottom) <= SAME_HEIGHT]


def _is_apart(a: Line, b: Line) -> bool:
    return abs(a.bottom - b.bottom) > APART * max(a.size, b.size)


def _at_one_height(met: list[tuple[float, int, Line]], *, needed: int) -> list[tuple[float, int, Line]]:
    """Those of the heights that at least `needed` pages share. Even and odd pages may differ."""
    met = sorted(met, key=lambda m: (m[0], m[1]))
    heads: list[tuple[float, int, Line]] = []
    i = 0
    while i < len(met):
        j = i
        while j < len(met) and met[j][0] - met[i][0] <= PLACE:
            j += 1
        if len({number for _, number, _ in met[i:j]}) >= needed:
            heads += met[i:j]
        i = j
    return heads


def _pattern(text: str) -> str:
    if re.fullmatch(r"[ivxlc]{1,7}", text.strip()):
        return "roman"
    return re.sub(r"\d+", "#", tidy(text))


def _take_out(page: Page, pattern: re.Pattern[str], reason: str, removed: list[Removed]) -> None:
    gone = [line for line in page.lines if pattern.search(line.text)]
    if gone:
        ids = {id(line) for line in gone}
        page.lines = [line for line in page.lines if id(line) not in ids]
        text = "\n".join(line.text for line in gone)
        removed.append(Removed(reason=reason, text=text, detail=f"{len(gone)} lines", page=page.number))
