"""What every reader hands over: the blocks of a document in reading order, and what it removed on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")


class Unreadable(Exception):
    """Why a whole file cannot be read; becomes a Problem or a record in left_out.jsonl."""

    def __init__(self, reason: str, what: str, fix: str) -> None:
        super().__init__(what)
        self.reason, self.what, self.fix = reason, what, fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A heading, a paragraph, a list item, a table row, a listing or a glossary entry."""

    kind: str  # "heading", "prose", "list", "table", "code", "glossary"
    text: str
    level: int = 0  # of a heading, 1 is the top
    page: int | None = None  # 1-based
    joins: bool = False  # stands on the line after the block before it: list items, table rows
    terms: tuple[str, ...] = ()  # of a glossary entry
    see: tuple[str, ...] = ()  # of a glossary entry that only refers to others


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """Text that a reader took out: it repeats on every page, or leads elsewhere."""

    reason: str  # "running_head", "navigation", "contents", ...
    text: str
    detail: str = ""
    page: int | None = None
    count: int = 1
    characters: int | None = None  # None: those of `text`


@dataclass(slots=True, kw_only=True)
class Extracted:
    """One document, read."""

    format: str  # "pdf", "docx", "html", "markdown", "text", "glossary"
    layout: str = "prose"
    why: str = ""  # how the layout was found
    title: str = ""
    pages: int | None = None
    blocks: list[Block] = field(default_factory=list)
    removed: list[Removed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was decided, as sentences


@dataclass(frozen=True, slots=True)
class Span:
    """A block's place in the extracted text."""

    start: int
    end: int
    block: Block


def lay_out(blocks: Iterable[Block]) -> tuple[str, list[Span]]:
    """The extracted text and each block's place in it. Blocks stand apart by an empty line or a line break."""
    pieces: list[str] = []
    spans: list[Span] = []
    at = 0
    for block in blocks:
        if pieces:
            gap = "\n" if block.joins else "\n\n"
            pieces.append(gap)
            at += len(gap)
        pieces.append(block.text)
        spans.append(Span(at, at + len(block.text), block))
        at += len(block.text)
    return "".join(pieces), spans


def count_words(text: str) -> int:
    """White space parts words; in Chinese, Japanese and Korean each character counts as one."""
    return len(text.split()) if text.isascii() else len(WORD.findall(text))


def count_characters(text: str) -> int:
    """Without white space."""
    return len("".join(text.split()))


def tidy(text: str) -> str:
    """One line: white space folded, control characters gone."""
    return " ".join(CONTROLS.sub("", text).split())


def tidy_lines(text: str) -> str:
    """Line breaks and indentation kept, as in listings; no trailing space, no empty line at either end."""
    lines = [CONTROLS.sub("", line).expandtabs(4).rstrip() for line in text.splitlines()]
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    shift = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return "\n".join(line[shift:] for line in lines)


HYPHENATED = re.compile(r"([^\W\d_]{2,})[-\xad\u2010]$")
HYPHENS = "-\xad\u2010"
OPENS_WORD = re.compile(r"[^\W\d_]+")
NEAR = 160  # characters before a line break that decide how the lines are joined
SCHEME = re.compile(r"\b(?:https?|ftp):$", re.I)
MARKS_OF_PATHS = re.compile(r"[./_~#?=&%]")


def join_lines(lines: Sequence[str], known: frozenset[str] | set[str]) -> str:
    """Lines of one paragraph as one line. `known`: the document's words in lower case, which decide whether a
    hyphen at a line's end parts one word (`admin-istrator`) or belongs to it (`work-needing`)."""
    whole = ""
    for line in map(tidy, lines):
        if not line:
            continue
        if not whole:
            whole = line
            continue
        near = whole[-NEAR:]  # else a long paragraph is searched through for each of its lines
        stem = HYPHENATED.search(near) if near[-1] in HYPHENS else None
        tail = OPENS_WORD.match(line)
        if stem and tail and tail.group()[0].islower():
            whole = (whole if _keeps_hyphen(stem, tail, near, known) else whole[:-1]) + line
        elif _inside_url(near, line):
            whole += line
        else:
            whole += " " + line
    return whole


def _keeps_hyphen(stem: re.Match[str], tail: re.Match[str], near: str, known: frozenset[str] | set[str]) -> bool:
    if near.endswith("\xad"):
        return False  # a soft hyphen only ever parts a word
    first, second = stem.group(1).lower(), tail.group().lower()
    if first + second in known:
        return False
    return f"{first}-{second}" in known or near[stem.start(1) - 1 : stem.start(1)] == "-"


def _inside_url(near: str, line: str) -> bool:
    """An address or a path that was broken at the line's end. After an address a plain word begins something new."""
    last = near.rsplit(maxsplit=1)[-1]
    if "://" not in last:
        if last.endswith("/"):
            return len(last) > 1 and line[0].isalnum()
        return line.startswith("//") and SCHEME.search(last) is not None
    goes_on = line.split(maxsplit=1)[0]
    is_part = MARKS_OF_PATHS.search(goes_on[:-1]) is not None
    if last[-1] == ".":
        return line[0].islower() and is_part
    if last[-1] == "/":
        return is_part or last.endswith("//")
    return last[-1] in "#?=&_-" or (line[0] in "/#?&" and len(goes_on) > 1)


def vocabulary(text: str) -> set[str]:
    """Words of a document in lower case, those with hyphens whole and in parts."""
    return {w.lower() for w in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", text)}
