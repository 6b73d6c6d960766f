"""CSV and TSV: the standard csv module, strict, with nothing repaired in passing."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.formats.packed import open_source
from tunesmith.data.lines import (
    LINE_LIMIT,
    BadRecord,
    Fault,
    FileFacts,
    Line,
    Record,
    excerpt,
    physical_lines,
)

NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


class _Feed:
    """Gives the csv module one line at a time and keeps what is wrong with the bytes it took."""

    def __init__(self, f: BinaryIO, facts: FileFacts) -> None:
        self._lines = physical_lines(f, facts, keep_ends=True)
        self.taken: list[Line] = []
        self.pushed_back: Line | None = None

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line, self.pushed_back = self.pushed_back or next(self._lines), None
        self.taken.append(line)
        return line.text


def read_delimited(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """Records by column name, then rows that are ragged, broken or wrongly quoted.

    Raises DataError when the header cannot be used, since no row can be named without it.
    """
    csv.field_size_limit(LINE_LIMIT)
    with open_source(path, facts) as f:
        feed = _Feed(f, facts)
        facts.delimiter = _delimiter(path, feed, facts)
        reader = csv.reader(feed, delimiter=facts.delimiter, strict=True)
        facts.columns = header = _header(reader, feed, facts)
        width = len(header)
        while True:
            feed.taken.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as e:
                yield _quoting(feed.taken, e)
                continue
            first, span = feed.taken[0], len(feed.taken)
            if span > facts.longest_record[0]:
                facts.longest_record = (span, first.number)
            fault = next((line.fault for line in feed.taken if line.fault), None)
            if fault is not None:
                yield BadRecord(line=first.number, fault=fault, text=excerpt(first.text), lines=span)
            elif not cells or (len(cells) == 1 and width > 1 and not cells[0].strip()):
                facts.blank_lines += span
            elif len(cells) != width:
                fault = _ragged(cells, header, span)
                yield BadRecord(line=first.number, fault=fault, text=excerpt(first.text), lines=span)
            else:
                yield Record(line=first.number, fields=dict(zip(header, cells, strict=True)), lines=span)


def _delimiter(path: Path, feed: _Feed, facts: FileFacts) -> str:
    """By the extension; a .csv whose header has no comma but another separator is read with that one."""
    if facts.format == "tsv":
        return "\t"
    for text in feed:
        if text.strip():
            break
        facts.blank_lines += 1
    else:
        return ","
    feed.pushed_back = line = feed.taken[-1]
    outside = "".join(line.text.split('"')[::2])  # quoted names may hold any character
    if "," in outside:
        return ","
    best = max(";\t|", key=outside.count)
    if best not in outside:
        return ","
    facts.notes.append(
        f"read with {NAMES[best]} as delimiter: the header has no comma, but {outside.count(best)} of these"
    )
    return best


def _header(reader: Iterator[list[str]], feed: _Feed, facts: FileFacts) -> list[str]:
    header: list[str] = []
    try:
        while not header:
            feed.taken.clear()
            header = next(reader)
            facts.blank_lines += not header
    except StopIteration:
        raise DataError(
            "the file is empty", where=facts.file, fix="write a header line with the column names, then one row a line"
        ) from None
    except csv.Error as e:
        fix = "save the file with Unix or Windows line breaks" if "new-line" in str(e) else "check the quotes of line 1"
        raise DataError(f"the header cannot be read: {e}", where=f"{facts.file}:{feed.taken[0].number}", fix=fix) from e
    where = f"{facts.file}:{feed.taken[0].number}"
    fault = next((line.fault for line in feed.taken if line.fault), None)
    if fault is not None:
        raise DataError(f"the header cannot be read: {fault.what}", where=where, fix=fault.fix)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            Problem(
                where=where,
                what=f"the header has {len(twice)} column name(s) more than once: {', '.join(map(repr, twice))}",
                fix="give every column a name of its own",
            )
        )
    return header


def _ragged(cells: list[str], header: list[str], span: int) -> Fault:
    over = f" (the row spans {span} lines: is a quote left open?)" if span > 1 else ""
    fix = (
        "put quotes around values that hold the delimiter, a quote or a line break"
        if len(cells) > len(header)
        else "add the missing values, empty ones too"
    )
    return Fault(reason="ragged", what=f"{len(cells)} values, but the header has {len(header)} columns{over}", fix=fix)


def _quoting(taken: list[Line], error: csv.Error) -> BadRecord:
    first, last = taken[0].number, taken[-1].number
    fault = next((line.fault for line in taken if line.fault), None)
    if first == last and fault is not None:
        return BadRecord(line=first, fault=fault, text=excerpt(taken[0].text))
    if first == last and "new-line" in str(error):
        fault = Fault(
            reason="lone_cr",
            what="a carriage return in the middle of the line",
            fix="put quotes around the value, or save the file with Unix or Windows line breaks",
        )
        return BadRecord(line=first, fault=fault, text=excerpt(taken[0].text))
    if first == last:
        fault = Fault(
            reason="quoting", what=f"wrongly quoted: {error}", fix='double a quote inside quotes: "say ""hi"""'
        )
        return BadRecord(line=first, fault=fault, text=excerpt(taken[0].text))
    fault = Fault(
        reason="open_quote",
        what=f"a quote is opened and not properly closed until line {last}: where rows begin and end is unknown ({error})",
        fix="close the quote, or double it if it belongs to the text; data.bad_rows cannot help here",
    )
    return BadRecord(line=first, fault=fault, text=excerpt(taken[0].text), lines=len(taken), loses_place=True)
