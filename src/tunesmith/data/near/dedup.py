"""Stage dedup: leave out rows that say the same, or nearly the same, as a row that is kept, or as a forbidden text.

    examples -> examples; and in the folder: clusters.jsonl (what each kept row stands for), review.jsonl (rows
    that are near but have different answers), suggestions.jsonl (alike in meaning; nothing is removed)

Order: forbidden texts, then equal texts, then near-duplicates. A cluster is a star: every row left out is at
or above the threshold to the kept row itself. Which templates do not count is settled in rounds: those of all
rows, less any that are none among the rows kept. Leaving fewer shingles out makes rows only more alike, so
the rounds end; and those of a second run are among them, so that it finds nothing.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.lines import Fault, excerpt
from tunesmith.data.near import against as forbidden_texts
from tunesmith.data.near.clusters import Star, stars
from tunesmith.data.near.join import Join, prefix_keys
from tunesmith.data.near.minhash import minhash_keys
from tunesmith.data.near.rows import ONE_ANSWER, Known, said, survey
from tunesmith.data.near.shingles import Hashes, Ints, Shingles
from tunesmith.data.near.stages import DedupInputs, DedupOutputs, DedupSpec
from tunesmith.data.near.templates import Templates, find_templates
from tunesmith.data.step import RowStep
from tunesmith.data.validate import Problems
from tunesmith.data.write import LinesWriter

LARGEST = 20  # clusters that the facts name
NONE = Templates(np.zeros(0, np.uint32), ())


def dedup(spec: DedupSpec, inputs: DedupInputs, work: Workspace) -> DedupOutputs:
    """Raises DataError for contradictions that are refused, unusable times, and forbidden texts it cannot read."""
    known, sets = survey(inputs.examples / "rows.jsonl", work, kind=spec.kind, keep=spec.keep,
                         newest_by=spec.newest_by, previous=inputs.previous)  # fmt: skip
    verdicts = _Verdicts(known)
    facts: dict[str, Any] = {"near": spec.near, "keep": spec.keep, "across": spec.across}
    facts |= leave_forbidden_out(verdicts, sets, spec, inputs)
    exact = equal_texts(verdicts, spec)
    found, templates = near_texts(verdicts, sets, spec, work) if spec.near else (equal_questions(verdicts, spec), NONE)
    contrary = [star for star in found if len(star.contrary)]
    if spec.contradictions == "refuse":
        refuse_contradictions(known, contrary)
    verdicts.leave_near_out(found, leave_contrary_out=spec.contradictions == "leave_out")
    clusters = verdicts.clusters(exact, found)
    with RowStep(inputs.examples, work, step="dedup", restored=spec.restored) as out:
        for i, row in enumerate(out.rows()):
            reason = verdicts.reason.get(i)
            if reason is None:
                out.keep(row)
            else:
                out.leave_out(row, *reason)
        out.facts = facts | _summary(known, clusters, contrary, templates)
    write_clusters(out.folder / "clusters.jsonl", known, clusters)
    write_review(out.folder / "review.jsonl", known, contrary if spec.contradictions == "review" else [])
    if spec.semantic:
        from tunesmith.data.near.semantic import suggest  # late: it loads torch

        suggest(out.folder, inputs.encoder, spec.semantic, work, text=lambda row: said(row, spec.kind))
    return DedupOutputs(examples=out.folder)


class _Verdicts:
    """Why each row is left out, if it is."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.reason: dict[int, tuple[str, str]] = {}

    @property
    def left(self) -> Ints:
        """Rows that are still in, ascending."""
        stays = np.ones(len(self.known), bool)
        stays[list(self.reason)] = False
        return np.flatnonzero(stays)

    def leave_near_out(self, found: list[Star], *, leave_contrary_out: bool) -> None:
        where = self.known.where
        for star in found:
            disputed = leave_contrary_out and len(star.contrary)
            end = "which is left out for its contradiction" if disputed else "which is kept"
            for row, alike in zip(star.members.tolist(), star.similarity.tolist(), strict=True):
                self.reason[row] = ("near_duplicate", f"{alike:.2f} like {where(star.kept)}, {end}")
        if not leave_contrary_out:
            return
        for star in found:
            for row, alike in zip(star.contrary.tolist(), star.contrary_similarity.tolist(), strict=True):
                why = f"has another answer than {where(star.kept)}, which is {alike:.2f} like it"
                self.reason.setdefault(row, ("contradiction", why))
            if len(star.contrary):
                why = f"has another answer than {where(int(star.contrary[0]))}, which is nearly the same"
                self.reason[star.kept] = ("contradiction", why)

    def clusters(self, exact: dict[int, list[int]], found: list[Star]) -> dict[int, list[tuple[int, float]]]:
        """Kept row -> what it stands for. Copies of a row that is near another one belong to that one's cluster:
        a copy is as near to it as the row itself."""
        taken = {row: (star.kept, s) for star in found for row, s in zip(star.members.tolist(), star.similarity.tolist(), strict=True)}  # fmt: skip
        out: dict[int, list[tuple[int, float]]] = {}
        for row, (kept, alike) in taken.items():
            out.setdefault(kept, []).append((row, alike))
        for kept, copies in exact.items():
            to, alike = taken.get(kept, (kept, 1.0))
            out.setdefault(to, []).extend((row, alike) for row in copies)
            if to != kept:
                for row in copies:
                    self.reason[row] = ("duplicate", f"says the same as {self.known.where(kept)}, which is {alike:.2f} like {self.known.where(to)}, which is kept")  # fmt: skip
        rank = self.known.rank
        return {kept: sorted(members, key=lambda m: rank[m[0]]) for kept, members in sorted(out.items())}


def leave_forbidden_out(verdicts: _Verdicts, sets: Shingles, spec: DedupSpec, inputs: DedupInputs) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if inputs.against is not None:
        texts = forbidden_texts.read_forbidden(inputs.against)
        found = forbidden_texts.find(sets, texts.sets, spec.against)
        for row, match in found.items():
            why = f"{match.contained:.0%} contained in or by {texts.where[match.text]}, which must not be trained on"
            verdicts.reason[row] = ("contaminated", why)
        hit = {match.text for match in found.values()}
        facts["against"] = {"texts": len(texts.where), "too_short": texts.too_short, "unreadable": texts.unreadable,
                            "rows": len(found), "texts_found": len(hit)}  # fmt: skip
    if inputs.sealed is not None:
        texts = forbidden_texts.sealed_texts(inputs.sealed)
        found = forbidden_texts.find(sets, texts.sets, spec.against)
        for row, match in found.items():
            why = f"{match.contained:.0%} contained in or by {texts.where[match.text]}, a sealed test row"
            verdicts.reason.setdefault(row, ("sealed_test", why))
        facts["sealed"] = {"texts": len(texts.where), "rows": len(found)}
    return facts


def equal_texts(verdicts: _Verdicts, spec: DedupSpec) -> dict[int, list[int]]:
    """Leave out what asks and answers the same as an earlier-ranked row; kept row -> its copies."""
    known, left = verdicts.known, verdicts.left
    apart = np.zeros(len(left), np.int64) if spec.across else known.file[left]
    order = np.lexsort((known.rank[left], apart, known.answer[left], known.ask[left]))
    rows = left[order]
    keys = np.stack([known.ask[rows], known.answer[rows], apart[order]])
    same = np.concatenate([[False], (keys[:, 1:] == keys[:, :-1]).all(axis=0)])[: len(rows)]
    copies: dict[int, list[int]] = {}
    kept = -1
    for row, repeats in zip(rows.tolist(), same.tolist(), strict=True):
        if not repeats:
            kept = row
            continue
        copies.setdefault(kept, []).append(row)
        verdicts.reason[row] = ("duplicate", f"says the same as {known.where(kept)}, which is kept")
    return copies


def equal_questions(verdicts: _Verdicts, spec: DedupSpec) -> list[Star]:
    """Rows left that ask the same with another answer, where only one can be right."""
    if spec.kind not in ONE_ANSWER:
        return []
    known, left = verdicts.known, verdicts.left
    apart = np.zeros(len(left), np.int64) if spec.across else known.file[left]
    order = np.lexsort((known.rank[left], apart, known.ask[left]))
    rows = left[order]
    same = (known.ask[rows][1:] == known.ask[rows][:-1]) & (apart[order][1:] == apart[order][:-1])
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    none = np.zeros(0, np.int64)
    return [
        Star(int(group[0]), none, none.astype(float), group[1:], np.ones(len(group) - 1))
        for group in np.split(rows, starts[1:])
        if len(group) > 1
    ]


def near_texts(verdicts: _Verdicts, sets: Shingles, spec: DedupSpec, work: Workspace) -> tuple[list[Star], Templates]:
    """Stars among the rows left, in the numbering of all rows, and the templates that did not count. Overwrites
    `sets` with those of the rows left."""
    known, left = verdicts.known, verdicts.left
    sets = sets.take(left, overwrite=True)
    work.progress(0, 1, "near-duplicates: indexing")
    join = Join(sets, spec.near, minhash_keys if spec.candidates == "minhash" else prefix_keys)
    answer = known.answer[left] if spec.kind in ONE_ANSWER else None
    apart = None if spec.across else known.file[left]

    def progress(done: int, total: int, doing: str = "comparing") -> None:
        work.stop_if_asked()
        work.progress(done, total, f"near-duplicates: {doing}")

    def looking(done: int, total: int) -> None:
        progress(done, total, "wording that rows share")

    def texts(rows: Ints) -> list[str]:
        return [said(row, spec.kind) for row in known.rows(left[rows])]

    everyone = np.arange(len(left))
    templates = find_templates(sets, everyone, texts, looking) if spec.templates else NONE
    while True:
        progress(0, len(left))
        found = stars(join, known.rank[left], answer=answer, apart=apart, without=templates.values, progress=progress)
        if not len(templates.values):
            break
        gone = _gone(found, len(left), leave_contrary_out=spec.contradictions == "leave_out")
        still = find_templates(sets, everyone[~gone], texts, looking)
        both: Hashes = np.intersect1d(templates.values, still.values)
        if len(both) == len(templates.values):
            break
        templates = Templates(both, still.phrases)
    return [_of_all(star, left, known.rank) for star in found], templates


def _of_all(star: Star, left: Ints, rank: Ints) -> Star:
    """In the numbering of all rows, in order of rank: what is written must not depend on the order of the rows."""
    members, contrary = left[star.members], left[star.contrary]
    first, second = np.argsort(rank[members]), np.argsort(rank[contrary])
    return Star(
        int(left[star.kept]),
        members[first],
        star.similarity[first],
        contrary[second],
        star.contrary_similarity[second],
    )


def _gone(found: list[Star], n: int, *, leave_contrary_out: bool) -> NDArray[np.bool_]:
    gone = np.zeros(n, bool)
    for star in found:
        gone[star.members] = True
        if leave_contrary_out and len(star.contrary):
            gone[star.contrary] = True
            gone[star.kept] = True
    return gone


def refuse_contradictions(known: Known, contrary: list[Star]) -> None:
    """Raises DataError with the first of them and the count."""
    problems = Problems()
    for star in contrary:
        for row, alike in zip(star.contrary.tolist(), star.contrary_similarity.tolist(), strict=True):
            what = f"has another answer than {known.where(star.kept)}, which is {alike:.2f} like it"
            problems.add_row(known.where(row), Fault(reason="contradiction", what=what, fix="correct one of the two"))
    problems.raise_if_any(
        read=len(known),
        fix="correct them, or --set data.dedup.contradictions=review to look at them, or =leave_out",
    )


def _summary(
    known: Known, clusters: dict[int, list[tuple[int, float]]], contrary: list[Star], templates: Templates
) -> dict[str, Any]:
    largest = sorted(clusters.items(), key=lambda c: (-len(c[1]), known.rank[c[0]]))[:LARGEST]
    chosen = np.array([kept for kept, _ in largest], np.int64)
    texts = [excerpt(row.example.input) for row in known.rows(chosen)]
    sizes = Counter(len(members) + 1 for members in clusters.values())
    return {
        "clusters": len(clusters),
        "cluster_sizes": {str(size): n for size, n in sorted(sizes.items())},
        "largest": [
            {"kept": known.where(kept), "rows": len(members) + 1, "text": text}
            for (kept, members), text in zip(largest, texts, strict=True)
        ],
        "contradictions": sum(len(star.contrary) for star in contrary),
        "templates": [{"text": excerpt(text), "rows": rows} for text, rows in templates.phrases],
        "template_shingles": len(templates.values),
    }


def write_clusters(path: Path, known: Known, clusters: dict[int, list[tuple[int, float]]]) -> None:
    with LinesWriter(path) as out:
        for kept, members in sorted(clusters.items(), key=lambda c: known.rank[c[0]]):
            out.write(
                {
                    "kept": known.where(kept),
                    "members": [known.where(row) for row, _ in members],
                    "similarity": [round(alike, 4) for _, alike in members],
                }
            )


def write_review(path: Path, known: Known, contrary: list[Star]) -> None:
    """One line a kept row: the rows near it whose answers differ from its own, for a person to decide."""
    with LinesWriter(path) as out:
        for star in sorted(contrary, key=lambda s: known.rank[s.kept]):
            rows = list(known.rows(np.array([star.kept, *star.contrary.tolist()], np.int64)))
            alike = [1.0, *star.contrary_similarity.tolist()]
            items = [_item(row, s) for row, s in zip(rows, alike, strict=True)]
            out.write({"queue": "contradiction", "kept": items[0], "contrary": items[1:]})


def _item(row: Row, alike: float) -> dict[str, Any]:
    return {"id": row.id, "file": row.file, "line": row.line, "answer": excerpt(row.target),
            "text": excerpt(row.example.input), "similarity": round(alike, 4)}  # fmt: skip
