"""What became of the data: its versions, every row that left or changed, and decisions taken back.

A version is a `dataset` artifact; they are numbered in the order in which this project first made them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.nouns import Change, LeftOut, Row, Run
from tunesmith.flows import compare
from tunesmith.flows.context import Context
from tunesmith.ledger.ledger import Ledger

SPLITS = ("train", "validation", "test")
MAKERS = ("prepare", "augment")
RESTORED = "restore"  # kind of the ledger's note
# left out for what no decision can mend, and the way that there is
FINAL = {
    "limit": "raise data.limit",
    "over_long": "raise train.max_tokens",
    "bridge": "it would put near copies of one text into both training and test",
    "forgotten": "it was erased on request",
    "contamination": "remove the file from data.dedup.against",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One data set this project has made."""

    name: str  # "v3"
    dataset: str  # artifact id
    made: str  # ISO 8601
    rows: dict[str, int]  # by split
    left_out: dict[str, int]  # by reason
    seal: str
    run: str


def versions(ledger: Ledger) -> list[Version]:
    """Oldest first."""
    makers = [r for stage in MAKERS for r in ledger.runs(stage=stage) if r.status == "finished"]
    first: dict[str, Run] = {}
    for run in sorted(makers, key=lambda r: r.started):
        first.setdefault(run.outputs["dataset"], run)
    found = []
    for number, (dataset, run) in enumerate(first.items(), 1):
        facts = read_json(ledger.path(dataset) / "dataset.json") if ledger.is_whole(dataset) else {}
        found.append(
            Version(
                name=f"v{number}",
                dataset=dataset,
                made=run.started,
                rows=facts.get("counts", {}),
                left_out=facts.get("left_out", {}),
                seal=facts.get("seal", ""),
                run=run.id,
            )
        )
    return found


def version(ledger: Ledger, name: str) -> Version:
    """By name ("v3", "latest") or the start of an artifact's id. Raises InputError."""
    every = versions(ledger)
    if not every:
        raise InputError("no data set has been made yet", where=name, fix="tunesmith data split")
    if name == "latest":
        latest = max((r for s in MAKERS for r in ledger.runs(stage=s, limit=1)), key=lambda r: r.started)
        return next(v for v in every if v.dataset == latest.outputs.get("dataset", every[-1].dataset))
    for v in every:
        if name == v.name or (len(name) >= 6 and v.dataset.startswith(name)):
            return v
    raise InputError("is not a version of the data", where=name, fix=f"one of {', '.join(v.name for v in every)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDiff:
    """What differs between two versions, row by row."""

    a: str
    b: str
    rows: dict[str, tuple[int, int]]  # by split
    added: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    moved: list[dict[str, Any]]  # in another split
    changed: list[dict[str, Any]]  # same place in the user's file, other content
    reasons: dict[str, tuple[int, int]]
    settings: list[tuple[str, Any, Any]]
    shown: int = 20

    def __str__(self) -> str:
        lines = [f"{self.a} → {self.b}"]
        lines += [f"  {split}: {a:,} → {b:,} rows" for split, (a, b) in self.rows.items()]
        for title, found in (
            ("added", self.added), ("removed", self.removed), ("moved", self.moved), ("changed", self.changed)
        ):  # fmt: skip
            if found:
                lines.append(f"{title}: {len(found):,}")
                lines += [f"  {one(r)}" for r in found[: self.shown]]
                lines += [f"  and {len(found) - self.shown:,} more (--json)"] if len(found) > self.shown else []
        changes = [f"  {reason}: {a:,} → {b:,}" for reason, (a, b) in self.reasons.items() if a != b]
        lines += ["left out:", *changes] if changes else []
        lines += ["settings:", *(f"  {k}: {a} → {b}" for k, a, b in self.settings)] if self.settings else []
        return "\n".join(lines) if len(lines) > 1 + len(self.rows) else f"{lines[0]}: the same rows in the same splits"


def one(row: dict[str, Any]) -> str:
    why = f"  {row['why']}" if row.get("why") else ""
    return f"{row['file']}:{row['line']}  {row['text']}{why}"


def data_diff(ledger: Ledger, a: str, b: str) -> DataDiff:
    left, right = version(ledger, a), version(ledger, b)
    rows_a, rows_b = _places(ledger.path(left.dataset)), _places(ledger.path(right.dataset))
    gone = {(g.file, g.line): g for g in _left_out(ledger.path(right.dataset))}
    ids_a, ids_b = {r[0] for r in rows_a.values()}, {r[0] for r in rows_b.values()}
    added, removed, moved, changed = [], [], [], []
    for place in sorted(rows_a.keys() | rows_b.keys(), key=str):
        before, after = rows_a.get(place), rows_b.get(place)
        said = {"file": place[0], "line": place[1], "text": (after or before or ("", "", ""))[2]}
        if before is None and after is not None:
            if after[0] not in ids_a:
                added.append({**said, "split": after[1]})
        elif after is None and before is not None:
            if before[0] not in ids_b:
                reason = gone[place].reason if place in gone else "no longer in the data"
                removed.append({**said, "split": before[1], "why": reason})
        elif before is not None and after is not None:
            if before[0] != after[0]:
                changed.append({**said, "before": before[2], "why": f"was: {before[2]}"})
            elif before[1] != after[1]:
                moved.append({**said, "why": f"{before[1]} → {after[1]}"})
    spec_a, spec_b = (_settings(ledger, v) for v in (left, right))
    return DataDiff(
        a=left.name,
        b=right.name,
        rows={s: (left.rows.get(s, 0), right.rows.get(s, 0)) for s in SPLITS},
        added=added,
        removed=removed,
        moved=moved,
        changed=changed,
        reasons=_paired(left.left_out, right.left_out),
        settings=[(k, spec_a.get(k), spec_b.get(k)) for k in sorted(spec_a | spec_b) if spec_a.get(k) != spec_b.get(k)],
    )


def _paired(a: dict[str, int], b: dict[str, int]) -> dict[str, tuple[int, int]]:
    return {reason: (a.get(reason, 0), b.get(reason, 0)) for reason in sorted(a | b)}


def _places(dataset: Path) -> dict[tuple[str, int], tuple[str, str, str]]:
    """Where a row stood -> its id, its split, its start. A row made by augmentation stands behind its origin."""
    from tunesmith.data.lines import excerpt

    return {
        (f"{row.file} ({row.origin})" if row.origin else row.file, row.line): (
            row.id,
            split,
            excerpt(row.example.input),
        )
        for split in SPLITS
        for row in read_lines(dataset / f"{split}.jsonl", Row)
    }


def _settings(ledger: Ledger, v: Version) -> dict[str, Any]:
    """Of every step behind this version, as "clean.steps"."""
    found: dict[str, Any] = {}
    run: Run | None = ledger.run(v.run)
    while run is not None:
        found |= {f"{run.stage}.{k}": value for k, value in compare.flatten(run.spec)}
        before = run.inputs.get("examples") or run.inputs.get("dataset")
        run = ledger.made_by(before) if isinstance(before, str) else None
    return found


# What left and what changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """One row that left or was altered."""

    key: str  # for `tunesmith data restore`
    file: str
    line: int
    step: str
    reason: str
    detail: str
    before: str
    after: str | None  # None: the row is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedRows:
    dataset: str
    rows: list[Removed]
    counts: dict[str, int]  # "clean.whitespace: altered" -> n, over all, whatever is shown
    shown: int = 40

    def __iter__(self) -> Iterator[Removed]:
        return iter(self.rows)

    def __str__(self) -> str:
        lines = [f"{n:>8,}  {what}" for what, n in self.counts.items()] or ["no row left or changed"]
        for r in self.rows[: self.shown]:
            lines.append(f"{r.key}  {r.file}:{r.line}  {r.step}: {r.reason}{': ' + r.detail if r.detail else ''}")
            lines.append(f"    {'- ' if r.after is not None else ''}{_short(r.before)}")
            if r.after is not None:
                lines.append(f"    + {_short(r.after)}")
        if len(self.rows) > self.shown:
            lines.append(f"and {len(self.rows) - self.shown:,} more (--reason, --step, --json)")
        if self.rows:
            lines.append("take one back:  tunesmith data restore KEY")
        return "\n".join(lines)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 100 else flat[:99] + "…"


def removed(context: Context, folder: Path, *, reason: str | None = None, step: str | None = None) -> RemovedRows:
    """Of the data set in `folder`: every row that left or was altered on the way to it."""
    rows: list[Removed] = []
    counts: Counter[str] = Counter()
    for gone in _left_out(folder):
        counts[f"{gone.step}: {gone.reason}"] += 1
        if reason in (None, gone.reason) and step in (None, gone.step):
            rows.append(
                Removed(
                    key=gone.key, file=gone.file, line=gone.line, step=gone.step, reason=gone.reason,
                    detail=gone.detail, before=gone.text, after=None,
                )
            )  # fmt: skip
    for change in _changes(folder):
        counts[f"{change.step}: altered"] += 1
        if reason in (None, "altered", change.step) and step in (None, change.step, change.step.split(".")[0]):
            rows.append(
                Removed(
                    key=change.key, file=change.file, line=change.line, step=change.step, reason="altered",
                    detail=change.why, before=change.before, after=change.after,
                )
            )  # fmt: skip
    if reason is not None and not rows:
        known = sorted({k.split(": ", 1)[1] for k in counts})
        raise InputError("no row has this reason", where=reason, fix=f"reasons: {', '.join(known) or 'none at all'}")
    return RemovedRows(dataset=folder.name, rows=rows, counts=dict(counts.most_common()))


def _left_out(dataset: Path) -> Iterator[LeftOut]:
    yield from read_lines(dataset / "left_out.jsonl", LeftOut)


def _changes(dataset: Path) -> Iterator[Change]:
    if (dataset / "changes.jsonl").exists():
        yield from read_lines(dataset / "changes.jsonl", Change)


# Decisions taken back


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    keys: tuple[str, ...]
    step: str
    undone: bool

    def __str__(self) -> str:
        rows = f"{len(self.keys)} row{'s' if len(self.keys) != 1 else ''}"
        verb = "no longer restored" if self.undone else "restored"
        return f"{rows} {verb} in {self.step}; the next run makes the data anew from there\nnext:  tunesmith data split"


def restore(context: Context, folder: Path, keys: tuple[str, ...], *, undo: bool = False) -> Restored:
    """Write down that these rows are to be kept as they were (or, `undo`, no longer). Raises InputError for keys
    that mean no row, and for rows that no decision can bring back."""
    before = decided(context.ledger)
    known = {r.key: r for r in removed(context, folder)}
    problems = []
    for key in keys:
        if undo:
            if key not in before:
                problems.append(Problem(where=key, what="was not restored", fix="tunesmith data log"))
        elif key not in known:
            problems.append(Problem(where=key, what="no row has this key", fix="tunesmith data removed lists them"))
        elif known[key].reason in FINAL:
            row = known[key]
            what = f"{row.file}:{row.line} was left out as {row.reason!r}, which cannot be taken back"
            problems.append(Problem(where=key, what=what, fix=FINAL[row.reason]))
    if problems:
        raise InputError(problems)
    steps = {key: before[key] if undo else known[key].step.split(".")[0] for key in keys}
    for key, step in steps.items():
        context.ledger.note(RESTORED, {"key": key, "step": step, "undo": undo})
    return Restored(keys=keys, step=", ".join(sorted(set(steps.values()))), undone=undo)


def decided(ledger: Ledger) -> dict[str, str]:
    """Keys restored and not taken back -> the step that would have left the row out."""
    found: dict[str, str] = {}
    for note in ledger.notes(RESTORED):
        if note["undo"]:
            found.pop(note["key"], None)
        else:
            found[note["key"]] = note["step"]
    return found


def restored_in(ledger: Ledger, step: str) -> tuple[str, ...]:
    return tuple(sorted(key for key, where in decided(ledger).items() if where == step))
