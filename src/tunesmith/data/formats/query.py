"""A DuckDB query over the project's own files: `data.query`. Each file is a table under its name and its stem.

DuckDB may read these files and no others, loads no extension, reaches no network and runs on one thread, so that
equal files give equal rows. Texts of CSV and JSON stay as they stand in the file (but for UUIDs, which DuckDB
writes in small letters): a query casts what it compares.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.extras import need
from tunesmith.data.formats.packed import whole_file
from tunesmith.data.formats.sql import WHERE, query_sqlite, refuse_twice, refuse_unordered
from tunesmith.data.formats.values import plain_value
from tunesmith.data.lines import BadRecord, FileFacts, Record

# Texts that look like dates stay texts: no text has this format. All rows are looked at for the types.
AS_TEXT = "sample_size = -1, dateformat = '\x01', timestampformat = '\x01'"
READERS = {
    "csv": "read_csv(?, all_varchar = true, header = true)",
    "tsv": "read_csv(?, all_varchar = true, header = true, delim = '\t')",
    "jsonl": f"read_json(?, format = 'newline_delimited', {AS_TEXT})",
    "json": f"read_json(?, {AS_TEXT})",
    "parquet": "read_parquet(?)",
}
MEMORY = "1GB"
FETCH = 1_000  # rows


def read_query(query: str, files: Sequence[tuple[Path, FileFacts]], facts: FileFacts) -> Iterator[Record | BadRecord]:
    """The rows of the result, numbered in the order that the query states.

    One SQLite database: SQLite answers. Otherwise DuckDB, over CSV, TSV, JSON, JSON lines and Parquet files.
    Raises DataError for a query that is no single ordered SELECT, that fails, or that would give other rows
    another time.
    """
    databases = [(path, f) for path, f in files if f.format == "sqlite"]
    if databases:
        if len(files) > 1:
            names = ", ".join(f.file for _, f in files[:8])
            what = f"a query reads one SQLite database, or files of other formats; there are {len(files)}: {names}"
            raise DataError(what, where=WHERE, fix="name the database alone under data.files")
        yield from query_sqlite(*databases[0], query, facts)
        return
    duckdb = need("duckdb", extra="tables", why="data.query")
    refuse_unordered(query)
    with ExitStack() as stack:
        spill = stack.enter_context(tempfile.TemporaryDirectory(prefix="tunesmith-"))
        db = stack.enter_context(duckdb.connect(":memory:"))
        try:
            _prepare(db, files, spill, stack)
            tree = _one_select(db, query)
            _say_unnamed(tree, files, facts)
            result = db.execute(query)
            facts.columns = [c[0] for c in result.description]
            refuse_twice(facts.columns)
            number = 0
            while rows := result.fetchmany(FETCH):
                for row in rows:
                    number += 1
                    yield Record(line=number, fields=dict(zip(facts.columns, map(plain_value, row), strict=True)))
            facts.lines, facts.read_bytes = number, facts.bytes
        except duckdb.Error as e:
            said = str(e).splitlines()[0]
            raise DataError(f"DuckDB refuses it: {said}", where=WHERE, fix=_fix(said, files)) from e


def _prepare(db: Any, files: Sequence[tuple[Path, FileFacts]], spill: str, stack: ExitStack) -> None:
    """One view for each file; then the doors are shut."""
    usable = [(path, f) for path, f in files if f.format in READERS]
    paths = [str(stack.enter_context(whole_file(path.absolute(), f))) for path, f in usable]
    stems = Counter(_stem(f.file) for _, f in usable)
    for statement in (
        "SET threads = 1",
        f"SET memory_limit = '{MEMORY}'",
        "SET preserve_insertion_order = true",
        "SET TimeZone = 'UTC'",
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        "SET allow_community_extensions = false",
    ):
        db.execute(statement)
    db.execute(f"SET temp_directory = {_text(spill)}")
    db.execute(f"SET allowed_paths = [{', '.join(map(_text, paths))}]")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")
    for path, (_, f) in zip(paths, usable, strict=True):
        reader = READERS[f.format].replace("?", _text(path))
        names = [f.file] + ([_stem(f.file)] if stems[_stem(f.file)] == 1 and _stem(f.file) != f.file else [])
        for name in names:
            db.execute(f"CREATE VIEW {_name(name)} AS SELECT * FROM {reader}")  # noqa: S608


def _one_select(db: Any, query: str) -> Any:
    """The query's tree. Raises DataError unless it is one SELECT, of functions that give the same value every time."""
    tree = json.loads(db.execute("SELECT json_serialize_sql(?)", [query]).fetchone()[0])
    if tree.get("error"):
        raise DataError(f"is no SELECT: {tree.get('error_message')}", where=WHERE, fix="write one SELECT statement")
    if len(tree["statements"]) != 1:
        raise DataError(f"holds {len(tree['statements'])} statements", where=WHERE, fix="write one SELECT statement")
    volatile = {
        name
        for (name,) in db.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"
        ).fetchall()
    }
    found = sorted({name.lower() for name in _named(tree["statements"], "function_name")} & volatile)
    if found:
        raise DataError(
            f"uses {', '.join(found)}, which gives another value each time",
            where=WHERE,
            fix="write the value itself",
        )
    return tree["statements"]


def _say_unnamed(tree: Any, files: Sequence[tuple[Path, FileFacts]], facts: FileFacts) -> None:
    """A file that the query does not name is not read: a note says so."""
    named = {name.lower() for name in _named(tree, "table_name")}
    unnamed = [f.file for _, f in files if not {f.file.lower(), _stem(f.file).lower()} & named]
    if unnamed:
        shown = ", ".join(unnamed[:8]) + (f" and {len(unnamed) - 8} more" if len(unnamed) > 8 else "")
        facts.notes.append(f"files that the query does not name, and that are not read: {shown}")


def _named(tree: Any, key: str) -> set[str]:
    """Every text under `key` in the tree."""
    if isinstance(tree, dict):
        own = {tree[key]} if isinstance(tree.get(key), str) else set()
        return own.union(*(_named(v, key) for v in tree.values()))
    return set().union(*(_named(v, key) for v in tree)) if isinstance(tree, list) else set()


def _fix(said: str, files: Sequence[tuple[Path, FileFacts]]) -> str:
    if "does not exist" in said or "disabled" in said or "Cannot access" in said:
        return f"the tables are {', '.join(_name(f.file) for _, f in files[:8] if f.format in READERS)}"
    return "correct data.query"


def _stem(name: str) -> str:
    return PurePosixPath(name).name.split(".")[0]


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
