"""The lines of a PDF page, with place and font, in the order in which people read them.

Coordinates are PDF points, y upwards. A page's content may come in any order; columns are told by the gutter that no
line crosses, and read one after the other.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tunesmith.core.extras import need
from tunesmith.data.documents.blocks import CONTROLS

MONOSPACED = re.compile(r"mono|courier|consol|menlo|typewriter|x[a-z]{0,2}tt|cmtt|[a-z]\d[a-z]*tt|inconsolata", re.I)
BOLD = re.compile(r"bold|black|heavy|semib|demi", re.I)
UNMAPPED = "\0\ufffd"
HYPHEN = "\x02"  # PDFium's mark for a hyphen at the end of a line
GAP = 1.8  # of the font size: a wider gap inside a line parts columns or cells
TOUCHING = 0.1  # of the font size
SAME_LINE = 0.5  # of the font size: lines that overlap so much in height are one line
GUTTER = 0.012  # of the page's width, at least
COLUMN_LINES = 4  # a column has at least so many lines


Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(slots=True, kw_only=True)
class Line:
    text: str
    left: float
    right: float
    bottom: float
    top: float
    size: float  # font size in points
    mono: bool
    bold: bool
    page: int
    column: int = 0
    cells: tuple[str, ...] = ()  # pieces that wide gaps part, where there are several


@dataclass(slots=True)
class Page:
    number: int  # 1-based
    width: float
    lines: list[Line]
    unmapped: int = 0  # characters that the font says no letter for


def read_page(page: Any, number: int) -> Page:
    """Lines in the file's own order: runs of characters without a wide gap or a change of height."""
    raw = need("pypdfium2.raw", extra="documents")
    text_page = page.get_textpage()
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))  # used again for each character: it is much faster
    try:
        read = Page(number, page.get_width(), [])
        chars: list[tuple[int, str, Box | None]] = []
        last: Box | None = None  # of the character before
        size = 0.0  # of the line's first character
        for k in range(text_page.count_chars()):
            char = chr(raw.FPDFText_GetUnicode(text_page, k))
            if char in "\r\n":
                _close(chars, read.lines, text_page, raw, number)
                last = None
            elif char.isspace():
                chars.append((k, " ", None))
            elif char in UNMAPPED:
                read.unmapped += 1
            else:
                raw.FPDFText_GetCharBox(text_page, k, left, right, bottom, top)
                box = (left.value, bottom.value, right.value, top.value)
                if last is None:
                    size = max(raw.FPDFText_GetFontSize(text_page, k), 4.0)
                elif _goes_elsewhere(last, box, size):
                    _close(chars, read.lines, text_page, raw, number)
                    size = max(raw.FPDFText_GetFontSize(text_page, k), 4.0)
                chars.append((k, char, box))
                last = box
        _close(chars, read.lines, text_page, raw, number)
        return read
    finally:
        text_page.close()


def _goes_elsewhere(last: Box, box: Box, size: float) -> bool:
    """Over a wide gap, or back to the left and to another height, where PDFium has seen no new line."""
    moved = abs((box[1] + box[3]) - (last[1] + last[3])) / 2
    return box[0] - last[2] > GAP * size or (box[0] < last[2] - 2 * size and moved > SAME_LINE * size)


def _close(chars: list[tuple[int, str, Box | None]], lines: list[Line], text_page: Any, raw: Any, number: int) -> None:
    """The characters so far become a line."""
    seen = [k for k, _, box in chars if box is not None]
    boxes = [box for _, _, box in chars if box is not None]
    text = "".join(c for _, c, _ in chars)
    chars.clear()
    if not seen:
        return
    samples = [seen[0], seen[len(seen) // 2], seen[-1]]
    names = [_font(raw, text_page, k) for k in samples]
    sizes = sorted(round(raw.FPDFText_GetFontSize(text_page, k), 1) for k in samples)
    lines.append(
        Line(
            text=_whole(text),
            left=min(b[0] for b in boxes),
            bottom=min(b[1] for b in boxes),
            right=max(b[2] for b in boxes),
            top=max(b[3] for b in boxes),
            size=sizes[1],
            mono=all(MONOSPACED.search(n) for n in names),
            bold=all(BOLD.search(n) for n in names),
            page=number,
        )
    )


def _whole(text: str) -> str:
    """Surrogate halves joined, PDFium's hyphen mark as a hyphen, ligatures and control characters plain."""
    text = text.replace(HYPHEN, "-").replace("\ufffe", "-")
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for ligature, letters in (
        ("\ufb00", "ff"),
        ("\ufb01", "fi"),
        ("\ufb02", "fl"),
        ("\ufb03", "ffi"),
        ("\ufb04", "ffl"),
    ):
        text = text.replace(ligature, letters)
    return CONTROLS.sub("", text).strip()


def _font(raw: Any, text_page: Any, k: int) -> str:
    name = ctypes.create_string_buffer(128)
    raw.FPDFText_GetFontInfo(text_page, k, name, 128, ctypes.byref(ctypes.c_int()))
    return name.value.decode("utf-8", "replace")


def in_reading_order(page: Page) -> list[Line]:
    """Top to bottom; where there is a gutter, its left side before its right, between lines that cross it."""
    lines = [line for line in page.lines if line.text]
    gutter = _gutter(lines, page.width)
    if gutter is None:
        return _one_column(lines, 0)
    ordered: list[Line] = []
    band: list[Line] = []
    column = 0
    for line in sorted(lines, key=lambda line: (-line.top, line.left)):
        if line.left < gutter < line.right:
            column = _columns(band, gutter, ordered, column)
            band = []
            line.column = column
            ordered += [line]
            column += 1
        else:
            band.append(line)
    _columns(band, gutter, ordered, column)
    return ordered


def _columns(band: Sequence[Line], gutter: float, ordered: list[Line], column: int) -> int:
    for side in (
        [line for line in band if line.right <= gutter],
        [line for line in band if line.right > gutter],
    ):
        if side:
            ordered += _one_column(side, column)
            column += 1
    return column


def _gutter(lines: Sequence[Line], width: float) -> float | None:
    """The middle of the widest strip that prose on both sides leaves free, from the middle half of the page."""
    long = [line for line in lines if len(line.text) > 12]
    edges = sorted({round(line.right, 1) for line in long if 0.25 * width < line.right < 0.75 * width})
    best: tuple[int, float] | None = None
    for edge in edges:
        right_of = [line.left for line in long if line.left >= edge + GUTTER * width]
        if not right_of:
            continue
        middle = (edge + min(right_of)) / 2
        left = [line for line in long if line.right <= middle]
        right = [line for line in long if line.left >= middle]
        crossing = len(long) - len(left) - len(right)
        side_by_side = _overlap(left, right)
        if min(len(left), len(right)) < COLUMN_LINES or crossing > min(len(left), len(right)) or side_by_side < 0.5:
            continue
        if best is None or len(left) + len(right) > best[0]:
            best = (len(left) + len(right), middle)
    return best[1] if best else None


def _overlap(left: Sequence[Line], right: Sequence[Line]) -> float:
    """How much of the shorter side's height the other side stands beside."""
    if not left or not right:
        return 0.0
    top = min(max(line.top for line in left), max(line.top for line in right))
    bottom = max(min(line.bottom for line in left), min(line.bottom for line in right))
    heights = [max(line.top for line in s) - min(line.bottom for line in s) for s in (left, right)]
    return (top - bottom) / max(min(heights), 1.0)


def _one_column(lines: Sequence[Line], column: int) -> list[Line]:
    """Top to bottom; pieces at one height are joined from left to right."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: (-(line.top + line.bottom), line.left)):
        if rows and _beside(rows[-1][0], line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [_joined(sorted(row, key=lambda line: line.left), column) for row in rows]


def _beside(first: Line, line: Line) -> bool:
    """Mostly at one height, and not on top of each other."""
    shared = min(first.top, line.top) - max(first.bottom, line.bottom)
    smaller = min(first.top - first.bottom, line.top - line.bottom)
    return shared > SAME_LINE * max(smaller, 0.1)


def _joined(row: Sequence[Line], column: int) -> Line:
    """The pieces as one line. What touches is one word (a raised letter); what a wide gap parts is a cell."""
    longest = max(row, key=lambda line: len(line.text))
    cells = [row[0].text]
    for before, piece in pairwise(row):
        gap = piece.left - before.right
        if gap > GAP * longest.size:
            cells.append(piece.text)
        else:
            cells[-1] += ("" if gap < TOUCHING * longest.size else " ") + piece.text
    return Line(
        text=" ".join(cells),
        left=row[0].left,
        right=max(line.right for line in row),
        bottom=min(line.bottom for line in row),
        top=max(line.top for line in row),
        size=longest.size,
        mono=all(line.mono for line in row),
        bold=all(line.bold for line in row),
        page=longest.page,
        column=column,
        cells=tuple(cells) if len(cells) > 1 else (),
    )
