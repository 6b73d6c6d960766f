"""Which files can be read, and their records in order: (file, physical line, record or what is wrong)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.formats.known import KNOWN, SUFFIXES, Unread, identify
from tunesmith.data.lines import BadRecord, FileFacts, Record

Reader = Callable[[Path, FileFacts], Iterator[Record | BadRecord]]
READERS = {
    "csv": "tunesmith.data.delimited:read_delimited",
    "tsv": "tunesmith.data.delimited:read_delimited",
    "jsonl": "tunesmith.data.jsonl:read_jsonl",
    "json": "tunesmith.data.formats.json_list:read_json",
    "parquet": "tunesmith.data.formats.columns:read_columns",
    "arrow": "tunesmith.data.formats.columns:read_columns",
    "excel": "tunesmith.data.formats.sheets:read_sheet",
    "sqlite": "tunesmith.data.formats.sql:read_sqlite",
    "mbox": "tunesmith.data.formats.mail:read_mbox",
    "mail": "tunesmith.data.formats.mail:read_mail",
    "text": "tunesmith.data.formats.text:read_text",
}


def read_file(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """Every record of one file, streaming; `facts` fills up on the way. Raises DataError for the file as a whole."""
    module, name = READERS[facts.format].split(":")
    reader: Reader = getattr(import_module(module), name)  # late: most formats bring a library of their own
    return reader(path, facts)


def facts_of(path: Path, name: str = "", *, sheet: str | None = None) -> FileFacts:
    """The file's format and name. Raises DataError for a file that is not read, with the reason."""
    found = identify(path, name or path.name)
    if isinstance(found, Unread):
        raise DataError(found.what, where=found.file, fix=found.fix)
    found.sheet = sheet or ""
    return found


def source_files(folder: Path) -> tuple[list[tuple[Path, FileFacts]], list[Unread]]:
    """Every file below `folder`, in the order of their names: those that can be read, and the others with the reason.

    Raises DataError for files that cannot be opened at all, all of them at once.
    """
    files: list[tuple[Path, FileFacts]] = []
    unread: list[Unread] = []
    problems: list[Problem] = []
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if not p.is_dir()}
    for name in sorted(paths):
        path = paths[name]
        problem = _unusable(path, name)
        if problem is not None:
            problems.append(problem)
            continue
        try:
            found = identify(path, name)
        except DataError as e:
            problems += e.problems
            continue
        if isinstance(found, Unread):
            unread.append(found)
        else:
            files.append((path, found))
    if problems:
        raise DataError(problems)
    return files, unread


def usable_files(paths: Iterable[Path]) -> list[Path]:
    """The named files sorted by name, or one DataError with everything wrong about any of them, read or not."""
    files = sorted(paths, key=lambda p: (p.name, str(p)))
    problems: list[Problem] = []
    for path in files:
        problem = _unusable(path, path.name)
        if problem is None:
            try:
                facts_of(path)
            except DataError as e:
                problems += e.problems
        else:
            problems.append(problem)
    names = [p.name for p in files]
    problems += [
        Problem(where=name, what=f"{names.count(name)} files have this name", fix="rename all but one of them")
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if not files:
        problems.append(Problem(where="data.files", what="no file is named", fix=f"name one: {KNOWN}"))
    if problems:
        raise DataError(problems)
    return files


def _unusable(path: Path, name: str) -> Problem | None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            fix = f"name a file in it: {', '.join(inside[:5])}" if inside else f"name a file: {KNOWN}"
            return Problem(where=name, what="is a folder, not a file", fix=fix)
        if not stat.S_ISREG(mode):
            return Problem(where=name, what="is a device or a pipe, not a file", fix=f"name a file: {KNOWN}")
        with open(path, "rb") as f:
            f.read(1)
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*") if p.suffix.lower() in SUFFIXES] if path.parent.is_dir() else []
        fix = f"in that folder: {', '.join(sorted(near)[:5])}" if near else "check the path under data.files"
        return Problem(where=name, what=f"there is no such file in {_folder(path)}", fix=fix)
    except OSError as e:
        return Problem(
            where=name, what=f"cannot be read: {os.strerror(e.errno or 0)}", fix="check that you may read it"
        )
    return None


def _folder(path: Path) -> str:
    return "this folder" if path.parent == Path() else str(path.parent)
