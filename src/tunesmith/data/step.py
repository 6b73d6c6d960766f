"""What every step between check and prepare does the same way: rows in, rows out, and nothing unaccounted for.

    with RowStep(inputs.examples, work, step="clean", restored=spec.restored) as out:
        for row in out.rows():
            ...
            out.keep(row)                        as it was
            out.keep(out.altered(row, ...))      with its change on the record
            out.leave_out(row, "template", "…")  with its reason, unless a person restored it
        out.facts = {...}

An `examples` folder holds rows.jsonl; left_out.jsonl and changes.jsonl of this and every earlier step; and
one JSON file of facts for each step so far (check.json, clean.json, dedup.json, ...).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from tunesmith.core.canonical import canonical_json, read_lines, write_atomic
from tunesmith.core.nouns import Change, Example, LeftOut, Message, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.lines import excerpt
from tunesmith.data.write import LinesWriter

EVERY = 2_000  # rows between progress reports
OWN = ("rows.jsonl", "left_out.jsonl", "changes.jsonl")


class RowStep:
    """One pass over an `examples` folder into a new one. Raises AssertionError if a row is unaccounted for."""

    def __init__(
        self,
        examples: Path,
        work: Workspace,
        *,
        step: str,
        restored: Sequence[str] = (),
        mask: Callable[[str], str] | None = None,
    ) -> None:
        """`mask`: what becomes of the texts that earlier steps wrote down of rows that left or changed, where this
        step hides something that they may show."""
        self.folder = work.scratch / "examples"
        self.step = step
        self.facts: dict[str, Any] = {}  # written to <step>.json, with the counts
        self.read = 0
        self.kept = 0
        self.left_out: Counter[str] = Counter()  # of this step
        self.changed: Counter[str] = Counter()  # of this step, by the step of the change
        self.restored: set[str] = set()  # keys that a person's decision saved here
        self._asked = frozenset(restored)
        self._mask = mask
        self._examples = examples
        self._work = work
        self._bytes = max((examples / "rows.jsonl").stat().st_size, 1)
        self._stack = ExitStack()

    def __enter__(self) -> RowStep:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._examples.iterdir()):
            if path.name not in OWN:
                shutil.copyfile(path, self.folder / path.name)
        self._rows, self._gone, self._changes = (
            self._stack.enter_context(LinesWriter(self.folder / name)) for name in OWN
        )
        for gone in read_lines(self._examples / "left_out.jsonl", LeftOut):
            self._gone.write(gone if self._mask is None else self._masked_gone(gone, self._mask))
        if (self._examples / "changes.jsonl").exists():
            for change in read_lines(self._examples / "changes.jsonl", Change):
                self._changes.write(change if self._mask is None else self._masked_change(change, self._mask))
        return self

    def _masked_gone(self, gone: LeftOut, mask: Callable[[str], str]) -> LeftOut:
        text, detail = mask(gone.text), mask(gone.detail)
        if (text, detail) == (gone.text, gone.detail):
            return gone
        return msgspec.structs.replace(gone, text=text, detail=detail, known_as=gone.key)

    def _masked_change(self, change: Change, mask: Callable[[str], str]) -> Change:
        before, after = mask(change.before), mask(change.after)
        if (before, after) == (change.before, change.after):
            return change
        return msgspec.structs.replace(change, before=before, after=after, known_as=change.key)

    def rows(self) -> Iterator[Row]:
        """Every row in order, with progress; stops where it is asked to."""
        decode = msgspec.json.Decoder(Row).decode
        seen = 0
        with open(self._examples / "rows.jsonl", "rb") as f:
            for line in f:
                seen += len(line)
                self.read += 1
                if self.read % EVERY == 0:
                    self._work.stop_if_asked()
                    self._work.progress(seen, self._bytes, self.step, rows=self.read)
                yield decode(line)

    def keep(self, row: Row) -> None:
        self.kept += 1
        self._rows.write(row)

    def leave_out(
        self, row: Row, reason: str, detail: str = "", *, shown: str | None = None, keep_restored: bool = True
    ) -> bool:
        """False if a person restored this row: it is kept then, as it is, or by the caller where `keep_restored`
        is off. `shown`: what left_out.jsonl may show of a row whose text must not stay behind."""
        text = excerpt(row.example.input if shown is None else shown)
        gone = LeftOut(file=row.file, line=row.line, reason=reason, detail=detail, text=text, step=self.step)
        if gone.key in self._asked:
            self.restored.add(gone.key)
            if keep_restored:
                self.keep(row)
            return False
        self.left_out[reason] += 1
        self._gone.write(gone)
        return True

    def altered(self, row: Row, messages: Sequence[Message], target: str, *, step: str, why: str = "") -> Row:
        """The row with new text, its changes recorded. `step`: "clean.whitespace". A change that a person
        restored is not made. Call it once for each named step, so that every change names its own."""
        kept_messages = []
        for i, (old, new) in enumerate(zip(row.messages, messages, strict=True)):
            taken = self.change(row, f"messages[{i}].content", old.content, new.content, step=step, why=why)
            kept_messages.append(msgspec.structs.replace(old, content=taken))
        kept_target = self.change(row, "target", row.target, target, step=step, why=why)
        example = Example(messages=tuple(kept_messages), target=kept_target)
        # the group stays what it was, an opaque key: rows that asked the same still share it
        return msgspec.structs.replace(row, id=example.id, messages=example.messages, target=example.target)

    def change(
        self, row: Row, field: str, before: str, after: str, *, step: str, why: str = "", shown: str | None = None
    ) -> str:
        """One text of the row, its change recorded: `after`, or `before` where a person restored it. `shown`: what
        changes.jsonl may keep of a `before` that must not stay behind."""
        if before == after:
            return after
        was = before if shown is None else shown
        change = Change(file=row.file, line=row.line, step=step, field=field, before=was, after=after, why=why)
        if self._asked and change.key in self._asked:
            self.restored.add(change.key)
            return before
        self.changed[step] += 1
        self._changes.write(change)
        return after

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if error is not None:
            return
        assert self.read == self.kept + self.left_out.total(), "a row is unaccounted for"
        counts = {
            "read": self.read,
            "kept": self.kept,
            "left_out": dict(sorted(self.left_out.items())),
            "changed": dict(sorted(self.changed.items())),
            "restored": sorted(self.restored),
        }
        write_atomic(self.folder / f"{self.step}.json", canonical_json({**counts, **self.facts}) + b"\n")
        self._work.summarize(**{k: counts[k] for k in ("read", "kept", "left_out", "changed")})
        self._work.progress(self._bytes, self._bytes, self.step, rows=self.read)
