"""Plain text: underlined or numbered headings, wrapped paragraphs, lists and listings.

Layouts: `prose`, and `faq` for files of "Q:" and "A:" lines. Glossaries are glossary.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tunesmith.data.documents.blocks import Block, Extracted, Removed, join_lines, tidy, tidy_lines, vocabulary
from tunesmith.data.documents.faq import ANSWER, MARKED, is_question

UNDERLINE = re.compile(r"^([=\-~^\"#*+])\1{2,}\s*$")
NUMBERED = re.compile(r"^(\d{1,2}(?:\.\d{1,3})*)\.?\s+\S")
CHAPTER = re.compile(r"^(chapter|appendix|part)\s+(\d+|[A-Z]|[IVXLC]+)\b[.:]?", re.I)
BULLET = re.compile(r"^(\s*)(?:[*\-+•◦▪‣–]|\(?\d{1,2}[.)]|\(?[a-z][.)])\s+(?=\S)")
RULE = re.compile(r"^\s*([-=_*~])\1{3,}\s*$")
CONTENTS = re.compile(r"^\s*(table of contents|contents)\s*:?\s*$", re.I)
ENTRY = re.compile(r"^\s*(?:\d+(?:\.\d+)*\.?|[A-Z]\.|chapter\s|appendix\s)\s*\S|(?:\.\s?){4,}\s*\d+\s*$", re.I)
PROMPT = re.compile(r"^\s*(?:[$#%]\s|>>>\s|\w+@\w+[:~$])")
CODE_WIDTH = 45  # characters: a wrapped paragraph has most of its lines longer
HEADING_WORDS = 30


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines between empty lines."""

    lines: tuple[str, ...]

    @property
    def indent(self) -> int:
        return min(len(line) - len(line.lstrip()) for line in self.lines)


def read_text(text: str, layout: str, why: str) -> Extracted:
    found = Extracted(format="text", layout=layout, why=why)
    chunks = list(_chunks(text))
    known = vocabulary(text)
    if layout == "faq":
        found.blocks = list(_questions(chunks, known))
        return found
    usual = _usual_indent(chunks)
    at = 0
    while at < len(chunks):
        chunk = chunks[at]
        if CONTENTS.match(chunk.lines[0]):
            at = _skip_contents(chunks, at, found.removed)
            continue
        if len(chunk.lines) == 1 and RULE.match(chunk.lines[0]):
            found.removed.append(Removed(reason="rule", text=chunk.lines[0].strip()))
        else:
            found.blocks += _blocks(chunk, usual, known)
        at += 1
    return found


def looks_like_faq(lines: Sequence[str]) -> bool:
    """At least three "Q:" lines, each followed by an "A:" line before the next."""
    marks = ["q" if MARKED.match(line) else "a" for line in lines if MARKED.match(line) or ANSWER.match(line)]
    return marks.count("q") >= 3 and marks == ["q", "a"] * marks.count("q")


def _chunks(text: str) -> Iterator[Chunk]:
    lines: list[str] = []
    for line in text.replace("\f", "\n\n").splitlines():
        if line.strip():
            lines.append(line.expandtabs(8).rstrip())
        elif lines:
            yield Chunk(tuple(lines))
            lines = []
    if lines:
        yield Chunk(tuple(lines))


def _usual_indent(chunks: Iterable[Chunk]) -> int:
    """Where most lines that are long enough to be prose begin."""
    counts: dict[int, int] = {}
    for chunk in chunks:
        if any(len(line) > CODE_WIDTH for line in chunk.lines):
            counts[chunk.indent] = counts.get(chunk.indent, 0) + len(chunk.lines)
    return max(counts, key=lambda i: (counts[i], -i), default=0)


def _blocks(chunk: Chunk, usual: int, known: set[str]) -> Iterator[Block]:
    heading, rest = _heading(chunk.lines, known)
    if heading is not None:
        yield heading
    if not rest:
        return
    if BULLET.match(rest[0]):
        yield from _items(rest, known)
    elif _is_listing(rest, usual):
        yield Block(kind="code", text=tidy_lines("\n".join(rest)))
    else:
        first = next((i for i, line in enumerate(rest) if _opens_list(rest, i)), len(rest))
        yield Block(kind="prose", text=join_lines(rest[:first], known))
        if first < len(rest):
            yield from _items(rest[first:], known)


def _opens_list(lines: Sequence[str], i: int) -> bool:
    """A bullet below a line that introduces it; a dash inside wrapped prose is not one."""
    return i > 0 and BULLET.match(lines[i]) is not None and lines[i - 1].rstrip().endswith(":")


def _heading(lines: tuple[str, ...], known: set[str]) -> tuple[Block | None, tuple[str, ...]]:
    """The heading that the lines begin with, and what follows it."""
    first = lines[0]
    if len(lines) >= 3 and UNDERLINE.match(lines[2].strip()) and lines[0].strip() == lines[2].strip():
        return Block(kind="heading", text=tidy(lines[1]), level=1), lines[3:]  # over- and underlined
    if len(lines) >= 2 and UNDERLINE.match(lines[1].strip()) and not UNDERLINE.match(first.strip()):
        wide = len(lines[1].strip()) >= min(len(first.strip()), 3)
        if wide and len(first.split()) <= HEADING_WORDS:
            level = 1 if lines[1].strip()[0] in "=#*" else 2
            return Block(kind="heading", text=tidy(first), level=level), lines[2:]
    if first.startswith((" ", "\t")):
        return None, lines
    whole = join_lines(lines, known)
    if len(whole.split()) > HEADING_WORDS or len(lines) > 4:
        return None, lines
    if CHAPTER.match(whole):
        return Block(kind="heading", text=whole, level=1), ()
    number = NUMBERED.match(whole)
    if number and (is_question(whole) or whole[-1] not in ".,;:!"):
        return Block(kind="heading", text=whole, level=1 + number.group(1).count(".")), ()
    if len(lines) == 1 and whole.isupper() and len(whole) > 3 and whole[-1] not in ".,;:":
        return Block(kind="heading", text=whole, level=1), ()
    return None, lines


def _items(lines: Sequence[str], known: set[str]) -> Iterator[Block]:
    item: list[str] = []
    joins = False
    for line in lines:
        if BULLET.match(line) and item:
            yield Block(kind="list", text=join_lines(item, known), joins=joins)
            item, joins = [], True
        item.append(line)
    yield Block(kind="list", text=join_lines(item, known), joins=joins)


def _is_listing(lines: Sequence[str], usual: int) -> bool:
    """Set deeper than the prose, short lines, and no sentence at its end; or a prompt in front."""
    deeper = min(len(line) - len(line.lstrip()) for line in lines) > usual
    if any(PROMPT.match(line) for line in lines[: None if deeper else 1]):
        return True
    short = sum(len(line.strip()) < CODE_WIDTH for line in lines)
    return deeper and 2 * short > len(lines) and lines[-1].rstrip()[-1] not in ".!?:,"


def _skip_contents(chunks: Sequence[Chunk], at: int, removed: list[Removed]) -> int:
    """Past a table of contents: what follows its title, as long as most lines look like entries."""
    taken = list(chunks[at].lines)
    at += 1
    while at < len(chunks):
        lines = chunks[at].lines
        entries = sum(ENTRY.search(line) is not None for line in lines)
        if len(lines) < 2 or 2 * entries < len(lines):
            break
        taken += lines
        at += 1
    removed.append(Removed(reason="contents", text="\n".join(taken), detail=f"{len(taken)} lines"))
    return at


def _questions(chunks: Iterable[Chunk], known: set[str]) -> Iterator[Block]:
    """Each "Q:" a heading, what follows "A:" its text."""
    for chunk in chunks:
        rest: list[str] = []
        asking = False
        for line in chunk.lines:
            if question := MARKED.match(line):
                yield from _paragraph(rest, known)
                rest, asking = [question.group(1)], True
                continue
            answer = ANSWER.match(line)
            if answer and asking:
                yield Block(kind="heading", text=join_lines(rest, known), level=6)
                rest, asking = [answer.group(1)], False
            elif answer:
                rest.append(answer.group(1))
            else:
                rest.append(line)
        if asking:
            yield Block(kind="heading", text=join_lines(rest, known), level=6)
        else:
            yield from _paragraph(rest, known)


def _paragraph(lines: Sequence[str], known: set[str]) -> Iterator[Block]:
    kept = [line for line in lines if line.strip()]
    if not kept:
        return
    if BULLET.match(kept[0]):
        yield from _items(kept, known)
    else:
        yield Block(kind="prose", text=join_lines(kept, known))
