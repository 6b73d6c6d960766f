"""Glossaries as text: dictd's foldoc layout, `term: definition` lines, and tables of two columns.

foldoc layout (The Free On-line Dictionary of Computing): names of an entry in the first column, one a line, an empty
line, then the definition set in:

    Abstract Syntax Notation 1
    ASN.1

       <language, standard> (ASN.1) An {ISO} {standard} ...

       (1998-03-03)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith.data.documents.blocks import (
    Block,
    Extracted,
    Removed,
    count_characters,
    join_lines,
    tidy,
    tidy_lines,
    vocabulary,
)

SUBJECT = re.compile(r"^\s*(?:\d+\.\s*)?<[a-z][^<>\n]{1,80}>")
DATE = re.compile(r"^\((?:\d{4}-\d{2}-\d{2}|\d{4})\)$")
CREDIT = re.compile(r"^\[(?:\{[^{}\]]*\}|[^{}\]]*)\]$")
REFERENCE = re.compile(r"\{([^{}\s][^{}]*)\}")
EMPHASIS = re.compile(r"__(\w[^_\n]*)__")
WITH_ADDRESS = re.compile(r"^(.*?)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)$", re.S)
TERM = re.compile(r"^([^\s:#/][^:]{0,79}?)\s*(?::(?!//)|\s[-–—])\s+(\S.*)$")
ADDRESS = re.compile(r"^[\[{(]{1,3}\w+://")  # too long to be set in: it goes on with the definition
TSV_HEADER = {"term", "word", "name", "headword", "abbreviation", "acronym", "key"}
DATABASE = "00-database"
CONTENT_FREE = re.compile(
    r"^(?:(?:\(?[0-9]{1,2}\.\)?|<[^<>]*>|see|see also|also|or|and|synonyms?|of|a|an|the)[\s,;.:]*)*$", re.I
)


@dataclass(frozen=True, slots=True)
class Entry:
    terms: tuple[str, ...]
    body: tuple[str, ...]  # lines


def looks_like_foldoc(lines: Sequence[str]) -> int:
    """How many entries with a subject field there are, or 0 if they are fewer than three in ten."""
    entries = 0
    with_subject = 0
    for entry in _entries(lines):
        entries += bool(entry.body)
        with_subject += bool(entry.body) and SUBJECT.match(entry.body[0]) is not None
    return with_subject if entries >= 3 and 10 * with_subject >= 3 * entries else 0


def looks_like_terms(lines: Sequence[str]) -> int:
    """How many `term: definition` lines there are, or 0 if fewer than seven in ten paragraphs begin with one."""
    heads = [line for line in lines if line.strip() and not line[0].isspace()]
    terms = [m.group(1) for line in heads if (m := TERM.match(line)) and len(m.group(1).split()) <= 8]
    wordy = sum(len(line.split()) >= 5 for line in heads)
    if len(terms) < 5 or 10 * len(terms) < 7 * len(heads) or 2 * wordy < len(heads):
        return 0
    return len(terms) if 20 * len(set(terms)) >= 19 * len(terms) else 0  # else they are speakers or keys, not terms


def read_foldoc(text: str, layout: str, why: str) -> Extracted:
    found = Extracted(format="glossary", layout=layout, why=why)
    lines = text.splitlines()
    known = vocabulary(text)
    tally = _Tally()
    for entry in _entries(lines):
        if entry.terms[0].startswith(DATABASE):
            detail = "about the database, not an entry of it"
            shown = "\n".join((*entry.terms, *entry.body))
            found.removed.append(Removed(reason="database_info", text=shown, detail=detail))
            continue
        body = _definition(entry, known, tally)
        if body is None:
            shown = "\n".join((*entry.terms, *entry.body))
            found.removed.append(Removed(reason="no_definition", text=shown, detail="a name without a definition"))
        else:
            found.blocks.append(body)
    found.removed += tally.removed()
    found.notes.append("cross-references in braces are read as plain words")
    return found


def read_terms(text: str, why: str) -> Extracted:
    """Lines of `term: definition`; lines that are set in, or hold no term, go on with the definition."""
    found = Extracted(format="glossary", layout="terms", why=why)
    known = vocabulary(text)
    term, body = "", list[str]()

    def close() -> None:
        if term:
            block = Block(kind="glossary", text=join_lines(body, known), terms=(tidy(term),))
            found.blocks.append(block)
        elif any(map(str.strip, body)):
            found.blocks.append(Block(kind="prose", text=join_lines(body, known)))

    blank = True
    for line in text.splitlines():
        head = TERM.match(line)
        if head and len(head.group(1).split()) <= 8:
            close()
            term, body = head.group(1), [head.group(2)]
        elif blank and line.strip() and not line[0].isspace():
            close()
            term, body = "", [line]
        else:
            body.append(line)
        blank = not line.strip()
    close()
    return found


def read_tsv(text: str, why: str) -> Extracted:
    """Two columns, term and definition; a header is known by its first cell."""
    found = Extracted(format="glossary", layout="tsv", why=why)
    for number, line in enumerate(text.splitlines(), 1):
        cells = [tidy(cell) for cell in line.split("\t")]
        if not any(cells):
            continue
        if number == 1 and cells[0].lower() in TSV_HEADER:
            found.removed.append(Removed(reason="header", text=line))
        elif len(cells) != 2 or not all(cells):
            detail = f"line {number} has {sum(map(bool, cells))} filled columns, not term and definition"
            found.removed.append(Removed(reason="columns", text=line, detail=detail))
        else:
            found.blocks.append(Block(kind="glossary", text=cells[1], terms=(cells[0],)))
    return found


def _entries(lines: Sequence[str]) -> Iterator[Entry]:
    """An entry begins with a line in the first column after an empty line (or at the start)."""
    terms: list[str] = []
    body: list[str] = []
    blank = True
    for line in lines:
        opens = bool(line.strip()) and not line[0].isspace() and not ADDRESS.match(line)
        if opens and blank:
            if terms:
                yield Entry(tuple(terms), tuple(body))
            terms, body = [tidy(line)], []
        elif opens and not body and not blank:
            terms.append(tidy(line))
        elif (line.strip() and terms) or body:
            body.append(line)
        blank = not line.strip()
    if terms:
        yield Entry(tuple(terms), tuple(body))


class _Tally:
    """What is taken out of every entry, counted."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._characters: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def take(self, reason: str, text: str) -> None:
        self._counts[reason] += 1
        self._characters[reason] += count_characters(text)
        self._first.setdefault(reason, text)

    def removed(self) -> Iterator[Removed]:
        for reason in sorted(self._counts):
            n = self._counts[reason]
            yield Removed(
                reason=reason,
                text=self._first[reason],
                detail=f"{n:,} of them; this is the first",
                count=n,
                characters=self._characters[reason],
            )


def _definition(entry: Entry, known: set[str], tally: _Tally) -> Block | None:
    """The entry's text, its paragraphs unwrapped. Dates of change and credits are counted and go."""
    paragraphs: list[str] = []
    wrapped: list[str] = []
    usual = min((_indent(line) for line in entry.body if line.strip() and line[0].isspace()), default=0)
    for line in (*entry.body, ""):
        if line.strip():
            wrapped.append(line)
            continue
        whole = join_lines(wrapped, known)
        deeper = bool(wrapped) and min(map(_indent, wrapped)) > usual
        shown = tidy_lines("\n".join(wrapped)) if deeper else whole  # a drawing or a listing
        wrapped = []
        if not whole:
            continue
        if DATE.match(whole):
            tally.take("entry_date", whole)
        elif CREDIT.match(whole):
            tally.take("credit", whole)
        else:
            paragraphs.append(shown)
    raw = "\n\n".join(paragraphs)
    text = EMPHASIS.sub(r"\1", REFERENCE.sub(_plain_reference, raw)).strip("\n").rstrip()
    if not text.strip():
        return None
    targets = tuple(dict.fromkeys(_target(m.group(1)) for m in REFERENCE.finditer(raw)))
    only_refers = bool(targets) and CONTENT_FREE.match(REFERENCE.sub("", raw)) is not None
    return Block(kind="glossary", text=text, terms=entry.terms, see=targets if only_refers else ())


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _plain_reference(found: re.Match[str]) -> str:
    """`{shell}` is shell; `{home (http://x)}` keeps its address in brackets; `{(http://x)}` is the address."""
    inside = found.group(1)
    address = WITH_ADDRESS.match(inside)
    if address and ("://" in address.group(2) or address.group(2).endswith((".html", ".htm"))):
        shown = address.group(1).strip()
        if "://" not in address.group(2):
            return shown or address.group(2)
        return f"{shown} ({address.group(2)})" if shown else address.group(2)
    return inside


def _target(inside: str) -> str:
    address = WITH_ADDRESS.match(inside)
    return address.group(1) if address and "://" in address.group(2) else inside
