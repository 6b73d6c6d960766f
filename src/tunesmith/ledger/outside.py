"""The user's own files that hold what was forgotten. They are the user's: read, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.core.canonical import file_id
from tunesmith.ledger import opaque
from tunesmith.ledger.records_of import form_of
from tunesmith.ledger.redact import SHOWN_LINES, Standing, redact
from tunesmith.ledger.sought import Sought
from tunesmith.ledger.stock import BINARY, Stock


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    file: str
    count: int  # places in it
    lines: tuple[int, ...]  # the first 20; empty where the file has no lines
    unread: str = ""  # why the file could not be looked into

    def __str__(self) -> str:
        if self.unread:
            return f"{self.file}: could not be looked into: {self.unread}"
        if not self.lines:
            return self.file
        more = f" and {self.count - len(self.lines)} more" if self.count > len(self.lines) else ""
        return f"{self.file}:{', '.join(str(n) for n in self.lines)}{more}"


def look_outside(
    files: Mapping[str, Path], sought: Sought, stock: Stock, erased: Mapping[str, tuple[int, ...]]
) -> tuple[Outside, ...]:
    """`erased`: of files that were taken in and redacted since, the lines that held it; a copy still does."""
    found = []
    firsts = {sha for sha, _ in sought.places}
    for name, path in sorted(files.items()):
        if not path.is_file() or path.suffix in BINARY:
            continue
        try:
            seen = _look(name, path, sought, stock, firsts, erased)
        except opaque.Unread as e:
            seen = Outside(file=name, count=0, lines=(), unread=str(e))
        except OSError as e:
            seen = Outside(file=name, count=0, lines=(), unread=e.strerror or type(e).__name__)
        if seen is not None:
            found.append(seen)
    return tuple(found)


def _look(
    name: str, path: Path, sought: Sought, stock: Stock, firsts: set[str], erased: Mapping[str, tuple[int, ...]]
) -> Outside | None:
    sha256 = file_id(path) if firsts or erased else ""
    lines = frozenset(line for first, line in sought.places if first == sha256) | frozenset(erased.get(sha256, ()))
    with open(path, "rb") as f:
        form = form_of(name, f)
        if form == "opaque":
            holds = bool(lines) or opaque.holds(path, name, sought)
            return Outside(file=name, count=1, lines=()) if holds else None
        standing = Standing(
            keeps_lines=True,
            lines=lines,
            is_one_record=form in ("text", "mail", "html") and sha256 in stock.read_as_rows,
        )
        seen = redact(form, f, None, sought, standing)
    where = tuple(sorted(set(seen.lines)))[:SHOWN_LINES]
    return Outside(file=name, count=seen.count, lines=where) if seen.count else None
