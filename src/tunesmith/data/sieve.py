"""Which rows are kept: judged one by one, and compared with those that came before."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import Problem
from tunesmith.core.nouns import Example, LeftOut, Row
from tunesmith.core.tombstones import forgotten_in
from tunesmith.data.findings import Tally
from tunesmith.data.lines import BadRecord, Fault, Record, excerpt
from tunesmith.data.shapes.convert import Parts, convert, start_of
from tunesmith.data.shapes.known import Shape, Unusable
from tunesmith.data.sources import Source
from tunesmith.data.stages import CheckSpec
from tunesmith.data.validate import Problems, answer_key, by_reason, input_key, judge
from tunesmith.data.write import LinesWriter

NO_ANSWER = answer_key("", "")  # of a row that waits for a label
ONE_ANSWER = ("classify", "extract")  # kinds in which two answers to one question contradict each other


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


class Sieve:
    """Keeps a row, or leaves it out with a reason, and remembers what later rows are compared with."""

    def __init__(self, spec: CheckSpec) -> None:
        self.spec = spec
        self.labels = frozenset((*spec.labels, *spec.variants) if spec.kind == "classify" and spec.labels else ())
        self._is_forgotten = forgotten_in(spec.forgotten)
        self.problems = Problems()
        self.tally = Tally()
        self.contradicted: set[bytes] = set()
        self._asked = frozenset(spec.restored)
        self._known: dict[bytes, _Known] = {}  # by what a row asks
        self._later_answers: dict[bytes, str] = {}  # question and a second answer -> where
        self._keys: list[bytes] = []  # what each kept row asks, in order
        self._saved: set[int] = set()  # places in `_keys` of rows that a person restored

    def take(
        self, record: Record | BadRecord, source: Source, shape: Shape, rows: LinesWriter, left_out: LinesWriter
    ) -> None:
        self.tally.read += 1
        weighed = self._weigh(record, source, shape)
        if isinstance(weighed, Fault):
            self._refuse_or_leave(record, weighed, source.name, shape, left_out)
            return
        row, ask, fault = weighed
        if fault is not None:
            if not self._is_restored(self._gone(record, fault, source.name, shape)):
                self._refuse_or_leave(record, fault, source.name, shape, left_out)
                return
            self._saved.add(len(self._keys))
        self._keys.append(ask)
        rows.write(row)
        self.tally.keep(row, classify=self.spec.kind == "classify")

    def _refuse_or_leave(
        self, record: Record | BadRecord, fault: Fault, file: str, shape: Shape, left_out: LinesWriter
    ) -> None:
        if self._is_refused(record, fault):
            self.problems.add_row(f"{file}:{record.line}", fault)
        self._leave_out(self._gone(record, fault, file, shape), left_out)

    def _is_refused(self, record: Record | BadRecord, fault: Fault) -> bool:
        if fault.reason in ("duplicate", "forgotten"):
            return False
        if fault.reason == "contradiction":
            return self.spec.contradictions == "refuse"
        return self.spec.bad_rows == "refuse" or (isinstance(record, BadRecord) and record.loses_place)

    def _is_restored(self, gone: LeftOut) -> bool:
        if not self._asked or gone.key not in self._asked:
            return False
        self.tally.restored.add(gone.key)
        return True

    def _weigh(
        self, record: Record | BadRecord, source: Source, shape: Shape
    ) -> Fault | tuple[Row, bytes, Fault | None]:
        """A fault that nothing can mend; or the row, what it asks, and why it is left out unless restored."""
        if isinstance(record, BadRecord):
            return record.fault
        try:
            parts = convert(shape, record.fields)
        except Unusable as e:
            if e.fault.reason != "no_label" or self.spec.unlabelled == "refuse":
                return e.fault
            parts = replace(convert(shape, {**record.fields, shape.label: "?"}), target="")
        fault = judge(parts, self.labels, label_field=shape.answer_field) if parts.target else None
        return fault or self._compare(parts, shape, source, record)

    def _compare(
        self, parts: Parts, shape: Shape, source: Source, record: Record
    ) -> Fault | tuple[Row, bytes, Fault | None]:
        example = Example(messages=parts.messages, target=parts.target)
        if self._is_forgotten(example.id):
            return Fault(reason="forgotten", what="was erased on request")
        ask = input_key(parts.messages, parts.target, parts.tools)
        said = self.spec.variants.get(parts.target, parts.target)
        answer = answer_key(said, parts.rejected)
        one_answer = self.spec.kind in ONE_ANSWER
        fault = None
        first = self._known.get(ask)
        if first is not None and first.answer == NO_ANSWER and said:
            first = None  # the earlier row waits for a label; this one has it
        if first is not None and not said:
            fault = Fault(reason="duplicate", what=f"asks the same as {first.where}, which is kept")
        elif first is None:
            shown = sys.intern(excerpt(parts.target)) if one_answer else ""
            first = _Known(source.name, record.line, parts.group or example.id, answer, shown)
            self._known[ask] = first
        elif one_answer and (first.answer != answer or ask in self.contradicted):
            self.contradicted.add(ask)
            what = f"says {excerpt(parts.target)!r}, but {first.where} says {first.shown!r} to the same text"
            fault = Fault(reason="contradiction", field=shape.answer_field, what=what, fix="correct one of the two")
        else:
            here = f"{source.name}:{record.line}"
            earlier = first.where if first.answer == answer else self._later_answers.setdefault(ask + answer, here)
            if earlier == here:
                self.tally.several_answers += 1
            elif self.spec.duplicates == "leave_out":
                fault = Fault(reason="duplicate", what=f"says the same as {earlier}, which is kept")
            else:
                self.tally.duplicates_kept += 1
        # without a group column, rows that ask the same still share a group, so that no split parts them
        group = first.group if parts.group is None else parts.group
        self.tally.asked_in_two_groups += fault is None and group != first.group
        row = Row(
            id=example.id,
            messages=parts.messages,
            target=parts.target,
            file=source.name,
            line=record.line,
            group=group,
            rejected=parts.rejected,
            tools=parts.tools,
            fields=parts.fields,
            weight=parts.weight,
            origin=source.origin(record.fields),
        )
        return row, ask, fault

    def _gone(self, record: Record | BadRecord, fault: Fault, file: str, shape: Shape) -> LeftOut:
        text = record.text if isinstance(record, BadRecord) else start_of(record.fields, shape)
        text = "" if fault.reason == "forgotten" else text
        detail = f"{fault.field}: {fault.what}" if fault.field else fault.what
        return LeftOut(file=file, line=record.line, reason=fault.reason, detail=detail, text=_writable(text))

    def _leave_out(self, gone: LeftOut, left_out: LinesWriter) -> None:
        left_out.write(gone)
        self.tally.leave_out(gone)

    def leave_contradictions_out(self, rows_file: Path, left_out: LinesWriter) -> None:
        """The second pass: rows that were kept before a later one contradicted them."""
        self.tally.forget_kept()
        with LinesWriter(rows_file) as rows:
            for i, (ask, row) in enumerate(zip(self._keys, read_lines(rows_file, Row), strict=True)):
                if ask in self.contradicted and i not in self._saved:
                    why = "a later row says something else to the same text"
                    gone = LeftOut(
                        file=row.file,
                        line=row.line,
                        reason="contradiction",
                        detail=why,
                        text=excerpt(row.example.input),
                    )
                    if not self._is_restored(gone):
                        self._leave_out(gone, left_out)
                        continue
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


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
