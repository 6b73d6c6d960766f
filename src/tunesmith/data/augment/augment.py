"""Stage augment: marked copies join the training rows, and classes are balanced.

    dataset, base model -> dataset: train.jsonl longer, all else as it was; augment.json; augment_refused.jsonl

    1  copies of each training row, judged (too near validation or test, too long, nothing new), into a file
    2  train.jsonl: the rows as they were, then the copies, then repeated rows, with the weights of their classes
    3  the effect on validation, by the cheap model with and without

The other splits and the seal of the test set are copied byte for byte.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.canonical import canonical_json, content_id, read_json, read_lines, write_atomic
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.nouns import LeftOut, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.augment.ablation import ablation
from tunesmith.data.augment.balance import class_weights, repeats, times
from tunesmith.data.augment.copies import Refused, copies_of
from tunesmith.data.augment.lengths import Lengths
from tunesmith.data.augment.nearness import Forbidden
from tunesmith.data.augment.paraphrase import Asked, teacher
from tunesmith.data.augment.stages import AugmentInputs, AugmentOutputs, AugmentSpec
from tunesmith.data.lines import excerpt
from tunesmith.data.proxy import rank_of, row_text
from tunesmith.data.validate import input_key
from tunesmith.data.write import LinesWriter
from tunesmith.text.render import Renderer

EVERY = 500  # rows between progress reports
REFUSED = "augment_refused.jsonl"


def augment(spec: AugmentSpec, inputs: AugmentInputs, work: Workspace) -> AugmentOutputs:
    """Raises InputError for a spec that cannot be done on this kind of task; each lists all."""
    refuse_spec(spec)
    folder = work.scratch / "dataset"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(inputs.dataset.iterdir()):
        if path.name not in ("train.jsonl", "dataset.json", REFUSED):
            shutil.copyfile(path, folder / path.name)
    lengths = Lengths(Renderer.load(inputs.base, system=spec.system), limit=spec.max_tokens)
    made = _make_copies(spec, inputs.dataset, folder, lengths, work)
    _write_train(spec, inputs.dataset, folder, made, work)
    (folder / "copies.jsonl").unlink()
    facts = read_json(inputs.dataset / "dataset.json")
    said = made.facts(spec, facts["counts"]["train"])
    if spec.ablation and spec.kind == "classify":
        work.progress(1, 1, "ablation")
        said["ablation"] = ablation(inputs.dataset, folder, seed=spec.seed, most_rows=spec.ablation)
    write_atomic(folder / "augment.json", canonical_json(said) + b"\n")
    write_atomic(folder / "dataset.json", canonical_json(_extended(facts, made, lengths, folder)) + b"\n")
    work.summarize(added=said["added"], refused=said["refused"])
    return AugmentOutputs(dataset=folder)


def refuse_spec(spec: AugmentSpec) -> None:
    """One InputError with every problem."""
    problems = []
    if spec.balance != "off" and spec.kind != "classify":
        what = f"classes are balanced, and a {spec.kind} task has none"
        problems.append(Problem(where="data.augment.balance", what=what, fix="--set data.augment.balance=off"))
    if spec.kind == "domain" and (spec.noise or spec.paraphrase):
        what = "a domain text is its own answer: the model would learn to write the noise"
        problems.append(Problem(where="data.augment", what=what, fix="take noise and paraphrase out"))
    for n, noise in enumerate(spec.noise):
        where = f"data.augment.noise[{n}]"
        if not 0 <= noise.share <= 1:
            problems.append(Problem(where=f"{where}.share", what=f"{noise.share!r} is not in [0, 1]"))
        if not 0 < noise.rate <= 1:
            problems.append(Problem(where=f"{where}.rate", what=f"{noise.rate!r} is not in (0, 1]"))
    if spec.paraphrase is not None and not 0 <= spec.paraphrase.share <= 1:
        what = f"{spec.paraphrase.share!r} is not in [0, 1]"
        problems.append(Problem(where="data.augment.paraphrase.share", what=what))
    if not 0 < spec.near <= 1:
        problems.append(Problem(where="data.augment.near", what=f"{spec.near!r} is not in (0, 1]"))
    if problems:
        raise InputError(problems)


@dataclass(slots=True)
class _Made:
    """What the first pass made and refused."""

    rows: Counter[str] = field(default_factory=Counter)  # training rows of each class, copies included
    added: Counter[str] = field(default_factory=Counter)  # by origin
    refused: dict[str, Counter[str]] = field(default_factory=dict)  # origin -> reason -> copies
    weights: dict[str, float] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    asked: int = 0  # questions to the teacher, also those answered before an interruption

    def facts(self, spec: AugmentSpec, before: int) -> dict[str, Any]:
        return {
            "rows_before": before,
            "rows_after": before + self.added.total(),
            "added": dict(sorted(self.added.items())),
            "refused": {origin: dict(sorted(c.items())) for origin, c in sorted(self.refused.items())},
            "near": spec.near,
            "balance": {
                "how": spec.balance,
                "most": spec.balance_most,
                "weights": self.weights,
                "repeated": {k: n for k, n in self.repeated.items() if n},
            },
            "asked": self.asked,
            "ablation": None,
        }


def _make_copies(spec: AugmentSpec, dataset: Path, folder: Path, lengths: Lengths, work: Workspace) -> _Made:
    """Writes copies.jsonl and what was refused."""
    made, train = _Made(), dataset / "train.jsonl"
    forbidden = Forbidden.of(
        (f"{split}:{row.file}:{row.line}", row_text(row))
        for split in ("validation", "test")
        for row in read_lines(dataset / f"{split}.jsonl", Row)
        if row.messages
    )
    for split in ("validation", "test"):
        lengths.count_all(read_lines(dataset / f"{split}.jsonl", Row))
    ask = None
    if spec.paraphrase is not None:
        settings = msgspec.to_builtins(spec.paraphrase)
        ask = Asked(teacher(spec.paraphrase), work.state / "asked.jsonl", settings=settings)
    known = {input_key(row.messages, row.target) for row in read_lines(train, Row)}
    total = len(known)
    try:
        with LinesWriter(folder / "copies.jsonl") as copies, LinesWriter(folder / REFUSED) as refused:
            for n, row in enumerate(read_lines(train, Row)):
                lengths.count(row)
                if spec.kind == "classify":
                    made.rows[row.target] += 1
                for copy in copies_of(row, spec, forbidden, ask):
                    found = _fitting(copy, known, lengths)
                    if isinstance(found, Refused):
                        made.refused.setdefault(found.origin, Counter())[found.reason] += 1
                        refused.write(_left_out(row, found))
                    else:
                        copies.write(found)
                        made.added[found.origin] += 1
                        if spec.kind == "classify":
                            made.rows[found.target] += 1
                if n % EVERY == 0:
                    work.stop_if_asked()
                    work.progress(n, total, "augment", added=made.added.total())
    finally:
        if ask is not None:
            made.asked = ask.requests + ask.reused
            work.summarize(teacher_requests=ask.requests)
            ask.close()
    return made


def _fitting(copy: Row | Refused, known: set[bytes], lengths: Lengths) -> Row | Refused:
    """A copy that repeats another training row, whatever its answer, or is too long is refused."""
    if isinstance(copy, Refused):
        return copy
    key = input_key(copy.messages, copy.target)
    # case and white space are what some noise is about: only a paraphrase must differ in more
    if key in known and copy.origin not in ("augment.case", "augment.format"):
        return Refused(origin=copy.origin, reason="duplicate", detail="another training row asks the same")
    if tokens := lengths.too_long(copy):
        return Refused(origin=copy.origin, reason="over_long", detail=f"{tokens:,} tokens, {lengths.limit:,} at most")
    known.add(key)
    lengths.count(copy)
    return copy


def _left_out(row: Row, refused: Refused) -> LeftOut:
    return LeftOut(
        file=row.file,
        line=row.line,
        reason=refused.reason,
        detail=f"{refused.origin}: {refused.detail}",
        text=excerpt(row.example.input),
        step="augment",
    )


def _write_train(spec: AugmentSpec, dataset: Path, folder: Path, made: _Made, work: Workspace) -> None:
    if spec.balance == "weights":
        made.weights = class_weights(made.rows, most=spec.balance_most)
    if spec.balance == "sample":
        made.repeated = repeats(made.rows, most=spec.balance_most)

    def whole() -> Iterator[Row]:
        yield from read_lines(dataset / "train.jsonl", Row)
        yield from read_lines(folder / "copies.jsonl", Row)

    more = _repeated(whole(), made, spec.seed) if any(made.repeated.values()) else {}
    with LinesWriter(folder / "train.jsonl") as out:
        for row in whole():
            factor = made.weights.get(row.target, 1.0)
            out.write(row if factor == 1.0 else msgspec.structs.replace(row, weight=round(row.weight * factor, 9)))
        for n, row in enumerate(whole()):
            for copy in range(more.get(n, 0)):
                # an id of its own: rows of one id would stand side by side in every epoch
                id = content_id({"repeats": row.id, "copy": copy})
                out.write(msgspec.structs.replace(row, id=id, origin="augment.sample"))
                made.added["augment.sample"] += 1
                made.rows[row.target] += 1
        work.stop_if_asked()


def _repeated(rows: Iterator[Row], made: _Made, seed: int) -> dict[int, int]:
    """Place of a row -> how often it is repeated. Rows of a class take turns in the order of their hashes."""
    places: dict[str, list[tuple[int, int]]] = {}
    for n, row in enumerate(rows):
        if made.repeated.get(row.target):
            places.setdefault(row.target, []).append((rank_of(row.id, f"{seed} sample"), n))
    found = {}
    for label, members in places.items():
        for place, (_, n) in enumerate(sorted(members)):
            found[n] = times(place, len(members), made.repeated[label])
    return found


def _extended(facts: dict[str, Any], made: _Made, lengths: Lengths, folder: Path) -> dict[str, Any]:
    """dataset.json with the training rows as they are now; the split and the seal are as they were."""
    added = made.added.total()
    counts = {**facts["counts"], "train": facts["counts"]["train"] + added}
    table = {c: {**n, "train": made.rows.get(c, n["train"])} for c, n in facts["class_counts"].items()}
    for row in read_lines(folder / "train.jsonl", Row):
        if row.origin == "augment.sample":
            lengths.count(row)
    return {
        **facts,
        "counts": counts,
        "class_counts": table,
        "tokens": {**facts["tokens"], **lengths.facts()},
        "augment": {"added": added, "origins": dict(sorted(made.added.items()))},
    }


def augment_words(facts: dict[str, Any]) -> str:
    """augment.json for the terminal."""
    added = ", ".join(f"{n:,} by {origin.partition('.')[2]}" for origin, n in facts["added"].items()) or "none"
    lines = [f"training rows: {facts['rows_before']:,} as prepared, {facts['rows_after']:,} now; added: {added}"]
    refused = [(n, origin, reason) for origin, c in facts["refused"].items() for reason, n in c.items()]
    for n, origin, reason in sorted(refused, key=lambda r: (-r[0], r[1], r[2])):
        lines.append(f"  {n:,} copies by {origin.partition('.')[2]} refused: {reason.replace('_', ' ')}")
    weights = facts["balance"]["weights"]
    if weights:
        low, high = min(weights, key=weights.__getitem__), max(weights, key=weights.__getitem__)
        lines.append(f"  weights: {weights[low]:.2f} ({low}) to {weights[high]:.2f} ({high})")
    found = facts["ablation"]
    if found is not None:
        lines.append(found["words"])
    return "\n".join(lines)
