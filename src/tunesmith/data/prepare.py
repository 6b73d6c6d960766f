"""Stage prepare: divide the examples, take a subset if asked, and prove that every row fits the model.

    examples, base model -> train.jsonl, validation.jsonl, test.jsonl, left_out.jsonl, dataset.json;
    and what earlier steps say about the rows: changes.jsonl, check.json and a file of facts for each other step

Two passes: the first (survey.py, placing.py) holds a few numbers for each row and decides its split, the second
counts tokens with the model's own tokenizer and template and writes the rows unchanged.
"""

from __future__ import annotations

import math
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.canonical import canonical_json, file_id, read_json, read_lines, write_atomic
from tunesmith.core.errors import DataError, Problem, TunesmithError
from tunesmith.core.nouns import LeftOut, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.lines import Fault
from tunesmith.data.placing import Placement, place_rows, shares_of
from tunesmith.data.split import NAMES
from tunesmith.data.stages import PrepareInputs, PrepareOutputs, PrepareSpec
from tunesmith.data.subset import subset
from tunesmith.data.survey import Survey, look
from tunesmith.data.survey import left_out as left_out_row
from tunesmith.data.validate import Problems
from tunesmith.data.write import LinesWriter
from tunesmith.text.render import Rendered, Renderer

BATCH = 256  # rows tokenized together


def prepare(spec: PrepareSpec, inputs: PrepareInputs, work: Workspace) -> PrepareOutputs:
    """Raises DataError for small classes, an uneven or empty split, and rows that are too long; each lists all."""
    rows_file = inputs.examples / "rows.jsonl"
    shares_of(spec)  # what cannot be meant is refused before anything is read
    survey = look(rows_file, spec, inputs.previous, work)
    refuse_small_classes(survey, spec)
    placed = place_rows(spec, survey, has_previous=inputs.previous is not None, work=work)
    chosen = _subset(spec, survey, placed)

    folder = work.scratch / "dataset"
    folder.mkdir(parents=True, exist_ok=True)
    renderer = Renderer.load(inputs.base, system=spec.system)
    counts = _Counts()
    with ExitStack() as stack:
        files = [stack.enter_context(LinesWriter(folder / f"{name}.jsonl")) for name in NAMES]
        left_out = stack.enter_context(LinesWriter(folder / "left_out.jsonl"))
        for gone in read_lines(inputs.examples / "left_out.jsonl", LeftOut):
            counts.leave_out(gone, left_out)
        done = 0
        for batch in _batches(rows_file, placed, chosen, spec, counts, left_out):
            _measure(batch, renderer, spec, counts, files, left_out)
            done += len(batch)
            work.stop_if_asked()
            work.progress(done, len(chosen or survey.ids), "prepare", tokens=counts.tokens)
    counts.refuse(spec)
    _refuse_emptied(counts)
    facts = dataset_facts(spec, survey, placed, counts, by=read_json(inputs.examples / "check.json")["groups"]["by"])
    facts["seal"] = file_id(folder / "test.jsonl")
    _copy_facts(inputs.examples, folder)
    write_atomic(folder / "dataset.json", canonical_json(facts) + b"\n")
    work.summarize(counts=facts["counts"], tokens=counts.tokens, deviation=facts["split"]["deviation"])
    return PrepareOutputs(dataset=folder)


def _subset(spec: PrepareSpec, survey: Survey, placed: Placement) -> set[int] | None:
    """The rows of the limit, of those that have a place; None: all."""
    if spec.limit is None or spec.limit >= survey.rows - len(placed.left_out):
        return None
    kept = [i for i in range(survey.rows) if i not in placed.left_out]
    ids, splits, classes = ([values[i] for i in kept] for values in (survey.ids, placed.code, survey.row_class))
    found = subset(ids, [int(s) for s in splits], [int(c) for c in classes], spec.limit, spec.seed)
    return {kept[i] for i in found}


def _copy_facts(examples: Path, folder: Path) -> None:
    """What check and the steps after it found and changed belongs to the data set too."""
    for path in sorted(examples.iterdir()):
        if path.suffix == ".json" or path.name == "changes.jsonl":
            shutil.copyfile(path, folder / path.name)


def small_classes(survey: Survey, spec: PrepareSpec) -> dict[str, int]:
    """Classes with too few rows in the whole data, whatever the limit."""
    return {c: survey.class_rows[c] for c in sorted(survey.classes) if survey.class_rows[c] < spec.min_class_rows}


def refuse_small_classes(survey: Survey, spec: PrepareSpec) -> None:
    """Raises one DataError that lists them all, unless they are to be kept."""
    small = small_classes(survey, spec)
    if not small or spec.small_classes == "keep":
        return
    problems = []
    for label, n in small.items():
        lacking = spec.min_class_rows - n
        what = f"the class {label!r} has {_too_few(n, spec)}: too few to split and to judge"
        problems.append(Problem(where="data", what=what, fix=f"add {lacking} rows, or merge it with another class"))
    fix = "to keep them in the data without judging them: --set data.small_classes=keep"
    problems.append(Problem(where="", what=f"{len(small)} of {len(survey.classes)} classes are too small", fix=fix))
    raise DataError(problems)


def _too_few(n: int, spec: PrepareSpec) -> str:
    return f"{n} row{'' if n == 1 else 's'}, fewer than {spec.min_class_rows}"


@dataclass(slots=True)
class _Counts:
    """What the second pass counts."""

    rows: list[int] = field(default_factory=lambda: [0, 0, 0])
    classes: dict[str, list[int]] = field(default_factory=dict)
    prompt: array[int] = field(default_factory=lambda: array("q"))  # tokens, of each row
    answer: array[int] = field(default_factory=lambda: array("q"))
    left_out: Counter[str] = field(default_factory=Counter)
    problems: Problems = field(default_factory=Problems)
    tokens: int = 0
    longest: int = 0
    read: int = 0

    def leave_out(self, gone: LeftOut, file: LinesWriter) -> None:
        self.left_out[gone.reason] += 1
        file.write(gone)

    def keep(self, row: Row, split: int, prompt: int, answer: int, *, classify: bool) -> None:
        self.rows[split] += 1
        if classify:
            self.classes.setdefault(row.target, [0, 0, 0])[split] += 1
        self.prompt.append(prompt)
        self.answer.append(answer)
        self.tokens += prompt + answer

    def refuse(self, spec: PrepareSpec) -> None:
        fixes = []
        if self.problems.reasons["over_long"]:
            fixes.append(f"--set train.max_tokens={self.longest} takes the longest")
            fixes.append("--set data.over_long=leave_out leaves such rows out with their reason; none is ever cut")
        if self.problems.reasons["template"]:
            fixes.append("correct the rows that the model's chat template refuses, or choose another model")
        self.problems.raise_if_any(read=self.read, fix="; ".join(fixes))


@dataclass(frozen=True, slots=True)
class _Placed:
    line: bytes
    row: Row
    split: int


def _batches(
    rows_file: Path,
    placed: Placement,
    chosen: set[int] | None,
    spec: PrepareSpec,
    counts: _Counts,
    left_out: LinesWriter,
) -> Iterator[list[_Placed]]:
    """The chosen rows with their split; the others are left out as bridges or by the limit."""
    decode = msgspec.json.Decoder(Row).decode
    batch: list[_Placed] = []
    with open(rows_file, "rb") as f:
        for i, line in enumerate(f):
            row = decode(line)
            if i in placed.left_out:
                counts.leave_out(left_out_row(row, *placed.left_out[i]), left_out)
                continue
            if chosen is not None and i not in chosen:
                counts.leave_out(left_out_row(row, "limit", f"outside the subset of {spec.limit} rows"), left_out)
                continue
            batch.append(_Placed(line.rstrip(b"\n"), row, int(placed.code[i])))
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _measure(
    batch: list[_Placed],
    renderer: Renderer,
    spec: PrepareSpec,
    counts: _Counts,
    files: list[LinesWriter],
    left_out: LinesWriter,
) -> None:
    """Count the tokens of each row and write it into its split, unless it does not fit."""
    for placed, rendered in zip(batch, _render(batch, renderer), strict=True):
        row = placed.row
        counts.read += 1
        if isinstance(rendered, Fault):
            counts.problems.add_row(f"{row.file}:{row.line}", rendered)
            continue
        total, answer = len(rendered.ids), _answer_tokens(rendered)
        if total > spec.max_tokens:
            counts.longest = max(counts.longest, total)
            what = f"{total:,} tokens (prompt {total - answer:,}, answer {answer:,}), {spec.max_tokens:,} at most"
            if spec.over_long == "refuse":
                counts.problems.add_row(f"{row.file}:{row.line}", Fault(reason="over_long", what=what))
            counts.leave_out(left_out_row(row, "over_long", what), left_out)
            continue
        files[placed.split].write_line(placed.line)
        counts.keep(row, placed.split, total - answer, answer, classify=spec.kind == "classify")


def _render(batch: list[_Placed], renderer: Renderer) -> list[Rendered | Fault]:
    try:
        return list(renderer.render_rows(p.row for p in batch))
    except TunesmithError:
        return [_render_one(p.row, renderer) for p in batch]  # slower, to know which


def _render_one(row: Row, renderer: Renderer) -> Rendered | Fault:
    try:
        return renderer.render(row.messages, row.target, row.tools)
    except TunesmithError as e:
        return Fault(reason="template", what=e.problems[0].what, fix=e.problems[0].fix)


def _answer_tokens(rendered: Rendered) -> int:
    """The answer is the last run of trained tokens; what stands between turns is not trained."""
    n = 0
    for trained in reversed(rendered.trained):
        if not trained:
            break
        n += 1
    return n


def _refuse_emptied(counts: _Counts) -> None:
    empty = [name for name, n in zip(NAMES, counts.rows, strict=True) if not n]
    if empty:
        raise DataError(
            f"no row is left in {' and '.join(empty)}: {sum(counts.left_out.values()):,} rows are left out",
            where="data.split",
            fix="raise train.max_tokens or data.limit, or add rows",
        )


def dataset_facts(spec: PrepareSpec, survey: Survey, placed: Placement, counts: _Counts, *, by: str) -> dict[str, Any]:
    """dataset.json but for the seal."""
    labels = sorted(survey.classes)
    table = {c: dict(zip(NAMES, counts.classes.get(c, [0, 0, 0]), strict=True)) for c in labels}
    small = small_classes(survey, spec)
    not_judged = {c: _too_few(n, spec) for c, n in small.items()}
    not_judged |= {c: "no rows in the test set" for c in labels if c not in small and not table[c]["test"]}
    total = sum(counts.rows)
    asked = dict(zip(NAMES, shares_of(spec), strict=True))
    got = {name: round(n / total, 6) for name, n in zip(NAMES, counts.rows, strict=True)}
    worst = placed.assessment.worst_stratum
    return {
        "kind": spec.kind,
        "labels": labels,
        "counts": dict(zip(NAMES, counts.rows, strict=True)),
        "class_counts": table,
        "not_judged": dict(sorted(not_judged.items())),
        "untrained": [c for c in labels if survey.class_rows[c] and not table[c]["train"]],
        "split": {
            "by": by,
            "method": spec.by,
            "salt": spec.salt,
            "groups": len(set(survey.group[: survey.rows].tolist())),
            "units": len(placed.units.groups),
            "shares": got,
            "asked": asked,
            "deviation": round(max(abs(got[name] - asked[name]) for name in NAMES), 6),
            "allowed": {gap.split: round(gap.allowed, 6) for gap in placed.assessment.sizes},
            "worst_class": None
            if worst is None
            else {
                "label": worst.label,
                "split": worst.split,
                "share": round(worst.share, 6),
                "of_all": round(worst.wanted, 6),
            },
            **placed.facts,
        },
        "tokens": {
            "prompt": _spread(counts.prompt),
            "answer": _spread(counts.answer),
            "total": counts.tokens,
            "longest": max(map(sum, zip(counts.prompt, counts.answer, strict=True))),
            "limit": spec.max_tokens,
        },
        "left_out": dict(sorted(counts.left_out.items())),
        "limit": spec.limit,
        "system": spec.system,
    }


def _spread(tokens: array[int]) -> dict[str, float]:
    """Mean and nearest-rank quantiles."""
    ordered, n = sorted(tokens), len(tokens)
    p95 = ordered[math.ceil(0.95 * n) - 1]
    return {"mean": round(sum(ordered) / n, 3), "p50": ordered[(n - 1) // 2], "p95": p95, "max": ordered[-1]}
