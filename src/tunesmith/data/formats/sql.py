"""SQLite databases: their one table, or what a query selects from them; a row's line is its number in that order.

The file is opened read-only and as it is: no other file can be attached, nothing can be written.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.data.formats.packed import whole_file
from tunesmith.data.formats.values import plain_value
from tunesmith.data.lines import BadRecord, Fault, FileFacts, Record

ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
VOLATILE = {"random", "randomblob", "load_extension", "changes", "total_changes", "last_insert_rowid"}
WHERE = "data.query"
MAGIC = b"SQLite format 3\0"


def read_sqlite(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """The rows of the only table, by rowid. Raises DataError naming the tables where there are several."""
    with whole_file(path, facts) as whole, closing(_open(whole, facts)) as db:
        tables = _rows(db, facts, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")  # fmt: skip
        names = [str(name) for (name,) in tables]
        if len(names) != 1:
            shown = ", ".join(names[:20]) or "none"
            what = f"has {len(names)} tables ({shown}); which one holds the rows is not said"
            fix = f'data.query: SELECT * FROM "{names[0]}" ORDER BY rowid' if names else "export the data again"  # noqa: S608
            raise DataError(what, where=facts.file, fix=fix)
        facts.notes.append(f"read its only table, {names[0]}, in the order of its rows")
        quoted = '"' + names[0].replace('"', '""') + '"'
        yield from _records(db, facts, f"SELECT * FROM {quoted} ORDER BY {_order(db, facts, quoted)}")  # noqa: S608


def query_sqlite(path: Path, source: FileFacts, query: str, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """What `query` selects from the database. Raises DataError when it is refused; see refuse_unordered."""
    refuse_unordered(query)
    with whole_file(path, source) as whole, closing(_open(whole, source)) as db:
        yield from _records(db, facts, query)


def _records(db: sqlite3.Connection, facts: FileFacts, query: str) -> Iterator[Record | BadRecord]:
    try:
        cursor = db.execute(query)
        facts.columns = [c[0] for c in cursor.description or ()]
        refuse_twice(facts.columns)
        for number, row in enumerate(cursor, 1):
            facts.lines = number
            broken = next((c for c, v in zip(facts.columns, row, strict=True) if _is_broken(v)), None)
            if broken is not None:
                what = "holds bytes that are not UTF-8"
                fault = Fault(reason="broken_utf8", field=broken, what=what, fix="write the text again, in UTF-8")
                yield BadRecord(line=number, fault=fault)
                continue
            yield Record(line=number, fields=dict(zip(facts.columns, map(plain_value, row), strict=True)))
    except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError) as e:
        raise _refused(e, facts) from e
    facts.read_bytes = facts.bytes


def _open(path: Path, facts: FileFacts) -> sqlite3.Connection:
    with open(path, "rb") as f:
        head = f.read(100)
    size = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big") if head[24:28] == head[92:96] else 0
    if head[:16] == MAGIC and path.stat().st_size < (65536 if size == 1 else size) * pages:
        # SQLite would read what is missing of the last page as zeros
        raise DataError("the file is cut short", where=facts.file, fix="copy the file again")
    # immutable: a database in WAL mode could otherwise not be read from a read-only folder
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error as e:
        raise _refused(e, facts) from e
    db.set_authorizer(_authorize)
    db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")  # one broken text is one bad row
    return db


def _is_broken(value: Any) -> bool:
    if not isinstance(value, str) or value.isascii():
        return False
    return any("\ud800" <= c <= "\udfff" for c in value)


def _authorize(action: int, first: str | None, second: str | None, *_: Any) -> int:
    if action not in ALLOWED or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in VOLATILE):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _order(db: sqlite3.Connection, facts: FileFacts, quoted: str) -> str:
    try:
        db.execute(f"SELECT rowid FROM {quoted} LIMIT 1")  # noqa: S608
        return "rowid"
    except sqlite3.Error:  # WITHOUT ROWID: such a table is kept in the order of its key
        n = len(_rows(db, facts, f"SELECT * FROM {quoted} LIMIT 0", columns=True))  # noqa: S608
        return ", ".join(map(str, range(1, n + 1)))


def _rows(db: sqlite3.Connection, facts: FileFacts, query: str, *, columns: bool = False) -> list[Any]:
    try:
        cursor = db.execute(query)
        return list(cursor.description) if columns else cursor.fetchall()
    except sqlite3.Error as e:
        raise _refused(e, facts) from e


def _refused(e: Exception, facts: FileFacts) -> DataError:
    said = str(e)
    if "not authorized" in said or "prohibited" in said:
        said = "only SELECT is allowed, without random values"
    fix = "correct data.query" if facts.file == WHERE else "copy the file again, or export its table"
    return DataError(f"SQLite refuses it: {said}", where=facts.file, fix=fix)


def refuse_twice(columns: list[str]) -> None:
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        what = f"selects {', '.join(map(repr, twice))} more than once"
        raise DataError(what, where=WHERE, fix="give every column a name of its own with AS")


def refuse_unordered(query: str) -> None:
    """Raises DataError unless the whole result is in a stated order: rows are known by their numbers, and a
    database may give rows without an order differently each time. Ties must be broken by the query itself."""
    if not re.search(r"\border\s+by\b", _outermost(query), re.IGNORECASE):
        raise DataError(
            "the query states no order, and rows are known by their numbers",
            where=WHERE,
            fix="end it with ORDER BY and columns that tell the rows apart",
        )


def _outermost(query: str) -> str:
    """The query without texts, quoted names, comments and everything in brackets."""
    text = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", " ", query, flags=re.DOTALL)
    while True:
        shorter = re.sub(r"\([^()]*\)", " ", text)
        if shorter == text:
            return text
        text = shorter
