"""Which files can be read, and their records in order: (file, physical line, record or what is wrong)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.delimited import read_delimited
from tunesmith.data.jsonl import read_jsonl
from tunesmith.data.lines import BadRecord, FileFacts, Record

FORMATS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
KNOWN = "CSV (.csv), TSV (.tsv, .tab) and JSON lines (.jsonl, .ndjson)"


def read_file(path: Path, facts: FileFacts) -> Iterator[Record | BadRecord]:
    """Every record of one file, streaming; `facts` fills up on the way. Raises DataError for the file as a whole."""
    return read_jsonl(path, facts) if facts.format == "jsonl" else read_delimited(path, facts)


def facts_of(path: Path) -> FileFacts:
    return FileFacts(file=path.name, bytes=path.stat().st_size, format=FORMATS[path.suffix.lower()])


def usable_files(paths: Iterable[Path]) -> list[Path]:
    """The files sorted by name, or one DataError with everything wrong about any of them, read or not."""
    files = sorted(paths, key=lambda p: (p.name, str(p)))
    problems = [problem for path in files if (problem := _unusable(path)) is not None]
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


def _unusable(path: Path) -> Problem | None:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in FORMATS)
            fix = f"name a file in it: {', '.join(inside[:5])}" if inside else f"name a file: {KNOWN}"
            return Problem(where=path.name, what="is a folder, not a file", fix=fix)
        if not stat.S_ISREG(mode):
            return Problem(where=path.name, what="is a device or a pipe, not a file", fix=f"name a file: {KNOWN}")
        if path.suffix.lower() not in FORMATS:
            return Problem(where=path.name, what="its format is not known", fix=f"known formats: {KNOWN}{_hint(path)}")
        with open(path, "rb") as f:
            if not f.read(1):
                return Problem(where=path.name, what="the file is empty", fix="export the data again")
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*") if p.suffix.lower() in FORMATS] if path.parent.is_dir() else []
        fix = f"in that folder: {', '.join(sorted(near)[:5])}" if near else "check the path under data.files"
        return Problem(where=path.name, what=f"there is no such file in {_folder(path)}", fix=fix)
    except OSError as e:
        return Problem(
            where=path.name, what=f"cannot be read: {os.strerror(e.errno or 0)}", fix="check that you may read it"
        )
    return None


def _folder(path: Path) -> str:
    return "this folder" if path.parent == Path() else str(path.parent)


def _hint(path: Path) -> str:
    if path.suffix.lower() == ".json":
        return f'; from a JSON list: jq -c ".[]" {path.name} > {path.stem}.jsonl'
    if path.suffix.lower() in (".gz", ".zst", ".zip", ".bz2", ".xz"):
        return "; unpack it first"
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        return "; save the sheet as CSV"
    return ""
