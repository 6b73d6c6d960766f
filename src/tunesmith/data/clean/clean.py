"""Stage clean: texts through the named steps in their order, every change of every step on the record.

    examples -> rows.jsonl, left_out.jsonl (rows that a step emptied), changes.jsonl, clean.json

Rows go in batches, so that a step sees many texts at once; the result does not depend on their size. What is
cleaned: the contents of the messages and, if asked, the target, with the rejected answer of a preference. Not touched: a class label, what a tool answered
(a machine wrote it for a machine), and the calls of tools.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Change, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.clean.boilerplate import Counting, Removal
from tunesmith.data.clean.catalogue import BOILERPLATE, NAMES, Batch, check_steps
from tunesmith.data.clean.patterns import Hopeless, Replacement
from tunesmith.data.clean.stages import CleanInputs, CleanOutputs, CleanSpec
from tunesmith.data.step import RowStep

BATCH = 1_000  # rows
SAMPLES = 5  # of each step, in clean.json
AROUND = 60  # characters shown on either side of the place where a sample changes
TARGET, REJECTED = -1, -2  # slots of a row beside those of its messages, which are their numbers

Steps = list[tuple[str, Batch]]  # by the name that changes are recorded under


@dataclass(slots=True)
class _History:
    """What the steps did to one row."""

    changes: list[tuple[int, dict[int, str]]] = field(default_factory=list)  # number of the step; slot -> new text
    emptied: str = ""  # by which step, and which field


def clean(spec: CleanSpec, inputs: CleanInputs, work: Workspace) -> CleanOutputs:
    """Raises InputError for unknown steps and unusable patterns, DataError for a pattern that does not end."""
    check_steps(spec.steps)
    steps: Steps = []
    more: dict[str, Any] = {}
    patterns = 0
    for step in spec.steps:
        if not isinstance(step, str):
            patterns += 1
            steps.append((f"replace_{patterns}", Replacement(step)))
        elif step == BOILERPLATE.name:
            removal, least, of_rows = _find_boilerplate(spec, steps, inputs.examples, work)
            steps.append((step, removal))
        else:
            steps.append((step, NAMES[step].resolve()))
    with RowStep(inputs.examples, work, step="clean", restored=spec.restored) as out:
        tallies = [_Tally(name) for name, _ in steps]
        for rows in batches(out.rows(), BATCH):
            for row, history in zip(rows, _run(steps, rows, spec)[0], strict=True):
                _record(out, row, history, tallies)
        if BOILERPLATE.name in spec.steps:
            more["boilerplate"] = removal.facts(least=least, of_rows=of_rows)
        out.facts = {"steps": [t.facts() for t in tallies], "fields": sorted(spec.fields), **more}
    return CleanOutputs(examples=out.folder)


def batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


def _slots(row: Row, spec: CleanSpec) -> list[int]:
    """Which texts of the row are cleaned. The text of a domain row, which has no messages, is its input."""
    slots = [i for i, m in enumerate(row.messages) if m.role != "tool"] if "input" in spec.fields else []
    is_text = "target" in spec.fields or ("input" in spec.fields and not row.messages)
    if not is_text or spec.kind == "classify":
        return slots
    return [*slots, TARGET, REJECTED] if row.rejected and "target" in spec.fields else [*slots, TARGET]


def _text(row: Row, slot: int) -> str:
    if slot < 0:
        return row.target if slot == TARGET else row.rejected
    return row.messages[slot].content


def _field(slot: int) -> str:
    if slot < 0:
        return "target" if slot == TARGET else "rejected"
    return f"messages[{slot}].content"


def _run(steps: Steps, rows: Sequence[Row], spec: CleanSpec) -> tuple[list[_History | None], list[list[str]]]:
    """For each row what the steps do to it, None for nothing, and its cleaned texts at the end. A change that a
    person took back is not made, and the steps after it see the text without it; RowStep.altered decides the same
    when the change is recorded."""
    places = [(r, slot) for r, row in enumerate(rows) for slot in _slots(row, spec)]
    texts = [_text(rows[r], slot) for r, slot in places]
    histories: list[_History | None] = [None] * len(rows)
    for number, (name, step) in enumerate(steps):
        try:
            after = step(texts)
        except Hopeless as e:
            row, slot = rows[places[e.index][0]], places[e.index][1]
            raise DataError(f"{name}: {e.what}", where=f"{row.file}:{row.line}: {_field(slot)}", fix=e.fix) from e
        if after is texts:
            continue
        for i, (old, new) in enumerate(zip(texts, after, strict=True)):
            if new is old or new == old:
                continue
            r, slot = places[i]
            history = histories[r] = histories[r] or _History()
            if not history.changes or history.changes[-1][0] != number:
                history.changes.append((number, {}))
            history.changes[-1][1][slot] = new
            if spec.restored and _is_restored(rows[r], slot, name, old, new, spec.restored):
                after[i] = old
            elif not history.emptied and old.strip() and not new.strip():
                history.emptied = f"{_field(slot)} is empty after {name}"
        texts = after
    ends: list[list[str]] = [[] for _ in rows]
    for (r, _), text in zip(places, texts, strict=True):
        ends[r].append(text)
    return histories, ends


def _is_restored(row: Row, slot: int, name: str, before: str, after: str, restored: Sequence[str]) -> bool:
    change = Change(
        file=row.file, line=row.line, step=f"clean.{name}", field=_field(slot), before=before, after=after
    )  # fmt: skip
    return change.key in restored


def _record(out: RowStep, row: Row, history: _History | None, tallies: list[_Tally]) -> None:
    if history is None:
        out.keep(row)
        return
    if history.emptied:
        out.leave_out(row, "emptied", history.emptied)  # a restored row is kept as it was
        return
    for number, texts in history.changes:
        messages = [
            msgspec.structs.replace(m, content=texts[i]) if i in texts else m for i, m in enumerate(row.messages)
        ]
        step = f"clean.{tallies[number].name}"
        after = out.altered(row, messages, texts.get(TARGET, row.target), step=step)
        if REJECTED in texts:
            rejected = out.change(row, "rejected", row.rejected, texts[REJECTED], step=step)
            after = msgspec.structs.replace(after, rejected=rejected)
        tallies[number].add(row, after, texts)
        row = after
    out.keep(row)


@dataclass(slots=True)
class _Tally:
    """What one step did to the rows that are kept."""

    name: str
    rows: int = 0
    texts: int = 0
    characters: int = 0  # by which the texts became shorter
    samples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, before: Row, after: Row, slots: dict[int, str]) -> None:
        changed = [s for s in slots if _text(before, s) != _text(after, s)]  # without what a person took back
        self.rows += bool(changed)
        self.texts += len(changed)
        for slot in changed:
            old, new = _text(before, slot), _text(after, slot)
            self.characters += len(old) - len(new)
            if len(self.samples) < SAMPLES:
                place = {"file": before.file, "line": before.line, "field": _field(slot)}
                self.samples.append(place | sample(old, new))

    def facts(self) -> dict[str, Any]:
        known = NAMES.get(self.name)
        return {
            "name": self.name,
            "what": known.what if known else "a pattern of the project's own",
            "lossless": known.lossless if known else False,
            "rows": self.rows,
            "texts": self.texts,
            "characters_removed": self.characters,
            "samples": self.samples,
        }


def sample(before: str, after: str) -> dict[str, str]:
    """Both texts about the first place where they differ."""
    least = min(len(before), len(after))
    at = next((i for i in range(least) if before[i] != after[i]), least)
    start = max(0, at - AROUND)
    return {"before": _window(before, start), "after": _window(after, start)}


def _window(text: str, start: int) -> str:
    end = start + 2 * AROUND
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


def _find_boilerplate(spec: CleanSpec, steps: Steps, examples: Path, work: Workspace) -> tuple[Removal, int, int]:
    """The first pass, over the texts as the steps before this one leave them. Also the threshold, and the number of
    rows that its share is of: those that check kept, so that leaving emptied rows out cannot lower it."""
    counting = Counting(spec.boilerplate_unit)
    rows_file = examples / "rows.jsonl"
    for rows in batches(read_lines(rows_file, Row), BATCH):
        for texts in _run(steps, rows, spec)[1]:
            counting.add(texts)
        work.stop_if_asked()
        work.progress(counting.rows, 0, "clean: boilerplate", rows=counting.rows)
    check = examples / "check.json"
    of_rows = int(read_json(check)["kept"]) if check.exists() else counting.rows
    least = max(spec.boilerplate_rows, math.ceil(spec.boilerplate_share * of_rows))
    return Removal(counting.repeated(least), spec.boilerplate_unit), least, of_rows
