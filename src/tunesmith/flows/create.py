"""A new project: a folder with a copy of the data and a project file that holds, or nothing at all."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from tunesmith.core import goals as goal_words
from tunesmith.core.canonical import write_atomic
from tunesmith.core.errors import DataError, InputError, Problem, StorageError
from tunesmith.core.nouns import Kind, Task
from tunesmith.core.project_checks import COLUMNAR, NEEDS_COLUMNS
from tunesmith.core.project_file import FILE_NAME, load
from tunesmith.core.project_template import STATE, write_project
from tunesmith.core.sources import expand
from tunesmith.data.check import detect
from tunesmith.data.read import facts_of, read_file, usable_files

ROWS = "rows.jsonl"  # the file of rows that were given as values


def create(
    folder: Path,
    *,
    data: Any,
    kind: Kind,
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    model: str | None = None,
    goals: Sequence[str] = (),
    audience: str = "",
    tone: str = "",
) -> Path:
    """Make the project and return its file.

    `data` is a file or several, a DataFrame, a `datasets.Dataset` or an iterable of dicts. Raises
    InputError with every problem before anything is written.
    """
    folder = folder.absolute()
    said = {"text": text, "label": label, "group": group}
    paths = _paths(data)
    rows = None if paths is not None else list(_rows(data))
    problems = [*_place_problems(folder, paths or []), *_kind_problems(kind)]
    if not problems:
        files = usable_files([p for p in paths if not p.is_dir()]) if paths and not all(map(Path.is_dir, paths)) else []
        problems += [p for path in files for p in _column_problems(path, kind, said)]
        problems += [p for path in paths or [] if path.is_dir() for p in _folder_problems(path)]
        problems += _goal_problems(kind, goals, group)
    if problems:
        raise InputError(problems)
    with _all_or_nothing(folder) as made:
        for path in paths or []:
            for name, file in expand(path.resolve().parent, [path.resolve().name]).files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _copy(file, folder / name, made)
        if rows is not None:
            made.append(folder / ROWS)
            write_atomic(folder / ROWS, b"".join(json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in rows))
        made += [folder / FILE_NAME]
        names = [f"{p.resolve().name}/" if p.is_dir() else p.name for p in paths] if paths is not None else [ROWS]
        written = write_project(
            folder, kind=kind, files=names, model=model, goals=goals, audience=audience, tone=tone,
            shape=_shape(folder, names, kind, text, label), **said,
        )  # fmt: skip
        load(written)  # what it writes must hold
    return written


def _paths(data: Any) -> list[Path] | None:
    """The files that `data` names; None where it is rows."""
    if isinstance(data, str | Path):
        return [Path(data)]
    if isinstance(data, list | tuple) and data and all(isinstance(d, str | Path) for d in data):
        return [Path(d) for d in data]
    return None


def _folder_problems(path: Path) -> Iterable[Problem]:
    if not expand(path.resolve().parent, [path.resolve().name]).files:
        yield Problem(where=path.name, what="the folder has no files", fix="name a folder with data in it")


def _shape(folder: Path, names: Sequence[str], kind: Kind, text: str | None, label: str | None) -> str | None:
    """How records are read, where all files agree on it and the task names no columns: written down, so that no
    later run guesses anew. None: each file is looked at, and `tunesmith data read` writes it down."""
    if text is not None or label is not None:
        return None
    found = {d.shape for d in detect([folder / name for name in names], kind)}
    return (found.pop() or None) if len(found) == 1 else None


def _rows(data: Any) -> Iterable[dict[str, Any]]:
    """Rows as JSON-ready dicts; a DataFrame's missing values become null. Raises DataError for other values."""
    records = data.to_dict("records") if hasattr(data, "to_dict") and hasattr(data, "columns") else data
    problems = []
    rows = []
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(f"row {i} is {type(record).__name__}, not a dict", where="data", fix="give one dict a row")
        row = {}
        for key, value in record.items():
            value = value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value  # numpy
            value = None if isinstance(value, float) and math.isnan(value) else value
            try:
                json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
            except (TypeError, ValueError):
                what = f"a value of type {type(value).__name__} has no JSON form"
                problems.append(Problem(where=f"data[{i}].{key}", what=what, fix="turn it into text or a number"))
            row[str(key)] = value
        rows.append(row)
    if not rows:
        raise DataError("there are no rows", where="data", fix="give a file, a DataFrame, a Dataset or a list of dicts")
    if problems:
        raise DataError(problems)
    return rows


def _place_problems(folder: Path, paths: Sequence[Path]) -> Iterable[Problem]:
    if (folder / FILE_NAME).exists():
        yield Problem(
            where=str(folder), what=f"has a {FILE_NAME} already", fix="choose another name, or edit that file"
        )
    elif folder.exists() and not folder.is_dir():
        yield Problem(where=str(folder), what="is a file", fix="choose another name")
    for path in paths:
        target = folder / path.name
        if target.exists() and path.exists() and not target.samefile(path):
            what = f"has another {path.name} already, which would be overwritten"
            yield Problem(where=str(folder), what=what, fix="rename one of the two")


def _kind_problems(kind: str) -> Iterable[Problem]:
    if kind not in get_args(Kind):
        fix = goal_words.did_you_mean(kind, get_args(Kind))
        yield Problem(where="kind", what=f"{kind!r} is not a kind of task", fix=fix)


def _column_problems(path: Path, kind: Kind, said: dict[str, str | None]) -> Iterable[Problem]:
    """For a table: the columns that are needed and were not named, or named and are not there."""
    if not path.name.lower().endswith(COLUMNAR):
        return
    facts = facts_of(path)
    next(iter(read_file(path, facts)), None)  # reads the header; raises DataError if there is none
    columns = facts.columns
    missing = [name for name in NEEDS_COLUMNS.get(kind, ()) if not said[name]]
    if missing:
        what = f"a {kind} task must know which column is the {' and which the '.join(missing)}; it has {', '.join(columns)}"
        yield Problem(where=path.name, what=what, fix=" ".join(f"--{name} COLUMN" for name in missing))
    for name, column in said.items():
        if column is not None and column not in columns:
            what = f"has no column {column!r} for --{name}; it has {', '.join(columns)}"
            near = goal_words.nearest(column, columns)
            yield Problem(where=path.name, what=what, fix=f"did you mean {near}?" if near else "")


def _goal_problems(kind: Kind, goals: Sequence[str], group: str | None) -> Iterable[Problem]:
    try:
        goal_words.parse_goals(goals, Task(kind=kind, group=group), goal_words.usual_arms(kind))
    except InputError as e:
        for problem in e.problems:
            yield Problem(where="--goal", what=problem.what, fix=problem.fix)


@contextmanager
def _all_or_nothing(folder: Path) -> Any:
    """Yields the list of files made; removes them, and the folders, when something goes wrong."""
    made: list[Path] = []
    new = next((p for p in (*reversed(folder.parents), folder) if not p.exists()), None)  # topmost new folder
    had_state = (folder / STATE).exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield made
    except BaseException as e:
        for path in made:
            path.unlink(missing_ok=True)
        if not had_state:
            shutil.rmtree(folder / STATE, ignore_errors=True)
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
        if isinstance(e, OSError):
            where = str(e.filename or folder)
            raise StorageError(f"could not write: {e.strerror}", where=where, fix="choose a writable folder") from e
        raise


def _copy(source: Path, target: Path, made: list[Path]) -> None:
    """A copy, never a link; under its name only when it is whole."""
    if target.exists():  # the same file: `tunesmith init .` beside one's data
        return
    partial = target.with_name(f".{target.name}.partial")
    made += [partial, target]
    shutil.copyfile(source, partial)
    partial.replace(target)
