"""What check.json says: counts, classes, lengths, and what a person should look at before training."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.core.nouns import LeftOut, Row
from tunesmith.data.formats.known import ONE_RECORD, Unread
from tunesmith.data.lines import FileFacts
from tunesmith.data.shapes.known import Shape
from tunesmith.data.stages import CheckSpec
from tunesmith.data.validate import label_variants

EXAMPLES = 3  # of each reason, in check.json
LARGEST = 5  # groups listed
BIG_GROUP = 0.2  # share of the rows beyond which one group decides a split
LONG_RECORD = 50  # physical lines of one record beyond which a quote was probably left open


@dataclass(slots=True)
class Tally:
    """Counts that grow with every row read."""

    read: int = 0
    kept: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    class_groups: dict[str, set[str]] = field(default_factory=dict)
    input_chars: array[int] = field(default_factory=lambda: array("L"))
    answer_chars: array[int] = field(default_factory=lambda: array("L"))
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    duplicates_kept: int = 0
    several_answers: int = 0
    asked_in_two_groups: int = 0
    restored: set[str] = field(default_factory=set)
    unlabelled: int = 0

    def keep(self, row: Row, *, classify: bool) -> None:
        self.kept += 1
        self.groups[row.group] += 1
        self.input_chars.append(sum(len(m.content) for m in row.messages))
        self.answer_chars.append(len(row.target))
        if classify and not row.target:
            self.unlabelled += 1
        elif classify:
            self.classes[row.target] += 1
            self.class_groups.setdefault(row.target, set()).add(row.group)

    def forget_kept(self) -> None:
        """Before a second pass counts the kept rows again."""
        self.kept = 0
        self.classes.clear()
        self.unlabelled = 0
        self.groups.clear()
        self.class_groups.clear()
        del self.input_chars[:]
        del self.answer_chars[:]

    def leave_out(self, gone: LeftOut) -> None:
        self.left_out[gone.reason] += 1
        shown = self.examples.setdefault(gone.reason, [])
        if len(shown) < EXAMPLES:
            shown.append({"where": f"{gone.file}:{gone.line}", "detail": gone.detail, "text": gone.text})


def report_of(
    spec: CheckSpec, shapes: Sequence[Shape], facts: Sequence[FileFacts], unread: Sequence[Unread], tally: Tally
) -> dict[str, Any]:
    """check.json: enough for a page on the data without reading it again."""
    labels = sorted(set(spec.labels) | set(tally.classes)) if spec.kind == "classify" else []
    grouped = spec.group is not None
    together = _together(shapes, facts)
    return {
        "kind": spec.kind,
        "read": tally.read,
        "kept": tally.kept,
        "left_out": dict(sorted(tally.left_out.items())),
        "left_out_examples": dict(sorted(tally.examples.items())),
        "restored": sorted(tally.restored),
        "files": [_file(shape, fact, n) for shape, fact, n in together],
        "not_read": [{"file": u.file, "reason": u.reason, "what": u.what, "fix": u.fix} for u in unread],
        "shape_words": "\n".join(_shape_words(shape, fact, n) for shape, fact, n in together),
        "shape": ", ".join(dict.fromkeys(shape.name for shape in shapes)),
        "labels": labels,
        "class_counts": {label: tally.classes[label] for label in labels},
        "class_groups": {label: len(tally.class_groups.get(label, ())) for label in labels} if grouped else {},
        "groups": {
            "by": "group" if grouped else "row",
            "column": spec.group,
            "n": len(tally.groups),
            "largest": [
                {"group": group, "rows": n}
                for group, n in sorted(tally.groups.items(), key=lambda g: (-g[1], g[0]))[:LARGEST]
            ]
            if grouped
            else [],
        },
        "input_characters": _quantiles(tally.input_chars),
        "answer_characters": _quantiles(tally.answer_chars),
        "unlabelled": tally.unlabelled,
        "duplicates": {"left_out": tally.left_out["duplicate"], "kept": tally.duplicates_kept},
        "contradictions": {"left_out": tally.left_out["contradiction"]},
        "several_answers": tally.several_answers,
        "findings": [
            *_file_findings(together),
            *_unread_findings(unread),
            *_class_findings(spec, tally),
            *_row_findings(spec, tally),
        ],
    }


def _together(shapes: Sequence[Shape], facts: Sequence[FileFacts]) -> list[tuple[Shape, FileFacts, int]]:
    """Files with what they are; those of one record each (mail, texts) as one entry a folder, with their number."""
    entries: dict[tuple[str, ...], tuple[Shape, FileFacts, int]] = {}
    for shape, fact in zip(shapes, facts, strict=True):
        if fact.format not in (*ONE_RECORD, "mbox") or "/" not in fact.file:
            entries[(fact.file,)] = (shape, fact, 1)
            continue
        folder = fact.file.rpartition("/")[0] + "/"
        key = (folder, "text" if fact.format == "text" else "mail")
        _, whole, n = entries.setdefault(key, (shape, replace(fact, file=folder, bytes=0, lines=0, notes=[]), 0))
        whole.bytes += fact.bytes
        whole.lines += fact.lines
        whole.crlf_lines += fact.crlf_lines if n else 0
        whole.notes += [note for note in fact.notes if note not in whole.notes]
        entries[key] = (shape, whole, n + 1)
    return list(entries.values())


def _file(shape: Shape, fact: FileFacts, n: int) -> dict[str, Any]:
    return {
        "file": fact.file,
        "files": n,
        "packed": fact.packed,
        "format": fact.format,
        "bytes": fact.bytes,
        "lines": fact.lines,
        "delimiter": fact.delimiter,
        "bom": fact.bom,
        "crlf_lines": fact.crlf_lines,
        "blank_lines": fact.blank_lines,
        "shape": shape.name,
        "why": shape.why,
        "columns": [{"name": name, "use": shape.used.get(name, "unused")} for name in (fact.columns or fact.keys)],
        "notes": fact.notes,
    }


NAMES = {"parquet": "Parquet", "arrow": "Arrow", "excel": "spreadsheet", "sqlite": "SQLite", "mail": "mail",
         "mbox": "mail", "text": "text", "query": "SQL"}  # fmt: skip


def _shape_words(shape: Shape, fact: FileFacts, n: int) -> str:
    """One sentence: what the file is and how it is read."""
    format = (
        NAMES.get(fact.format, fact.format.upper())
        if fact.delimiter in ("", ",", "\t")
        else f"CSV with {fact.delimiter!r}"
    )
    if shape.name in ("text_label", "text"):
        used = ", ".join(f"{role} from {column!r}" for column, role in shape.used.items())
    else:
        used = f"shape {shape.name.replace('_', ' and ')}" + (f", group from {shape.group!r}" if shape.group else "")
    many = f" ({n:,} files)" if n > 1 else ""
    return f"{fact.file}{many}: {format}, {used} ({shape.why})"


def _quantiles(lengths: array[int]) -> dict[str, float]:
    """Nearest-rank quantiles, in characters."""
    if not lengths:
        return {}
    ordered = sorted(lengths)
    n = len(ordered)
    at = {"min": 0, "p50": (n - 1) // 2, "p95": math.ceil(0.95 * n) - 1, "max": n - 1}
    return {name: ordered[i] for name, i in at.items()} | {"mean": round(sum(ordered) / n, 1)}


def _finding(what: str, where: str = "", fix: str = "") -> dict[str, str]:
    return {"what": what, "where": where, "fix": fix}


def _unread_findings(unread: Sequence[Unread]) -> list[dict[str, str]]:
    """One for each file; where many are not read for one reason, the first ones and how many more."""
    found = []
    seen: Counter[str] = Counter()
    for u in unread:
        if not u.harmless:
            seen[u.reason] += 1
            if seen[u.reason] <= LARGEST:
                found.append(_finding(f"is not read: {u.what}", u.file, u.fix))
    for reason, n in sorted(seen.items()):
        if n > LARGEST:
            found.append(_finding(f"{n - LARGEST:,} more files are not read ({reason}); check.json lists them all"))
    return found


def _file_findings(together: Sequence[tuple[Shape, FileFacts, int]]) -> list[dict[str, str]]:
    found = []
    for shape, fact, _ in together:
        explicit = "name the file .tsv, or use commas, to be explicit" if fact.format == "csv" else ""
        found += [_finding(note, fact.file, explicit) for note in fact.notes]
        unused = [name for name in (fact.columns or fact.keys) if name not in shape.used]
        if unused:
            found.append(_finding(f"columns that are not used: {', '.join(map(repr, unused))}", fact.file))
        span, line = fact.longest_record
        if span >= LONG_RECORD and fact.format in ("csv", "tsv"):
            fix = "close the quote, if one was left open"
            found.append(_finding(f"one record spans {span:,} lines", f"{fact.file}:{line}", fix))
    return found


def _class_findings(spec: CheckSpec, tally: Tally) -> list[dict[str, str]]:
    if spec.kind != "classify":
        return []
    where = spec.label or "label"
    found = []
    for variants in label_variants(tally.classes):
        counts = ", ".join(f"{label!r} ({tally.classes[label]:,})" for label in variants)
        found.append(_finding(f"labels that differ only in case or space: {counts}", where, "write them alike"))
    small = {label: n for label, n in sorted(tally.classes.items()) if n < spec.min_class_rows}
    if small:
        counts = ", ".join(f"{label!r} ({n})" for label, n in small.items())
        fix = "add rows, merge classes, or keep them without judging them: --set data.small_classes=keep"
        found.append(_finding(f"classes with fewer than {spec.min_class_rows} rows: {counts}", where, fix))
    few = [label for label in sorted(tally.classes) if label not in small and len(tally.class_groups[label]) < 3]
    if few:
        fix = "add rows of other groups: a split needs a group of the class on each side"
        found.append(_finding(f"classes in fewer than three groups: {', '.join(map(repr, few))}", where, fix))
    unseen = sorted(set(spec.labels) - set(tally.classes))
    if unseen:
        found.append(_finding(f"declared labels without a row: {', '.join(map(repr, unseen))}", "task.labels"))
    numbers = [label for label in sorted(tally.classes) if label.strip().lstrip("+-").isdecimal()]
    if numbers:
        fix = "a word says more to a language model than a number"
        found.append(_finding(f"labels that are numbers: {', '.join(numbers[:10])}", where, fix))
    return found


def _row_findings(spec: CheckSpec, tally: Tally) -> list[dict[str, str]]:
    found = []
    if tally.duplicates_kept:
        what = f"{tally.duplicates_kept:,} duplicates are kept (data.duplicates: keep): they count more than once"
        found.append(_finding(what))
    if tally.several_answers:
        what = f"{tally.several_answers:,} rows answer a question that an earlier row answers otherwise"
        found.append(_finding(what, "", "fine if all answers are good; they stay on one side of the split"))
    if spec.group is None:
        return found
    if tally.asked_in_two_groups:
        what = f"{tally.asked_in_two_groups:,} kept rows ask what a row of another group asks: a split may part them"
        found.append(_finding(what, spec.group, "--set data.duplicates=leave_out, or give such rows one group"))
    if len(tally.groups) == tally.kept:
        what = f"every row has a {spec.group!r} of its own: the groups join nothing"
        found.append(_finding(what, spec.group, "name a column that rows about the same thing share, or none"))
    if tally.groups:
        name, n = max(tally.groups.items(), key=lambda g: (g[1], g[0]))
        if n > BIG_GROUP * tally.kept:
            what = f"the group {name!r} has {n:,} of {tally.kept:,} rows, and cannot be divided"
            found.append(_finding(what, spec.group, "a finer group gives an even split"))
    return found
