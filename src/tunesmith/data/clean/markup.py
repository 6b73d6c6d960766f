"""HTML to text: paragraphs, list items, table rows and the words of links stay; tags, scripts and styles go.

Only known element names count as tags, so `a < b`, `<your name>` and `List<String>` are text; so is what stands in
code fences and between backticks. A text is taken for HTML if it opens and closes an element, or breaks a line
with one. Entities become characters, except those that spell `<`, `>` or `&`: they would make new tags, and belong
to the step unescape. Written by hand because a parser that repairs HTML "repairs" text that is none.

Tokens are found by one pass from left to right, in time proportional to the text.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_ROUNDS = 20

_INLINE = "a abbr acronym b bdi bdo big center cite code data del dfn em font i ins kbd label mark meta link nobr o:p q rp rt ruby s samp small span strike strong sub sup time tt u var wbr base button input img map area picture source svg path g iframe embed object param canvas audio video track noscript select option optgroup textarea basefont bgsound blink marquee noframes frame frameset"  # fmt: skip
_BLOCK = "address article aside blockquote body caption dd details dir div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html legend li main menu nav ol p pre section summary table tbody td tfoot th thead title tr ul col colgroup"  # fmt: skip
_UNSEEN = "script style template"  # what is between their tags is no text
_PARAGRAPH = frozenset(["p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "dl", "table", "pre", "hr", "title", "article", "section", "header", "footer", "form", "fieldset", "figure", "details", "menu", "dir"])  # fmt: skip
_BLOCKS = frozenset([*_BLOCK.split(), "br"])
_LINES = _BLOCKS - _PARAGRAPH - {"td", "th"}

_NAMES = "|".join(sorted([*_INLINE.split(), *_BLOCK.split(), *_UNSEEN.split(), "br"], key=lambda n: (-len(n), n)))
# quoted attribute values may hold > ; they are bounded and possessive, so that no text makes this slow
_TAG = re.compile(
    rf"<(?P<close>/)?(?P<name>{_NAMES})(?:[\s/](?:[^<>\"']|\"[^\"<]{{0,2000}}\"|'[^'<]{{0,2000}}')*+[\"']?)?+>"
    r"|<!--|<!\[|<\?xml|<!doctype",
    re.IGNORECASE,
)
_MAYBE = re.compile(r"<[a-zA-Z!?/]")
_CODE = re.compile(r"(?m)^[ \t]*```[^\n]*\n(?:(?![ \t]*```)[^\n]*\n)*+[ \t]*```|`[^`\n<]{0,80}<[^`\n]{0,400}`")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SPACE = re.compile(r"[ \t\r\n\f]+")
_BLANK_LINE = re.compile(r"\n[ \t]*\r?\n")


def html(texts: list[str]) -> list[str]:
    return [text if "<" not in text or _MAYBE.search(text) is None else to_text(text) for text in texts]


def to_text(text: str) -> str:
    """Until no tag is left, so that a second cleaning finds none. Each round makes the text shorter."""
    now = text
    for _ in range(MOST_ROUNDS):
        tokens = list(_tokens(now))
        after = _written(tokens) if _is_markup(tokens) else now
        if len(after) >= len(now):
            return now
        now = after
    return text  # tags made of tags without end, as nobody's page has them


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """("text", what it says), ("open" or "close", element), ("code", text that is left as it is)."""
    fences = [m.span() for m in _CODE.finditer(text)] if "`" in text else []
    at = 0
    missing: set[str] = set()  # terminators that do not come any more
    while match := _TAG.search(text, at):
        start, end = match.span()
        while fences and fences[0][1] <= start:
            fences.pop(0)
        if fences and fences[0][0] <= start:
            begin, stop = fences.pop(0)
            yield "text", text[at:begin]
            yield "code", text[begin:stop]
            at = stop
            continue
        yield "text", text[at:start]
        name = (match["name"] or "").lower()
        if not name:
            at = _end_of(text, end, "-->" if match[0] == "<!--" else ">", missing)
            yield ("comment", "") if at > end else ("text", text[start:end])
        elif name in _UNSEEN.split() and not match["close"]:
            at = _end_of(text, end, f"</{name}>", missing)
            yield ("open", name) if at == end else ("unseen", name)
        else:
            yield "close" if match["close"] else "open", name
            at = end
    yield "text", text[at:]


def _end_of(text: str, at: int, terminator: str, missing: set[str]) -> int:
    """Past the terminator; `at` where there is none."""
    if terminator in missing:
        return at
    found = text.find(terminator, at)
    if found < 0 and terminator.startswith("</"):
        match = re.compile(rf"{terminator[:-1]}\s*>", re.IGNORECASE).search(text, at)
        if match:
            return match.end()
    if found < 0:
        missing.add(terminator)
        return at
    return found + len(terminator)


def _is_markup(tokens: list[tuple[str, str]]) -> bool:
    opened: set[str] = set()
    for kind, name in tokens:
        if kind == "unseen" or (kind == "open" and name in ("br", "html", "body")):
            return True
        if kind == "open":
            opened.add(name)
        elif kind == "close" and name in opened:
            return True
    return False


@dataclass(slots=True)
class _Writer:
    """Text with at most one blank line at a time. `folds`: white space of the source means one space."""

    folds: bool
    out: list[str] = field(default_factory=list)
    breaks: int = 0  # line breaks owed before the next word
    is_start: bool = True  # of a line
    cell: bool = False  # a table cell was there before, on this line

    def say(self, text: str) -> None:
        if "&" in text:
            text = _ENTITY.sub(_character, text)
        if not self.folds:
            self.verbatim(text)
            return
        text = _SPACE.sub(" ", text)
        if self.is_start or self.breaks or (self.out and self.out[-1].endswith(" ")):
            text = text.removeprefix(" ")
        if text:
            self._pay()
            self.out.append(text)

    def verbatim(self, text: str) -> None:
        if self.breaks and text.strip():
            text = text.removeprefix("\r").removeprefix("\n")
        if text.strip() or not self.breaks:
            self._pay()
            self.out.append(text)
            self.is_start = False

    def owe(self, breaks: int) -> None:
        if self.out and self.out[-1].endswith(" ") and self.folds:
            self.out[-1] = self.out[-1].rstrip(" ")
        self.breaks = max(self.breaks, breaks)
        self.cell = False

    def br(self) -> None:
        """One line break more than before, up to a blank line."""
        self.owe(min(self.breaks + 1, 2))

    def mark(self, sign: str) -> None:
        self._pay()
        self.out.append(sign)
        self.is_start = True

    def next_cell(self) -> None:
        if self.cell and not self.breaks:
            self.out.append("\t")
        self.cell = self.is_start = True

    def _pay(self) -> None:
        if self.breaks and self.out:
            self.out.append("\n" * self.breaks)
        self.breaks = 0
        self.is_start = False


def _character(match: re.Match[str]) -> str:
    said = entities.unescape(match[0])
    if said == "&":  # safe where it does not begin another entity
        following = "&" + match.string[match.end() : match.end() + 32].partition("&")[0]
        return said if entities.unescape(following) == following else match[0]
    return match[0] if any(c in said for c in "<>&") else said


def _written(tokens: list[tuple[str, str]]) -> str:
    is_page = any(name in _BLOCKS and name != "br" for kind, name in tokens if kind in ("open", "close"))
    writer = _Writer(folds=is_page)
    lists: list[int] = []  # of each open list, the number of its last item; -1: not numbered
    pre = 0
    for kind, name in tokens:
        if kind == "text":
            writer.verbatim(name) if pre else writer.say(name)
        elif kind == "code":
            writer.verbatim(name)
        elif kind in ("open", "close"):
            if name == "pre":
                pre = max(0, pre + (1 if kind == "open" else -1))
            _element(writer, lists, name, is_open=kind == "open")
    return "".join(writer.out).strip("\n") if is_page else "".join(writer.out)


def _element(writer: _Writer, lists: list[int], name: str, *, is_open: bool) -> None:
    if name in ("ul", "ol", "menu", "dir"):
        if is_open:
            writer.owe(1 if lists else 2)
            lists.append(0 if name == "ol" else -1)
        else:
            if lists:
                lists.pop()
            writer.owe(1 if lists else 2)
    elif name == "li" and is_open:
        writer.owe(1)
        if lists and lists[-1] >= 0:
            lists[-1] += 1
            writer.mark(f"{lists[-1]}. ")
        else:
            writer.mark("- ")
    elif name in ("td", "th"):
        if is_open:
            writer.next_cell()
    elif name == "br":
        writer.br()
    elif name in _PARAGRAPH:
        writer.owe(2)
    elif name in _LINES:
        writer.owe(1)
