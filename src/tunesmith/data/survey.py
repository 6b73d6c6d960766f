"""The first pass of prepare: what decides a row's split, as numbers; and where an earlier data set placed it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.nouns import LeftOut, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.lines import excerpt
from tunesmith.data.near.rows import asked
from tunesmith.data.near.shingles import Ints, Shingles, shingles
from tunesmith.data.split import NAMES
from tunesmith.data.stages import PrepareSpec
from tunesmith.data.step import EVERY
from tunesmith.data.times import when

SHOWN_PROBLEMS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """N rows in file order, then the ghosts: rows of the earlier data set that are no longer among them."""

    ids: Sequence[str]  # N
    groups: Sequence[str]  # G, in order of appearance
    group: Ints  # N + ghosts, index into groups
    row_class: Ints  # N, index into classes; all 0 where there are none
    classes: Sequence[str]
    class_rows: Counter[str]
    files: Sequence[str]
    file: Ints  # N + ghosts, index into files
    line: Ints  # N + ghosts
    pins: Ints  # N + ghosts: the split that the earlier data set gave it, or -1
    sets: Shingles | None  # N + ghosts; None where near-duplicates play no part
    time: NDArray[np.float64] | None  # N, for by: time
    value: Sequence[str] | None  # N, for by: field
    protected: NDArray[np.bool_]  # N: rows that a person wants kept where they would be left out as bridges

    @property
    def rows(self) -> int:
        return len(self.ids)

    def where(self, node: int) -> str:
        return f"{self.files[self.file[node]]}:{self.line[node]}"


class _Taken:
    """Grows with every row."""

    def __init__(self, spec: PrepareSpec) -> None:
        self.spec = spec
        self.ids: list[str] = []
        self.groups: dict[str, int] = {}
        self.classes: dict[str, int] = {}
        if spec.kind == "classify":
            self.classes = {label: i for i, label in enumerate(spec.labels)}
        self.class_rows: Counter[str] = Counter()
        self.group, self.row_class, self.file, self.line, self.pins = (array("q") for _ in range(5))
        self.time, self.protected = array("d"), array("b")
        self.value: list[str] = []
        self.files: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.unplaced = 0

    def take(self, row: Row, pin: int) -> None:
        self.ids.append(row.id)
        self._node(row, pin)
        if self.spec.kind == "classify":
            self.row_class.append(self.classes.setdefault(row.target, len(self.classes)))
            self.class_rows[row.target] += 1
        else:
            self.row_class.append(0)
        self.protected.append(bool(self.spec.restored) and left_out(row, "bridge", "").key in self.spec.restored)
        if self.spec.by == "time":
            self._time(row)
        elif self.spec.by == "field":
            self.value.append(as_text(self._field(row, self.spec.field or "", "data.split.field")))

    def take_ghost(self, row: Row, pin: int) -> None:
        self._node(row, pin)

    def _node(self, row: Row, pin: int) -> None:
        group = row.id if row.group == row.id else row.group  # one string and not two equal ones
        self.group.append(self.groups.setdefault(group, len(self.groups)))
        self.line.append(row.line)
        self.file.append(self.files.setdefault(row.file, len(self.files)))
        self.pins.append(pin)

    def _time(self, row: Row) -> None:
        value = self._field(row, self.spec.time_field or "", "data.split.time_field")
        moment = when(value)
        if moment is None and value is not None:
            self._problem(row, f"{excerpt(str(value))!r} is no time", "write it as 2024-01-31 or 2024-01-31T10:00:00Z")
        self.time.append(0.0 if moment is None else moment)

    def _field(self, row: Row, name: str, setting: str) -> Any:
        value = row.fields.get(name)
        if value is None or value == "":
            known = ", ".join(sorted(row.fields)) or "none"
            self._problem(row, f"has no value in {name!r} (kept columns: {known})", f"--set data.keep=[{name}], and see {setting}")  # fmt: skip
        return value

    def _problem(self, row: Row, what: str, fix: str) -> None:
        self.unplaced += 1
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append(Problem(where=f"{row.file}:{row.line}", what=what, fix=fix))


def as_text(value: Any) -> str:
    """A kept column's value as the project file would name it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def left_out(row: Row, reason: str, detail: str) -> LeftOut:
    return LeftOut(
        file=row.file, line=row.line, reason=reason, detail=detail, text=excerpt(row.example.input), step="prepare"
    )


def look(rows_file: Path, spec: PrepareSpec, previous: Path | None = None, work: Workspace | None = None) -> Survey:
    """Raises one DataError for every row without the time or the field that the split goes by."""
    taken = _Taken(spec)
    earlier = _earlier(previous)
    if spec.near:
        sets = shingles(asked(row) for row in _nodes(rows_file, taken, earlier, previous, work))
    else:
        sets = None
        for _ in _nodes(rows_file, taken, earlier, previous, work):
            pass
    if taken.unplaced:
        rest = Problem(where="", what=f"{taken.unplaced:,} of {len(taken.ids):,} rows cannot be placed")
        raise DataError([*taken.problems, rest])
    return Survey(
        ids=taken.ids,
        groups=list(taken.groups),
        group=np.array(taken.group, np.int64),
        row_class=np.array(taken.row_class, np.int64),
        classes=list(taken.classes),
        class_rows=taken.class_rows,
        files=list(taken.files),
        file=np.array(taken.file, np.int64),
        line=np.array(taken.line, np.int64),
        pins=np.array(taken.pins, np.int64),
        sets=sets,
        time=np.array(taken.time) if spec.by == "time" else None,
        value=taken.value if spec.by == "field" else None,
        protected=np.array(taken.protected, bool),
    )


def _nodes(
    rows_file: Path, taken: _Taken, earlier: dict[str, int], previous: Path | None, work: Workspace | None
) -> Iterator[Row]:
    for row in _reported(rows_file, work):
        taken.take(row, earlier.get(row.id, -1))
        yield row
    known = set(taken.ids) if previous is not None else set()
    for name in NAMES if previous is not None else ():
        assert previous is not None
        for row in read_lines(previous / f"{name}.jsonl", Row):
            if row.id not in known and not row.origin.startswith("augment"):
                taken.take_ghost(row, NAMES.index(name))
                yield row


def _reported(rows_file: Path, work: Workspace | None) -> Iterator[Row]:
    """The rows, with progress; stops where it is asked to."""
    decode = msgspec.json.Decoder(Row).decode
    total, seen = max(rows_file.stat().st_size, 1), 0
    with open(rows_file, "rb") as f:
        for n, line in enumerate(f):
            if work is not None and n % EVERY == 0:
                work.stop_if_asked()
                work.progress(seen, total, "prepare: reading", rows=n)
            seen += len(line)
            yield decode(line)


def _earlier(previous: Path | None) -> dict[str, int]:
    """The split of every row of the earlier data set, by id. Equal rows are in one split, or in the test set."""
    found: dict[str, int] = {}
    for code, name in enumerate(NAMES) if previous is not None else ():
        assert previous is not None
        for row in read_lines(previous / f"{name}.jsonl", Row):
            found[row.id] = code
    return found
