"""DOCX to blocks: paragraphs by their style, list items, tables; text in insertions and content controls included.

python-docx opens the package and knows the styles. Its paragraphs skip tracked insertions and content controls without
a word, so the XML is walked here. Headers, footers, footnotes and comments are recorded, not read into the text.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from tunesmith.core.extras import need
from tunesmith.data.documents.blocks import Block, Extracted, Removed, Unreadable, tidy, tidy_lines
from tunesmith.data.documents.sources import LIMIT

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
HEADING = re.compile(r"^heading (\d)$", re.I)
CODE = re.compile(r"code|listing|preformatted|source|macro", re.I)
BESIDE = {
    "header": "header",
    "footer": "footer",
    "footnotes": "footnote",
    "endnotes": "footnote",
    "comments": "comment",
}
PART = re.compile(r"/word/(header|footer|footnotes|endnotes|comments)\d*\.xml$")


def read_docx(data: bytes) -> Extracted:
    """Raises Unreadable for what is no DOCX, encrypted, or unpacks to more than a document may."""
    docx = need("docx", extra="documents", why="reading DOCX files")
    _refuse_bombs(data)
    try:
        document = docx.Document(io.BytesIO(data))
    except Exception as e:  # python-docx raises KeyError, ValueError, XMLSyntaxError ... by what is missing
        raise Unreadable("broken", f"the DOCX is broken ({type(e).__name__})", "save it again as .docx") from e
    found = Extracted(format="docx", why="by its name")
    found.title = tidy(document.core_properties.title or "")
    styles = _Styles(document)
    found.blocks = list(_body(document.element.body, styles, found))
    _record_beside(document, found)
    if not found.title:
        found.title = next((b.text for b in found.blocks if b.kind == "heading"), "")
    return found


def _refuse_bombs(data: bytes) -> None:
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise Unreadable("encrypted", "is encrypted, or in the old .doc format", "save it as .docx without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            unpacked = sum(part.file_size for part in package.infolist())
    except zipfile.BadZipFile as e:
        raise Unreadable("broken", "the DOCX is broken: it is no zip archive", "save it again as .docx") from e
    if unpacked > LIMIT:
        raise Unreadable("too_large", f"is more than {LIMIT >> 20} MiB unpacked", "part it into several files")


class _Styles:
    """Heading level and kind of a paragraph style, by its own name or the one that it is based on."""

    def __init__(self, document: Any) -> None:
        self._by_id: dict[str, tuple[int, str]] = {}
        for style in document.styles:
            names = [style.name or ""]
            above = getattr(style, "base_style", None)
            while above is not None and len(names) < 12:
                names.append(above.name or "")
                above = getattr(above, "base_style", None)
            self._by_id[style.style_id] = (self._level(names), self._kind(names))

    def of(self, paragraph: Any) -> tuple[int, str]:
        properties = paragraph.find(f"{W}pPr")
        if properties is None:
            return 0, "prose"
        style = properties.find(f"{W}pStyle")
        level, kind = self._by_id.get(style.get(f"{W}val"), (0, "prose")) if style is not None else (0, "prose")
        outline = properties.find(f"{W}outlineLvl")
        if outline is not None and (outline.get(f"{W}val") or "9") < "9":
            level = int(outline.get(f"{W}val")) + 1
        if not level and properties.find(f"{W}numPr") is not None:
            kind = "list"
        return level, kind

    @staticmethod
    def _level(names: list[str]) -> int:
        if names[0].lower() == "title":
            return 1
        numbers = [m.group(1) for name in names if (m := HEADING.match(name))]
        return int(numbers[0]) if numbers else 0

    @staticmethod
    def _kind(names: list[str]) -> str:
        if any(name.lower().startswith("list") for name in names):
            return "list"
        return "code" if any(CODE.search(name) for name in names) else "prose"


def _body(element: Any, styles: _Styles, found: Extracted) -> Iterator[Block]:
    before = ""
    for child in element:
        if child.tag == f"{W}p":
            level, kind = styles.of(child)
            raw = _text(child, found)
            text = tidy_lines(raw) if kind == "code" else tidy(raw)
            if not text:
                before = ""
            elif level:
                yield Block(kind="heading", text=text, level=level)
                before = ""
            else:
                shown = f"- {text}" if kind == "list" else text
                yield Block(kind=kind, text=shown, joins=kind == before and kind != "prose")
                before = kind
        elif child.tag == f"{W}tbl":
            yield from _table(child, found)
            before = ""
        elif child.tag in (f"{W}sdt", f"{W}ins", f"{W}customXml", f"{W}sdtContent", f"{W}smartTag"):
            yield from _body(child, styles, found)


def _table(table: Any, found: Extracted) -> Iterator[Block]:
    joins = False
    for row in table.iter(f"{W}tr"):
        if next(row.iterancestors(f"{W}tbl")) is not table:
            continue  # of a table inside a cell, whose text the cell has
        cells = [
            tidy(" ".join(_text(p, found) for p in cell.iter(f"{W}p")))
            for cell in row.iter(f"{W}tc")
            if next(cell.iterancestors(f"{W}tr")) is row
        ]
        if any(cells):
            yield Block(kind="table", text=" | ".join(cells), joins=joins)
            joins = True


def _text(paragraph: Any, found: Extracted) -> str:
    """What a reader sees once all changes are accepted: insertions yes, deletions no."""
    pieces: list[str] = []
    deleted: list[str] = []
    for node in paragraph.iter():
        if any(a.tag == FALLBACK for a in node.iterancestors()):
            continue  # the same text box again, for old readers
        if node.tag == f"{W}t":
            pieces.append(node.text or "")
        elif node.tag == f"{W}delText":
            deleted.append(node.text or "")
        elif node.tag == f"{W}tab":
            if next(node.iterancestors()).tag == f"{W}r":
                pieces.append("\t")
        elif node.tag in (f"{W}br", f"{W}cr"):
            pieces.append("\n")
        elif node.tag == f"{W}noBreakHyphen":
            pieces.append("-")
        elif node.tag == f"{W}p" and node is not paragraph:
            pieces.append("\n")
    if "".join(deleted).strip():
        found.removed.append(Removed(reason="deleted", text="".join(deleted), detail="a tracked deletion"))
    return "".join(pieces)


def _record_beside(document: Any, found: Extracted) -> None:
    """Text of the package's other parts: one record a part."""
    etree = need("lxml.etree", extra="documents")
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    for part in sorted(document.part.package.iter_parts(), key=lambda p: str(p.partname)):
        named = PART.search(str(part.partname))
        if not named:
            continue
        tree = etree.fromstring(part.blob, parser)
        text = tidy(" ".join(node.text or "" for node in tree.iter(f"{W}t")))
        if text:
            found.removed.append(Removed(reason=BESIDE[named.group(1)], text=text, detail=str(part.partname)))
