"""Everything the stage check reads, in order, each with its shape: the user's files, the rows of a query over them,
and the files that earlier steps made. `detect` tells the shapes of files before there is a project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.formats.known import KNOWN, ONE_RECORD, Unread
from tunesmith.data.formats.mail import MAIL_FIELDS
from tunesmith.data.formats.query import READERS as QUERY_READERS
from tunesmith.data.formats.query import read_query
from tunesmith.data.formats.sql import WHERE as QUERY
from tunesmith.data.formats.text import TEXT_FIELDS
from tunesmith.data.lines import BadRecord, FileFacts, Record
from tunesmith.data.read import facts_of, read_file, source_files
from tunesmith.data.shapes.known import (
    LOOKED_AT,
    Shape,
    detect_shape,
    missing_columns,
    named_shape,
    stated_shape,
)
from tunesmith.data.stages import GENERAL, CheckInputs, CheckSpec
from tunesmith.data.validate import SHOWN_PROBLEMS, Problems

QUERYABLE = (*QUERY_READERS, "sqlite")
MADE = {"corpus.jsonl": "text", "pairs.jsonl": "prompt_completion"}  # the shapes of files that other steps made


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file, or one query over several, and how its records are read."""

    facts: FileFacts
    path: Path = Path()
    query: str = ""
    over: tuple[tuple[Path, FileFacts], ...] = ()  # the files of a query
    made: bool = False

    @property
    def name(self) -> str:
        return self.facts.file

    def read(self, facts: FileFacts) -> Iterator[Record | BadRecord]:
        """Its records; `facts` (a fresh copy for each reading) fills up on the way."""
        return read_query(self.query, self.over, facts) if self.query else read_file(self.path, facts)

    def fresh(self) -> FileFacts:
        return replace(self.facts, notes=list(self.facts.notes), columns=[], keys={})

    def origin(self, fields: dict[str, Any]) -> str:
        """How a row of a made file was made: "pairs.glossary", "documents"; empty for the user's own rows."""
        if not self.made:
            return ""
        how = fields.get("how")
        return f"pairs.{how}" if isinstance(how, str) and how else "documents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """What one file is, for a person to see and the project file to keep."""

    file: str
    format: str
    shape: str  # what `data.shape` takes; "" where none was found, and then `problems` say why
    why: str
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def find_sources(spec: CheckSpec, inputs: CheckInputs) -> tuple[list[Source], list[Unread]]:
    """Raises DataError when there is nothing to read, and, unless bad rows are left out, for every file that is
    not read but for those that only describe others."""
    files, unread = source_files(inputs.source)
    for _, facts in files:
        facts.sheet = spec.sheet or ""
    if spec.query is not None:
        unread += [
            Unread(f.file, "not_queryable", f"a query cannot read {f.format} files", f"formats: {', '.join(QUERYABLE)}")
            for _, f in files
            if f.format not in QUERYABLE
        ]
        files = [(path, f) for path, f in files if f.format in QUERYABLE]
    problems = [
        Problem(where=u.file, what=u.what, fix=u.fix)
        for u in unread
        if not u.harmless and (spec.bad_rows == "refuse" or not files)
    ]
    sources = [Source(path=path, facts=facts) for path, facts in files]
    if spec.query is not None and files:
        facts = FileFacts(file=QUERY, format="query", bytes=sum(f.bytes for _, f in files))
        sources = [Source(query=spec.query, over=tuple(files), facts=facts)]
    if inputs.made is not None:
        for name in MADE:
            if (inputs.made / name).is_file() and (inputs.made / name).stat().st_size:
                facts = facts_of(inputs.made / name, f"made/{name}")
                sources.append(Source(path=inputs.made / name, facts=facts, made=True))
        clash = {s.name for s in sources if s.made} & {f.file for _, f in files}
        problems += [Problem(where=n, what="is the name of a file that Tunesmith makes", fix="rename it") for n in sorted(clash)]  # fmt: skip
    if len(problems) > SHOWN_PROBLEMS:
        more = f"{len(problems) - SHOWN_PROBLEMS:,} more files cannot be read"
        fix = "name the files that hold rows, or leave the others out: --set data.bad_rows=leave_out"
        problems = [*problems[:SHOWN_PROBLEMS], Problem(where="data.files", what=more, fix=fix)]
    if not sources and not problems:
        problems.append(Problem(where="data.files", what="no file is named that holds rows", fix=f"name one: {KNOWN}"))
    if problems:
        raise DataError(problems)
    return sources, unread


def find_shapes(spec: CheckSpec, sources: Sequence[Source]) -> list[Shape]:
    """How each source is read. One DataError for all that cannot be read at all."""
    shapes: list[Shape] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            found = _find_shape(spec, source)
        except DataError as e:
            problems += e.problems
            continue
        if isinstance(found, Shape):
            shapes.append(found)
        else:
            problems += found
    if problems:
        raise DataError(dict.fromkeys(problems))
    return shapes


def _find_shape(spec: CheckSpec, source: Source) -> Shape | list[Problem]:
    first, is_table = _first_keys(source)
    named = spec.text is not None or spec.label is not None
    found: Shape | Problem
    if source.made:
        name = MADE[Path(source.name).name]
        found = stated_shape(name, spec.kind, "group")
        if isinstance(found, Problem):
            return [replace_where(found, source.name)]
        return found
    if named:
        found = named_shape(spec.kind, spec.text or "text", spec.label, spec.group, spec.keep)
    elif spec.shape == GENERAL:
        asked = detect_shape("chat", first, spec.group, source.name, is_table=is_table, keep=spec.keep)
        text = detect_shape("domain", first, spec.group, source.name, is_table=is_table, keep=spec.keep)
        found = text if isinstance(asked, Problem) and isinstance(text, Shape) else asked
    elif spec.shape is not None:
        found = stated_shape(spec.shape, spec.kind, spec.group, spec.keep)
    else:
        found = detect_shape(spec.kind, first, spec.group, source.name, is_table=is_table, keep=spec.keep)
    if isinstance(found, Problem):
        return [found]
    if not source.made:
        found = replace(found, weight=spec.weight)
    return missing_columns(found, (key for keys in first for key in keys), source.name) or found


def replace_where(problem: Problem, where: str) -> Problem:
    return Problem(where=where, what=problem.what, fix=problem.fix)


def _first_keys(source: Source) -> tuple[list[list[str]], bool]:
    """The keys of the first records, and whether they are the columns of a table. Raises DataError."""
    if source.facts.format in ONE_RECORD or source.facts.format == "mbox":
        return [list(TEXT_FIELDS if source.facts.format == "text" else MAIL_FIELDS)], True
    facts = source.fresh()
    first: list[list[str]] = []
    bad: list[BadRecord] = []
    for record in source.read(facts):
        if isinstance(record, Record):
            first.append(list(record.fields))
        else:
            bad.append(record)
        if len(first) == LOOKED_AT or len(bad) == 10 * LOOKED_AT:
            break
    if not first and not bad:
        what = "the file has a header and no rows" if facts.columns else "the file has no rows"
        if source.query:
            what = "the query selects no rows"
        raise DataError(what, where=source.name, fix="export the data again")
    if facts.columns:
        return [facts.columns], True
    if not first:
        problems = Problems()
        for record in bad:
            problems.add_row(f"{source.name}:{record.line}", record.fault)
        problems.raise_if_any(read=len(bad), fix="none of the first rows can be read: is this the right file?")
    return first, False


def detect(
    paths: Sequence[Path],
    kind: str,
    *,
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    sheet: str | None = None,
) -> list[Detected]:
    """What each file is and which shape its rows have, as `check` would find it; folders are looked through.

    Nothing is raised for a file: what is wrong with it is in its `problems`.
    """
    found: list[Detected] = []
    for path in sorted(paths, key=lambda p: (p.name, str(p))):
        try:
            files, unread = source_files(path) if path.is_dir() else ([(path, facts_of(path))], [])
        except DataError as e:
            found.append(Detected(file=path.name, format="", shape="", why="", problems=e.problems))
            continue
        except OSError as e:
            gone = Problem(where=path.name, what=f"cannot be read: {e.strerror}", fix="check the path")
            found.append(Detected(file=path.name, format="", shape="", why="", problems=(gone,)))
            continue
        for file, facts in files:
            facts.sheet = sheet or ""
            found.append(_detect_one(Source(path=file, facts=facts), kind, text, label, group))
        found += [
            Detected(file=u.file, format="", shape="", why=u.what, problems=(Problem(where=u.file, what=u.what, fix=u.fix),))
            for u in unread
        ]  # fmt: skip
    return found


def _detect_one(source: Source, kind: str, text: str | None, label: str | None, group: str | None) -> Detected:
    columns: list[str] = []
    shape: Shape | Problem | None = None
    try:
        first, is_table = _first_keys(source)
        columns = list(dict.fromkeys(key for keys in first for key in keys))
        if text is not None or label is not None:
            shape = named_shape(kind, text or "text", label, group)
        else:
            shape = detect_shape(kind, first, group, source.name, is_table=is_table)
        problems = (shape,) if isinstance(shape, Problem) else tuple(missing_columns(shape, columns, source.name))
    except DataError as e:
        problems = e.problems
    found = shape if isinstance(shape, Shape) else None
    return Detected(
        file=source.name,
        format=source.facts.format,
        shape=found.name if found else "",
        why=found.why if found else "",
        columns=tuple(columns),
        notes=tuple(source.facts.notes),
        problems=problems,
    )
