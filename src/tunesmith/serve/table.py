"""The rows that predict reads, streamed: CSV, TSV or JSON lines, with every problem by its line.

A file is read twice, first to check and hash it whole, then to answer it, and never held in memory.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.core.errors import DataError, InputError, Problem
from tunesmith.core.nouns import Message

FIELD_LIMIT = 16 << 20  # characters in one cell
SHAPES = ("text", "prompt", "instruction", "messages")  # columns a prompt may be in when none is named
SHOWN = 20  # problems listed before the rest is only counted


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    line: int  # 1-based, where the row starts
    cells: dict[str, str]  # as they are copied to the output
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A checked file. `columns` in the order in which they were met."""

    path: Path
    sha256: str
    rows: int
    columns: tuple[str, ...]
    text: str | None  # its text column; None: told from the columns

    def read(self) -> Iterator[TableRow]:
        """Raises DataError if the file changed since it was checked."""
        digest = hashlib.sha256()
        yield from _records(self.path, self.text, digest.update, [])
        if digest.hexdigest() != self.sha256:
            raise DataError("the file changed while it was being read", where=str(self.path), fix="run it again")


def check_table(path: Path, text: str | None, reject: Callable[[tuple[Message, ...]], str]) -> Table:
    """Read the whole file once. `reject` says why a prompt can't be answered, or nothing.

    Raises DataError with every problem found, by line.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=str(path), fix="give a CSV, TSV or JSONL file")
    digest = hashlib.sha256()
    problems: list[Problem] = []
    columns: dict[str, None] = {}
    rows = 0
    for row in _records(path, text, digest.update, problems):
        rows += 1
        columns.update(dict.fromkeys(row.cells))
        why = reject(row.messages)
        if why:
            problems.append(Problem(where=f"{path.name}:{row.line}" + (f": {text}" if text else ""), what=why))
    if not rows and not problems:
        problems.append(Problem(where=path.name, what="the file has no rows", fix="give a file with at least one row"))
    if problems:
        more = len(problems) - SHOWN
        shown = problems[:SHOWN]
        if more > 0:
            shown.append(Problem(where=path.name, what=f"and {more} more rows with problems"))
        raise DataError(shown)
    return Table(path=path, sha256=digest.hexdigest(), rows=rows, columns=tuple(columns), text=text)


def _records(
    path: Path, text: str | None, hashed: Callable[[bytes], None], problems: list[Problem]
) -> Iterator[TableRow]:
    with open(path, "rb") as f:
        lines = _Lines(f, path, hashed)
        if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
            yield from _json_rows(lines, path, text, problems)
        elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
            yield from _delimited_rows(lines, path, text, problems)
        else:
            raise InputError(
                f"{path.suffix or 'no'} extension is not known", where=str(path), fix="give .csv, .tsv or .jsonl"
            )


class _Lines:
    """Physical lines as text, counted, their bytes hashed. Raises DataError for bytes that are not UTF-8."""

    def __init__(self, f: BinaryIO, path: Path, hashed: Callable[[bytes], None]) -> None:
        self._f, self._path, self._hashed = f, path, hashed
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._f.readline(FIELD_LIMIT + 1)
        if not raw:
            raise StopIteration
        self._hashed(raw)
        self.number += 1
        if len(raw) > FIELD_LIMIT:
            raise DataError(f"a line is longer than {FIELD_LIMIT} bytes", where=f"{self._path.name}:{self.number}")
        try:
            line = raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as e:
            raise DataError(
                f"byte {e.start} of the line is not UTF-8",
                where=f"{self._path.name}:{self.number}",
                fix=f"convert the file: iconv -f WINDOWS-1252 -t UTF-8 {self._path.name}",
            ) from e
        if "\0" in line:
            raise DataError("the line holds a NUL character", where=f"{self._path.name}:{self.number}", fix="remove it")
        return line


def _delimited_rows(lines: _Lines, path: Path, text: str | None, problems: list[Problem]) -> Iterator[TableRow]:
    csv.field_size_limit(FIELD_LIMIT)
    first = next(lines, "")
    reader = csv.reader(_chain(first, lines), delimiter=_delimiter(path, first), strict=True)
    header = next(reader, [])
    missing = text is not None and text not in header
    if missing or len(set(header)) < len(header):
        what = f"there is no column {text!r}" if missing else "two columns have the same name"
        raise DataError(
            f"{what}; the file has: {', '.join(header)}",
            where=f"{path.name}:1",
            fix="say which column is the text: --set task.text=NAME",
        )
    while True:
        at = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            raise DataError(
                f"not readable as CSV: {e}", where=f"{path.name}:{at}", fix='write a " inside a cell twice'
            ) from e
        if not cells:
            continue  # an empty line between records
        if len(cells) != len(header):
            what = f"the row has {len(cells)} cells, the header {len(header)}"
            problems.append(Problem(where=f"{path.name}:{at}", what=what, fix="quote cells that contain the separator"))
            continue
        fields = dict(zip(header, cells, strict=True))
        try:
            messages = _messages_of(fields, text)
        except ValueError as e:
            raise DataError(str(e), where=f"{path.name}:{at}", fix="say which: --set task.text=NAME") from e
        yield from _if_said(path, at, text, fields, messages, problems)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _delimiter(path: Path, header: str) -> str:
    """By the extension; a .csv whose header has no comma but another separator is read with that one."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    return "," if "," in header else next((d for d in ";\t|" if d in header), ",")


def _json_rows(lines: _Lines, path: Path, text: str | None, problems: list[Problem]) -> Iterator[TableRow]:
    for line in lines:
        if not line.strip():
            continue
        where = f"{path.name}:{lines.number}"
        try:
            record = json.loads(line, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
            messages = _messages_of(record, text)
            json.dumps(record, ensure_ascii=False).encode()  # lone surrogates have no bytes to write
        except (ValueError, RecursionError) as e:
            problems.append(
                Problem(where=where, what=f"{e}"[:200], fix=f'one JSON object a line, with "{text or "text"}"')
            )
            continue
        cells = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in record.items()}
        yield from _if_said(path, lines.number, text, cells, messages, problems)


def _messages_of(record: Mapping[str, Any], text: str | None) -> tuple[Message, ...]:
    """The prompt of a row: its text column, or one of the shapes that training data has. Raises ValueError."""
    if text is None:
        found = [key for key in SHAPES if record.get(key) is not None]
        if len(found) != 1:
            seen = f"more than one of {', '.join(found)}" if found else f"none of {', '.join(SHAPES)}"
            raise ValueError(f"which column is the prompt is unknown: the row has {seen}")
        text = found[0]
    value = record.get(text)
    if isinstance(value, list) and text == "messages":
        return _turns(value)
    if not isinstance(value, str):
        raise ValueError(f"{text!r} is {'missing' if value is None else 'not a text'}")
    system: tuple[Message, ...] = ()
    if text == "instruction":  # as in training: the input, where there is one, follows after an empty line
        given, said = record.get("input") or "", record.get("system") or ""
        if not isinstance(given, str) or not isinstance(said, str):
            raise ValueError("'input' or 'system' is not a text")
        value = f"{value}\n\n{given}" if given.strip() else value
        system = (Message(role="system", content=said),) if said.strip() else ()
    return (*system, Message(role="user", content=value))


def _turns(turns: list[Any]) -> tuple[Message, ...]:
    """OpenAI's `messages`; an answer at the end is what is to be predicted, so it is left out."""
    out = []
    for i, turn in enumerate(turns):
        role = turn.get("role") if isinstance(turn, dict) else None
        content = turn.get("content") if isinstance(turn, dict) else None
        if role not in ("system", "user", "assistant", "tool") or not isinstance(content, str):
            raise ValueError(f"messages[{i}] needs a known role and a text as content")
        out.append(Message(role=role, content=content))
    return tuple(out[:-1] if out and out[-1].role == "assistant" else out)


def _if_said(
    path: Path,
    line: int,
    text: str | None,
    cells: dict[str, str],
    messages: tuple[Message, ...],
    problems: list[Problem],
) -> Iterator[TableRow]:
    if any(m.content.strip() for m in messages):
        yield TableRow(line=line, cells=cells, messages=messages)
    else:
        problems.append(
            Problem(
                where=f"{path.name}:{line}" + (f": {text}" if text else ""),
                what="the text is empty",
                fix="fill or remove the row",
            )
        )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def safe_cell(value: str) -> str:
    """A cell that a spreadsheet would run as a formula gets a quote before it (OWASP, CSV injection)."""
    return "'" + value if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def csv_line(cells: list[str], *, delimiter: str = ",") -> bytes:
    out = io.StringIO()
    # the module quotes a cell for the characters of its own line ending, so it must think of both
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerow([safe_cell(c) for c in cells])
    return out.getvalue().removesuffix("\r\n").encode("utf-8") + b"\n"


def whole_records(path: Path) -> tuple[int, int]:
    """How many complete records a CSV file written by us holds, and where the last of them ends, in bytes.

    A record ends at a newline outside quotes; a torn last line has none.
    """
    records = end = position = 0
    quoted = False
    with open(path, "rb") as f:
        for line in f:
            position += len(line)
            quoted ^= line.count(b'"') % 2 == 1  # a quote inside a cell is written twice
            if not quoted and line.endswith(b"\n"):
                records, end = records + 1, position
    return records, end
