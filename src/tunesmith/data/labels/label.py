"""Stage label: the labels of the rows, put right as the user and the annotators say.

    examples, judgments -> examples: targets by the map of variants, then by people's consensus; label.json,
                           label_errors.jsonl (suggestions for review; no row leaves because of them)

A judgment names a row by its id: the one it had when it came in, or the one it has after the map.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, read_json, write_atomic, write_lines
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.labels.errors import error_facts, label_errors
from tunesmith.data.labels.judged import Standing, read_judgments
from tunesmith.data.labels.stages import LabelInputs, LabelOutputs, LabelSpec
from tunesmith.data.labels.variants import suggest_variants
from tunesmith.data.step import RowStep
from tunesmith.metrics.consensus import Decision, consensus

STEP = "label"
ERRORS = "label_errors.jsonl"
SHOWN = 20  # ids of judged items that are in no row


def label(spec: LabelSpec, inputs: LabelInputs, work: Workspace) -> LabelOutputs:
    """Raises InputError for a map that contradicts itself, DataError for judgments that name no label."""
    refuse_spec(spec)
    standing = read_judgments(inputs.judgments, spec.queues) if inputs.judgments is not None else Standing()
    as_mapped = spec.variants.get  # people may use a label that the map has done away with
    decided = {
        d.item: d
        for d in consensus(
            [(item, who, as_mapped(said, said)) for item, who, said in standing.votes],
            method=spec.method,
            threshold=spec.threshold,
            labels=spec.labels,
            adjudicated={item: as_mapped(said, said) for item, said in standing.adjudicated.items()},
        )
    }
    with RowStep(inputs.examples, work, step=STEP, restored=spec.restored) as out:
        pass_ = _Pass(spec, decided, standing, out)
        for row in out.rows():
            pass_.take(row)
        out.facts = pass_.facts()
    (out.folder / ERRORS).unlink(missing_ok=True)
    if spec.errors:
        suggest_errors(spec, out.folder, pass_, work)
    return LabelOutputs(examples=out.folder)


def suggest_errors(spec: LabelSpec, folder: Path, done: _Pass, work: Workspace) -> None:
    """Writes label_errors.jsonl and its facts. Rows that people have decided are not suggested again."""
    found, facts = label_errors(
        folder / "rows.jsonl",
        count=spec.errors,
        most_rows=spec.errors_rows,
        folds=spec.folds,
        seed=spec.seed,
        decided=done.settled,
        came_in_as=done.came_in_as,
        work=work,
    )
    write_lines(folder / ERRORS, found)
    whole = {**read_json(folder / f"{STEP}.json"), "errors": error_facts(found, facts)}
    write_atomic(folder / f"{STEP}.json", canonical_json(whole) + b"\n")


def refuse_spec(spec: LabelSpec) -> None:
    """A map whose result depended on how often it is applied, or whose labels are not declared; all problems at once."""
    problems = []
    for given, wanted in sorted(spec.variants.items()):
        where = f"data.labels.variants.{given}"
        if wanted in spec.variants and spec.variants[wanted] != wanted:
            what = f"becomes {wanted!r}, which itself becomes {spec.variants[wanted]!r}"
            problems.append(Problem(where=where, what=what, fix=f"map it to {spec.variants[wanted]!r}"))
        if spec.labels and wanted not in spec.labels:
            what = f"becomes {wanted!r}, which is not among the declared labels"
            problems.append(Problem(where=where, what=what, fix="correct it, or add it to task.labels"))
    if spec.kind != "classify" and spec.method != "majority":
        what = f"{spec.method} estimates how classes are confused, and a {spec.kind} task has none"
        problems.append(Problem(where="data.labels.method", what=what, fix="--set data.labels.method=majority"))
    if spec.kind != "classify" and spec.errors:
        what = f"probable label errors are found among classes, and a {spec.kind} task has none"
        problems.append(Problem(where="data.labels.errors", what=what, fix="--set data.labels.errors=0"))
    if problems:
        raise InputError(problems)


@dataclass(slots=True)
class _Pass:
    """One row after another: the map, then the people, then what became a duplicate by it."""

    spec: LabelSpec
    decided: Mapping[str, Decision]
    standing: Standing
    out: RowStep
    mapped: Counter[str] = field(default_factory=Counter)  # rows of each label that the map names
    labels: Counter[str] = field(default_factory=Counter)  # of the kept rows
    outcomes: Counter[str] = field(default_factory=Counter)
    met: set[str] = field(default_factory=set)  # judged items that are rows
    kept: dict[bytes, bool] = field(default_factory=dict)  # of kept rows, 16 bytes of the id -> was it altered
    settled: set[str] = field(default_factory=set)  # ids as they are now of rows that people decided
    came_in_as: dict[str, str] = field(default_factory=dict)  # id now -> id before, of altered rows

    def take(self, row: Row) -> None:
        before = row.id
        if row.target in self.spec.variants:
            self.mapped[row.target] += 1
            row = self._mapped(row)
        names = [
            name for name in dict.fromkeys((before, row.id)) if name in self.decided or name in self.standing.skipped
        ]
        self.met.update(names)
        decision = next((self.decided[name] for name in names if name in self.decided), None)
        if decision is not None:
            if decision.disputed and self.spec.disputed == "leave_out":
                if self.out.leave_out(row, "disputed", _because(decision)):
                    self.outcomes["disputed"] += 1
                    return
                self.outcomes["disputed_kept"] += 1
                self._note(row, before)
                return
            row = self._decided(row, decision)
            if not decision.disputed:
                self.settled.add(row.id)
        elif names:
            self.outcomes["skipped"] += 1
        if not row.target and self.out.leave_out(row, "unlabelled", "nobody has labelled it yet"):
            self.outcomes["unlabelled"] += 1
            return
        self._keep(row, before)

    def _mapped(self, row: Row) -> Row:
        wanted = self.spec.variants[row.target]
        return self.out.altered(row, row.messages, wanted, step=f"{STEP}.variants", why="data.labels.variants")

    def _decided(self, row: Row, decision: Decision) -> Row:
        if decision.disputed or decision.label is None:
            self.outcomes["disputed_kept"] += 1
            return row
        if decision.label == row.target:
            self.outcomes["confirmed"] += 1
            return row
        self.outcomes["corrected"] += 1
        step = "adjudicated" if decision.how == "adjudicated" else "consensus"
        return self.out.altered(row, row.messages, decision.label, step=f"{STEP}.{step}", why=_because(decision))

    def _keep(self, row: Row, before: str) -> None:
        """A row that says the same as another only since one of them was altered is a duplicate made here."""
        key, altered = bytes.fromhex(row.id)[:16], row.id != before
        twin = self.kept.get(key)
        if twin is not None and (twin or altered):
            detail = "says the same as another row since labels were put right"
            if self.out.leave_out(row, "duplicate", detail):
                return
        else:
            self.out.keep(row)
        self.kept[key] = altered or bool(twin)
        self._note(row, before)

    def _note(self, row: Row, before: str) -> None:
        if self.spec.kind == "classify":
            self.labels[row.target] += 1
        if row.id != before:
            self.came_in_as[row.id] = before

    def facts(self) -> dict[str, Any]:
        spec, standing = self.spec, self.standing
        judged = set(self.decided) | set(standing.skipped)
        strange = sorted(judged - self.met)
        classify = spec.kind == "classify"
        return {
            "variants": {
                "mapped": [
                    {"label": given, "into": wanted, "rows": self.mapped[given]}
                    for given, wanted in sorted(spec.variants.items())
                ],
                "suggested": suggest_variants(self.labels, spec.labels) if classify else [],
            },
            "judgments": {
                "read": standing.verbs.total(),
                "verbs": dict(sorted(standing.verbs.items())),
                "votes": len(standing.votes),
                "adjudicated": len(standing.adjudicated),
                "undone": standing.undone,
                "replaced": standing.replaced,
                "other_queues": standing.other_queues,
                "other_verbs": standing.other_verbs,
            },
            "consensus": {
                "method": spec.method,
                "threshold": spec.threshold,
                "policy": spec.disputed,
                "items": len(self.decided),
                "in_no_row": len(strange),
                "in_no_row_first": strange[:SHOWN],
                **{k: self.outcomes[k] for k in ("confirmed", "corrected", "disputed", "disputed_kept", "skipped")},
            },
            "labels": dict(sorted(self.labels.items())),
            "errors": None,
        }


def _because(d: Decision) -> str:
    votes = ", ".join(f"{label!r} {n}" for label, n in d.votes.items()) or "none"
    if d.how == "adjudicated":
        return f"adjudicated; votes: {votes}"
    if d.tied:
        return f"a tie; votes: {votes}"
    return f"{d.how}, probability {d.probability:.3f}; votes: {votes}"


def label_words(facts: dict[str, Any]) -> str:
    """label.json for the terminal."""
    lines = [f"labels: {facts['kept']:,} of {facts['read']:,} rows kept"]
    for m in facts["variants"]["mapped"]:
        unused = "" if m["rows"] else ": no row has this label; is it spelled as in the data?"
        lines.append(f"  {m['label']!r} is now {m['into']!r} in {m['rows']:,} rows{unused}")
    for s in facts["variants"]["suggested"]:
        why = {"case": "case alone", "spaces": "spaces or separators alone", "typo": "one slip of the pen"}[s["why"]]
        lines.append(
            f"  {s['label']!r} ({s['rows']:,} rows) differs from {s['suggested']!r} ({s['suggested_rows']:,}) by {why}; "
            f"to merge, under data.labels.variants: {_quoted(s['label'])}: {_quoted(s['suggested'])}"
        )
    c = facts["consensus"]
    if c["items"]:
        kept = "kept with the label of the data" if c["policy"] == "keep" else "left out"
        lines.append(
            f"  {c['items']:,} items judged: {c['confirmed']:,} labels confirmed, {c['corrected']:,} corrected, "
            f"{c['disputed'] + c['disputed_kept']:,} disputed and {kept}, {c['skipped']:,} skipped by all who saw them"
        )
    if c["in_no_row"]:
        lines.append(f"  {c['in_no_row']:,} judged items are no rows of this data any more; their judgments wait")
    errors = facts["errors"]
    if errors is not None:
        lines.append(errors["words"])
    return "\n".join(lines)


def _quoted(label: str) -> str:
    """As tunesmith.yaml takes it, whatever is in the label."""
    return json.dumps(label, ensure_ascii=False)
