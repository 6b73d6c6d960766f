"""Stage check: read every row, keep the usable ones as examples, and say why for each of the others.

    source -> rows.jsonl (kept, in file order), left_out.jsonl (with reasons), check.json (what is in the data)

Streaming: of each kept row only its hashes and its place stay in memory. Contradictions to be left
out take a second pass, because the first row of a contradiction was kept before it was one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.core.canonical import canonical_json, read_lines, write_atomic
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.nouns import Example, LeftOut, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.findings import Tally, report_of
from tunesmith.data.lines import BadRecord, Fault, Record, excerpt
from tunesmith.data.read import facts_of, read_file, usable_files
from tunesmith.data.shapes import (
    LOOKED_AT,
    Parts,
    Shape,
    Unusable,
    convert,
    detect_shape,
    missing_columns,
    named_shape,
    start_of,
)
from tunesmith.data.stages import CheckInputs, CheckOutputs, CheckSpec
from tunesmith.data.validate import Problems, answer_key, by_reason, input_key, judge
from tunesmith.data.write import LinesWriter

EVERY = 2_000  # records between progress reports
ONE_ANSWER = ("classify", "extract")  # kinds in which two answers to one question contradict each other


def check(spec: CheckSpec, inputs: CheckInputs, work: Workspace) -> CheckOutputs:
    """Raises one DataError with every problem of every file, unless the policies leave such rows out."""
    files = usable_files(inputs.source.iterdir())
    shapes = find_shapes(spec, files)
    folder = work.scratch / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    facts = [facts_of(path) for path in files]
    total = sum(f.bytes for f in facts)
    sieve = _Sieve(spec, labels=frozenset(spec.labels if spec.kind == "classify" else ()))
    with LinesWriter(folder / "left_out.jsonl") as left_out:
        with LinesWriter(folder / "rows.jsonl") as rows:
            for path, shape, fact in zip(files, shapes, facts, strict=True):
                for record in read_file(path, fact):
                    sieve.take(record, path.name, shape, rows, left_out)
                    if sieve.tally.read % EVERY == 0:
                        work.stop_if_asked()
                        work.progress(sum(f.read_bytes for f in facts), total, "check", rows=sieve.tally.read)
        if sieve.contradicted and spec.contradictions == "leave_out":
            sieve.leave_contradictions_out(folder / "rows.jsonl", left_out)
    sieve.refuse()
    report = report_of(spec, shapes, facts, sieve.tally)
    write_atomic(folder / "check.json", canonical_json(report) + b"\n")
    work.summarize(read=report["read"], kept=report["kept"], left_out=report["left_out"])
    work.progress(total, total, "check", rows=sieve.tally.read)
    return CheckOutputs(examples=folder)


def find_shapes(spec: CheckSpec, files: list[Path]) -> list[Shape]:
    """How each file is read, from its first rows. One DataError for all files that cannot be read at all."""
    shapes: list[Shape] = []
    problems: list[Problem] = []
    for path in files:
        try:
            found = _find_shape(spec, path)
        except DataError as e:
            problems += e.problems
            continue
        if isinstance(found, Shape):
            shapes.append(found)
        else:
            problems += found
    if problems:
        raise DataError(problems)
    return shapes


def _find_shape(spec: CheckSpec, path: Path) -> Shape | list[Problem]:
    facts = facts_of(path)
    first: list[list[str]] = []
    bad: list[BadRecord] = []
    for record in read_file(path, facts):
        if isinstance(record, Record):
            first.append(list(record.fields))
        else:
            bad.append(record)
        if len(first) == LOOKED_AT or len(bad) == 10 * LOOKED_AT:
            break
    if not first and not bad:
        what = "the file has a header and no rows" if facts.columns else "the file has no rows"
        return [Problem(where=path.name, what=what, fix="export the data again")]
    if facts.columns:
        first = [facts.columns]
    if not first:
        problems = Problems()
        for record in bad:
            problems.add_row(f"{path.name}:{record.line}", record.fault)
        problems.raise_if_any(read=len(bad), fix="none of the first rows can be read: is this the right file?")
    named = spec.text is not None or spec.label is not None
    if named:
        shape = named_shape(spec.kind, spec.text or "text", spec.label, spec.group)
    else:
        found = detect_shape(spec.kind, first, spec.group, path.name, is_table=bool(facts.columns))
        if isinstance(found, Problem):
            return [found]
        shape = found
    return missing_columns(shape, (key for keys in first for key in keys), path.name) or shape


@dataclass(slots=True)
class _Known:
    """The first row that asked something. One for each kept row, so it holds little."""

    file: str
    line: int
    group: str
    answer: bytes
    shown: str  # the answer, where a contradiction would name it

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(slots=True)
class _Sieve:
    """Keeps a row, or leaves it out with a reason, and remembers what later rows are compared with."""

    spec: CheckSpec
    labels: frozenset[str]
    problems: Problems = field(default_factory=Problems)
    tally: Tally = field(default_factory=Tally)
    known: dict[bytes, _Known] = field(default_factory=dict)  # by what a row asks
    later_answers: dict[bytes, str] = field(default_factory=dict)  # question and a second answer -> where
    contradicted: set[bytes] = field(default_factory=set)
    keys: list[bytes] = field(default_factory=list)  # what each kept row asks, in order

    def take(
        self, record: Record | BadRecord, file: str, shape: Shape, rows: LinesWriter, left_out: LinesWriter
    ) -> None:
        self.tally.read += 1
        outcome = self._weigh(record, file, shape)
        if isinstance(outcome, Row):
            rows.write(outcome)
            self.tally.keep(outcome, classify=self.spec.kind == "classify")
            return
        if self._is_refused(record, outcome):
            self.problems.add_row(f"{file}:{record.line}", outcome)
        text = record.text if isinstance(record, BadRecord) else start_of(record.fields, shape)
        self._leave_out(file, record.line, outcome, text, left_out)

    def _is_refused(self, record: Record | BadRecord, fault: Fault) -> bool:
        if fault.reason == "duplicate":
            return False
        if fault.reason == "contradiction":
            return self.spec.contradictions == "refuse"
        return self.spec.bad_rows == "refuse" or (isinstance(record, BadRecord) and record.loses_place)

    def _weigh(self, record: Record | BadRecord, file: str, shape: Shape) -> Row | Fault:
        if isinstance(record, BadRecord):
            return record.fault
        try:
            parts = convert(shape, record.fields)
        except Unusable as e:
            return e.fault
        return judge(parts, self.labels, label_field=shape.answer_field) or self._compare(
            parts, shape, file, record.line
        )

    def _compare(self, parts: Parts, shape: Shape, file: str, line: int) -> Row | Fault:
        """A new row, or the fault of repeating or contradicting an earlier one."""
        example = Example(messages=parts.messages, target=parts.target)
        ask, answer = input_key(parts.messages, parts.target), answer_key(parts.target)
        one_answer = self.spec.kind in ONE_ANSWER
        first = self.known.get(ask)
        if first is None:
            shown = sys.intern(excerpt(parts.target)) if one_answer else ""
            first = _Known(file, line, parts.group or example.id, answer, shown)
            self.known[ask] = first
        elif one_answer and (first.answer != answer or ask in self.contradicted):
            self.contradicted.add(ask)
            what = f"says {excerpt(parts.target)!r}, but {first.where} says {first.shown!r} to the same text"
            return Fault(reason="contradiction", field=shape.answer_field, what=what, fix="correct one of the two")
        else:
            here = f"{file}:{line}"
            earlier = first.where if first.answer == answer else self.later_answers.setdefault(ask + answer, here)
            if earlier == here:
                self.tally.several_answers += 1
            elif self.spec.duplicates == "leave_out":
                return Fault(reason="duplicate", what=f"says the same as {earlier}, which is kept")
            else:
                self.tally.duplicates_kept += 1
        # without a group column, rows that ask the same still share a group, so that no split parts them
        group = first.group if parts.group is None else parts.group
        self.tally.asked_in_two_groups += group != first.group
        self.keys.append(ask)
        return Row(id=example.id, messages=parts.messages, target=parts.target, file=file, line=line, group=group)

    def _leave_out(self, file: str, line: int, fault: Fault, text: str, left_out: LinesWriter) -> None:
        detail = f"{fault.field}: {fault.what}" if fault.field else fault.what
        gone = LeftOut(file=file, line=line, reason=fault.reason, detail=detail, text=text)
        left_out.write(gone)
        self.tally.leave_out(gone)

    def leave_contradictions_out(self, rows_file: Path, left_out: LinesWriter) -> None:
        """The second pass: rows that were kept before a later one contradicted them."""
        self.tally.forget_kept()
        with LinesWriter(rows_file) as rows:
            for ask, row in zip(self.keys, read_lines(rows_file, Row), strict=True):
                if ask in self.contradicted:
                    fault = Fault(reason="contradiction", what="a later row says something else to the same text")
                    self._leave_out(row.file, row.line, fault, excerpt(row.example.input), left_out)
                else:
                    rows.write(row)
                    self.tally.keep(row, classify=self.spec.kind == "classify")

    def refuse(self) -> None:
        """Raises DataError if any row is refused, or if what is left cannot teach anything."""
        tally, whole = self.tally, self.problems
        if not tally.kept and not whole.reasons:
            why = f"none of the {tally.read:,} rows can be used: {by_reason(tally.left_out)}"
            first = next(iter(tally.examples.values()))[0]
            whole.add(Problem(where=first["where"], what=why, fix=f"the first one: {first['detail']}"))
        elif self.spec.kind == "classify" and len(tally.classes) == 1:
            only = next(iter(tally.classes))
            what = f"every one of the {tally.kept:,} usable rows has the label {only!r}: there is nothing to tell apart"
            whole.add(Problem(where="data.files", what=what, fix="add rows of another class, or check task.label"))
        whole.raise_if_any(read=tally.read)
