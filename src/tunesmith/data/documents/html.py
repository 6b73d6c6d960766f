"""HTML to blocks: headings, paragraphs, lists, tables and listings, in order.

trafilatura finds the encoding and parses. Its extraction is not used: it drops headings (those of DocBook pages, all)
and says nothing of what it dropped. Navigation is known here by elements, roles and class names, and is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tunesmith.core.extras import need
from tunesmith.data.documents.blocks import Block, Extracted, Removed, Unreadable, count_characters, tidy, tidy_lines

HEADINGS = {f"h{i}": i for i in range(1, 7)}
SILENT = {"script", "style", "template", "noscript", "head", "svg", "math", "iframe", "object"}  # no text for people
NAVIGATION = {"nav", "footer", "aside", "form", "button", "select", "dialog", "menu"}
ROLES = {"navigation", "search", "banner", "contentinfo", "complementary", "dialog", "alert"}
NAVIGATING = re.compile(
    r"(?:^|[\s_-])(?:nav(?:bar|igation|header|footer)?|menu|breadcrumbs?|sidebar|toc|contents|cookie\S*|skip\S*|"
    r"pagination|related|headerlink|sphinxsidebar\w*|footer|share|social)(?:$|[\s_-])",
    re.I,
)
BLOCKS = {
    "address", "article", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "header", "hgroup", "hr", "html", "li", "main", "ol", "p", "section", "summary", "table", "ul", "pre",
    "caption", "tbody", "thead", "tfoot", "tr", "td", "th", *HEADINGS,
}  # fmt: skip
LOOSE = ".//td[not(parent::tr)]|.//th[not(parent::tr)]"  # cells in no row
HOLDS_BLOCKS = "|".join(f".//{tag}" for tag in ("table", "p", "div", "ul", "ol", "dl", "pre", *HEADINGS))
NO_ROWS = f"{HOLDS_BLOCKS}|{LOOSE}"  # a table that is read like any other element
PILCROW = re.compile(r"\s*[¶§#]\s*$")


def read_html(data: bytes) -> Extracted:
    """Raises Unreadable if there is no element in it."""
    trafilatura = need("trafilatura", extra="documents", why="reading HTML files")
    tree = trafilatura.load_html(data)
    if tree is None:
        raise Unreadable("broken", "no HTML could be found in it", "export it again")
    found = Extracted(format="html", why="by its name")
    title = tree.find(".//title")
    found.blocks = list(_Walk(found).blocks(tree))
    top = [b.text for b in found.blocks if b.kind == "heading" and b.level == 1]
    if len(top) == 1:
        found.title = top[0]  # what <title> says besides is for the browser's tab
    elif title is not None:
        found.title = tidy(title.text_content())
    return found


class _Walk:
    """Walks a tree in document order. Text beside block elements is a paragraph of its own."""

    def __init__(self, found: Extracted) -> None:
        self._found = found
        self._inline: list[str] = []

    def blocks(self, element: Any) -> Iterator[Block]:
        yield from self._children(element, "prose", False)
        yield from self._flush("prose", False)

    def inside(self, element: Any) -> Iterator[Block]:
        """Blocks of one child: of what it holds, if it is an item."""
        if element.tag == "li":
            yield from self.blocks(element)
        else:
            yield from self._children((element,), "prose", False)
            yield from self._flush("prose", False)

    def _children(self, element: Any, kind: str, joins: bool) -> Iterator[Block]:
        if not isinstance(element, tuple):
            self._inline.append(element.text or "")
        for child in element:
            if not isinstance(child.tag, str):
                self._inline.append(child.tail or "")  # a comment
                continue
            tag = child.tag.lower()
            if tag in SILENT:
                pass
            elif self._leads_away(child, tag):
                yield from self._flush(kind, joins)
                self._remove(child, tag)
            elif tag in BLOCKS:
                yield from self._flush(kind, joins)
                yield from self._block(child, tag, kind)
            elif tag == "br":
                self._inline.append(" ")
            else:
                yield from self._children(child, kind, joins)
            if not isinstance(element, tuple):
                self._inline.append(child.tail or "")

    def _block(self, element: Any, tag: str, kind: str) -> Iterator[Block]:
        if tag in HEADINGS:
            text = PILCROW.sub("", tidy(_shown(element)))
            if text:
                yield Block(kind="heading", text=text, level=HEADINGS[tag])
        elif tag == "pre":
            text = tidy_lines(_shown(element))
            if text:
                yield Block(kind="code", text=text)
        elif tag == "table" and not element.xpath(NO_ROWS) and _is_all(element, ("td", "th", "caption")):
            yield from self._table(element)
        elif tag in ("ul", "ol"):
            yield from self._list(element, ordered=tag == "ol")
        elif tag == "dl" and _is_all(element, ("dt", "dd")):
            yield from self._definitions(element)
        else:
            yield from self._children(element, kind, False)
            yield from self._flush(kind, False)

    def _flush(self, kind: str, joins: bool) -> Iterator[Block]:
        text = tidy("".join(self._inline))
        self._inline.clear()
        if text:
            yield Block(kind=kind, text=text, joins=joins)

    def _table(self, table: Any) -> Iterator[Block]:
        """A row a line, its cells parted by bars."""
        joins = False
        for row in table.iter("tr", "caption"):
            cells = [row] if row.tag == "caption" else [c for c in row if c.tag in ("td", "th")]
            text = " | ".join(tidy(_shown(cell)) for cell in cells)
            if text.strip(" |"):
                yield Block(kind="table", text=text, joins=joins)
                joins = True

    def _list(self, element: Any, *, ordered: bool) -> Iterator[Block]:
        """Each item with its mark; what an item holds besides follows it."""
        number = 0
        joins = False
        self._inline.append(element.text or "")
        for item in element:
            yield from self._flush("list", joins)
            number += item.tag == "li"
            mark = f"{number}. " if ordered else "- "
            for i, block in enumerate(_Walk(self._found).inside(item)):
                if not i and block.kind in ("prose", "list"):
                    yield Block(kind="list", text=mark + block.text, joins=joins)
                else:
                    yield block
                joins = True
            self._inline.append(item.tail or "")
        yield from self._flush("list", joins)

    def _definitions(self, element: Any) -> Iterator[Block]:
        """A list of terms. In an element of class "glossary" they are entries, else items `term: text`."""
        is_glossary = "gloss" in (element.get("class") or "").lower()
        terms: list[str] = []
        for part in element.iter("dt", "dd"):
            if next(part.iterancestors("dl"), None) is not element:
                continue  # of a list inside
            if part.tag == "dt":
                terms.append(PILCROW.sub("", tidy(_shown(part))))
                continue
            blocks = list(_Walk(self._found).blocks(part))
            names = tuple(filter(None, terms))
            terms = []
            if is_glossary and names and blocks and all(b.kind != "heading" for b in blocks):
                text = "\n\n".join(b.text for b in blocks)
                yield Block(kind="glossary", text=text, terms=names)
            elif names and blocks and blocks[0].kind in ("prose", "list"):
                lead = ", ".join(names).rstrip(":")
                yield Block(kind="list", text=f"{lead}: {blocks[0].text}")
                yield from blocks[1:]
            else:
                yield from (Block(kind="list", text=name) for name in names)
                yield from blocks
        yield from (Block(kind="list", text=name) for name in terms if name)

    def _leads_away(self, element: Any, tag: str) -> bool:
        if tag in NAVIGATION or (element.get("role") or "").lower() in ROLES:
            return True
        if element.get("hidden") is not None or (element.get("aria-hidden") or "") == "true":
            return True
        named = f"{element.get('class') or ''} {element.get('id') or ''}"
        if tag in ("body", "main", "article", "html") or tag in HEADINGS:
            return False
        return NAVIGATING.search(named) is not None

    def _remove(self, element: Any, tag: str) -> None:
        text = tidy(_shown(element))
        if text.strip("¶§# "):
            named = element.get("class") or element.get("id") or element.get("role") or ""
            detail = f"<{tag}>" + (f" {tidy(named)}" if named else "")
            self._found.removed.append(Removed(reason="navigation", text=text, detail=detail))


def _is_all(element: Any, tags: tuple[str, ...]) -> bool:
    """Is all its text in elements of these tags, none inside another? Else it is read like any other element."""
    whole = count_characters(_shown(element))
    outermost = [
        e for e in element.iter(*tags) if not any(a is not element and a.tag in tags for a in _above(e, element))
    ]
    return whole == sum(count_characters(_shown(e)) for e in outermost)


def _above(element: Any, top: Any) -> Iterator[Any]:
    for ancestor in element.iterancestors():
        if ancestor is top:
            return
        yield ancestor


def _shown(element: Any) -> str:
    """Text of an element, without scripts; line breaks where it has them."""
    pieces = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str) and child.tag.lower() not in SILENT:
            pieces.append("\n" if child.tag.lower() == "br" else _shown(child))
        pieces.append(child.tail or "")
    return "".join(pieces)
