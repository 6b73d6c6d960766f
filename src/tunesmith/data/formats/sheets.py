"""Excel and OpenDocument spreadsheets: one sheet, its first filled row the header; a row's line is its row number."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.extras import need
from tunesmith.data.formats.packed import MOST_RATIO, whole_file
from tunesmith.data.formats.values import plain_value, simplest
from tunesmith.data.lines import BadRecord, Fault, FileFacts, Record, excerpt

MOST_UNPACKED = 2 << 30  # bytes; a spreadsheet is held in memory


def read_sheet(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """`facts.sheet` names the sheet where several have data. Raises DataError for the file as a whole."""
    calamine = need("python_calamine", extra="tables", why=f"reading {facts.file}")
    with whole_file(path, facts) as whole:
        _refuse_bombs(whole, facts)
        try:
            with calamine.CalamineWorkbook.from_path(whole) as book:
                rows = _rows(book, facts)
        except (calamine.CalamineError, OSError) as e:
            raise DataError(
                f"cannot be read as a spreadsheet: {e}", where=facts.file, fix="save it again, without a password"
            ) from e
    facts.read_bytes = facts.bytes
    yield from _records(rows, facts)


def _rows(book: Any, facts: FileFacts) -> list[list[Any]]:
    filled = {}
    for name in book.sheet_names:
        rows = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
        if any(_is_filled(cell) for row in rows for cell in row):
            filled[name] = rows
    if facts.sheet:
        if facts.sheet not in filled:
            raise DataError(
                f"has no sheet {facts.sheet!r} with data; it has {', '.join(map(repr, filled))}",
                where=facts.file,
                fix="--set data.sheet=NAME",
            )
        return filled[facts.sheet]
    if len(filled) > 1:
        raise DataError(
            f"has {len(filled)} sheets with data: {', '.join(map(repr, filled))}",
            where=facts.file,
            fix=f"say which: --set data.sheet={next(iter(filled))}",
        )
    for name in filled:
        facts.notes.append(f"read the sheet {name!r}, the only one with data")
        return filled[name]
    raise DataError("no sheet has data", where=facts.file, fix="export the data again")


def _records(rows: list[list[Any]], facts: FileFacts) -> Iterator[Record | BadRecord]:
    facts.lines = len(rows)
    start = next(i for i, row in enumerate(rows) if any(map(_is_filled, row)))
    facts.blank_lines += start
    header = [str(_value(cell) or "").strip() for cell in rows[start]]
    while header and not header[-1]:
        header.pop()
    _refuse_header(header, f"{facts.file}:{start + 1}")
    facts.columns = header
    for number, row in enumerate(rows[start + 1 :], start + 2):
        cells = [_value(cell) for cell in row]
        if not any(map(_is_filled, cells)):
            facts.blank_lines += 1
            continue
        if any(map(_is_filled, cells[len(header) :])):
            fault = Fault(
                reason="ragged",
                what=f"has a value beyond the {len(header)} columns of the header",
                fix="name its column, or remove it",
            )
            yield BadRecord(line=number, fault=fault, text=excerpt(str(cells[0] or "")))
            continue
        cells += [None] * (len(header) - len(cells))
        yield Record(line=number, fields=dict(zip(header, cells, strict=False)))


def _refuse_header(header: list[str], where: str) -> None:
    twice = sorted({name for name in header if name and header.count(name) > 1})
    nameless = [i + 1 for i, name in enumerate(header) if not name]
    problems = []
    if twice:
        what = f"the header has {len(twice)} column name(s) more than once: {', '.join(map(repr, twice))}"
        problems.append(Problem(where=where, what=what, fix="give every column a name of its own"))
    if nameless:
        what = f"column(s) without a name: {', '.join(map(str, nameless[:8]))}"
        problems.append(Problem(where=where, what=what, fix="the first filled row must name every column"))
    if problems:
        raise DataError(problems)


def _value(cell: Any) -> Any:
    if cell == "":
        return None
    return simplest(cell) if isinstance(cell, float) else plain_value(cell)


def _is_filled(cell: Any) -> bool:
    return cell is not None and cell != "" and not (isinstance(cell, str) and not cell.strip())


def _refuse_bombs(path: Path, facts: FileFacts) -> None:
    """The formats are ZIP archives whose directory says how much each part unpacks to; calamine would hold it all."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(i.file_size for i in archive.infolist())
    packed = max(path.stat().st_size, 1)
    if unpacked > MOST_UNPACKED or (unpacked > 64 << 20 and unpacked > MOST_RATIO * packed):
        raise DataError(
            f"unpacks to {unpacked:,} bytes, {unpacked // packed} times its size",
            where=facts.file,
            fix="save the sheet as CSV",
        )
